"""`LaneKeeping`: a car on a winding lane between hazards, driven by its steering alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from lit_imitation.envs.batched import BatchedEnv, SingleEnv

AMPLITUDE, WAVENUMBER = 0.6, np.pi / 2
HALF_WIDTH = 0.1
"""The lane reaches this far above and below its center line; beyond it, on both sides and all along, is hazard."""
SPEED = 0.05
"""Length of a step."""
TURN = 0.15
"""Radians that full steering turns the car in a step."""
HEADING_NOISE = 0.02
"""Standard deviation of the heading's disturbance in a step, in radians."""
START_OFFSET, START_HEADING = 0.05, 0.1
"""Half-widths of the uniform draws of lateral offset and heading, relative to the lane, at the start."""


def center_line(x: NDArray[Any]) -> NDArray[Any]:
    """The ordinate c(x) = 0.6 sin(πx/2) of the lane's center."""
    return np.asarray(AMPLITUDE * np.sin(WAVENUMBER * x))


def center_heading(x: NDArray[Any]) -> NDArray[Any]:
    """The direction arctan c′(x) of the lane, in radians."""
    return np.asarray(np.arctan(AMPLITUDE * WAVENUMBER * np.cos(WAVENUMBER * x)))


def lateral_offset(observation: NDArray[Any]) -> NDArray[Any]:
    """`[..., 4]` to `[...]`: y − c(x); the car is in a hazard where its magnitude exceeds `HALF_WIDTH`."""
    return np.asarray(observation[..., 1] - center_line(observation[..., 0]))


class LaneKeepingVectorEnv(BatchedEnv):
    """A car that moves a fixed length a step along its heading ψ, and is steered by an action a in [−1, 1]:

        ψ ← ψ + 0.15 a + 0.02 ξ,  ξ ~ N(0, 1);    (x, y) ← (x, y) + 0.05 (cos ψ, sin ψ)

    The lane is |y − c(x)| ≤ 0.1 about the winding center line c(x) = 0.6 sin(πx/2). On both sides of it lies hazard:
    the reward is −1 for a step that ends there, else 0, and nothing else happens, so that a car can be steered back.
    An episode starts at x = 0 near the center, at about the lane's direction, and is truncated after `horizon` steps;
    200 of them, well driven, take the car through two bends to each side.

    The observation `Box(4)` is (x, y, cos ψ, sin ψ): where the car is, and not where the lane is, so that a learner
    has to find out from demonstrations what lies where, and knows it only where they went.

    Args:
        num_envs: number of copies.
        horizon: steps of an episode.

    Raises:
        ConfigError: `horizon` is less than 1.
    """

    def __init__(self, num_envs: int = 1, horizon: int = 200) -> None:
        high = np.array([np.inf, np.inf, 1.0, 1.0], np.float32)
        super().__init__(num_envs, horizon, Box(-high, high), Box(-1.0, 1.0, (1,)))

    def _begin(self) -> NDArray[np.float64]:
        """States `[num_envs, 3]`: (x, y, ψ)."""
        offset, turned = self.np_random.uniform(-1.0, 1.0, (2, self.num_envs))
        x = np.zeros(self.num_envs)
        y, heading = center_line(x) + START_OFFSET * offset, center_heading(x) + START_HEADING * turned
        return np.stack([x, y, heading], axis=-1)

    def _advance(self, state: NDArray[Any], action: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        steering = np.clip(action[:, 0].astype(np.float64), -1.0, 1.0)
        x, y, heading = state.T
        heading = heading + TURN * steering + HEADING_NOISE * self.np_random.standard_normal(self.num_envs)
        x, y = x + SPEED * np.cos(heading), y + SPEED * np.sin(heading)
        reward = np.where(np.abs(y - center_line(x)) > HALF_WIDTH, -1.0, 0.0)
        return np.stack([x, y, heading], axis=-1), reward

    def _observe(self, state: NDArray[Any]) -> NDArray[np.float32]:
        x, y, heading = state.T
        return np.stack([x, y, np.cos(heading), np.sin(heading)], axis=-1).astype(np.float32)


class LaneKeepingEnv(SingleEnv):
    """One `LaneKeepingVectorEnv`, with the same arguments."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(LaneKeepingVectorEnv(1, **arguments))
