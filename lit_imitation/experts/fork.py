"""Expert of `Fork`, which chooses one of its gates at random for each episode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lit_imitation.envs.fork import gate_directions
from lit_imitation.errors import ExpertError

__all__ = ["ForkExpert"]

FEEDBACK = 2.0
"""Lateral speed, relative to the forward speed, by distance from the way."""


def steer(observation: NDArray[Any], direction: NDArray[Any]) -> NDArray[np.float64]:
    """Actions `[B, 2]` of length 1 at positions p `[B, 2]` along directions g `[B, 2]` from the middle.

        a = d / ‖d‖,    d = g − 2 (p − (p·g) g)

    The way is the ray through the gate; the second part leads back to it.
    """
    position = observation.astype(np.float64)
    along = (position * direction).sum(-1, keepdims=True) * direction
    toward = direction - FEEDBACK * (position - along)
    return np.asarray(toward / np.linalg.norm(toward, axis=-1, keepdims=True))


class ForkExpert:
    """Actor that draws a gate when an episode starts, keeps it, and steers to it with a little noise.

    Noise keeps the demonstrations from being K curves: it shows how to come back to them. Gates and noise are drawn
    from torch's global random stream.

    Args:
        modes: Number K of gates, as in the environment.
        shares: Probabilities `[K]` of the gates, up to a factor; by default all are equal.
        noise: Standard deviation of the noise of each action component.

    Raises:
        ExpertError: There are not K shares, or one is negative, or all are 0.
    """

    def __init__(self, modes: int = 2, shares: Sequence[float] | None = None, noise: float = 0.05) -> None:
        self.shares = torch.ones(modes) if shares is None else torch.tensor(shares, dtype=torch.float32)
        if self.shares.shape != (modes,) or self.shares.min() < 0 or not self.shares.sum() > 0:
            raise ExpertError(f"shares is {shares}; give {modes} numbers of at least 0, not all of them 0")
        self.noise = noise
        self.directions = gate_directions(modes)
        self.mode = np.zeros(0, np.int64)
        """Gate `[B]` of each environment."""

    def reset(self, mask: NDArray[np.bool_], /) -> None:
        """Draw new gates for the environments in `mask: [B]`."""
        drawn = torch.multinomial(self.shares, len(mask), replacement=True).numpy()
        self.mode = np.where(mask, drawn, self.mode) if len(mask) == len(self.mode) else drawn

    def act(self, observation: NDArray[Any], /) -> NDArray[np.float32]:
        """Actions `[B, 2]` at positions `[B, 2]`."""
        action = steer(observation, self.directions[self.mode])
        noise = self.noise * torch.randn(action.shape).numpy()
        return np.clip(action + noise, -1.0, 1.0).astype(np.float32)
