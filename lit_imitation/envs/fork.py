"""`Fork`: several equally good ways out of a ring, whose mean leads nowhere."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from lit_imitation.envs.batched import BatchedEnv, SingleEnv
from lit_imitation.errors import ConfigError

SPEED = 0.4
"""Displacement along each axis of a step at full action."""
HALF_WIDTH = 0.25
"""Half the width of a gate, in radians."""
START = 0.01
"""Half-width of the square in which an episode starts."""
AHEAD, STUCK = -1, -2
"""What a state says about the gates inside the ring, and after a hit; a passed gate has its index."""


def gate_directions(modes: int) -> NDArray[np.float64]:
    """Directions `[modes, 2]` of the gates from the middle, of length 1: (cos, sin) of 2πk / modes."""
    angle = 2 * np.pi * np.arange(modes) / modes
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def gate_of(position: NDArray[Any], modes: int) -> NDArray[np.int64]:
    """Index `[B]` of the gate in the direction of `position: [B, 2]`, `AHEAD` where there is only wall."""
    cosine = position @ gate_directions(modes).T / np.linalg.norm(position, axis=-1, keepdims=True)
    return np.where(cosine.max(1) >= np.cos(HALF_WIDTH), cosine.argmax(1), AHEAD)


def crossing(position: NDArray[Any], move: NDArray[Any]) -> NDArray[np.float64]:
    """Share s `[B]` in (0, 1] of moves `[B, 2]` from inside the ring after which ‖p + s m‖ = 1; infinite if none."""
    square, product = (move * move).sum(-1), (position * move).sum(-1)
    missing = 1.0 - (position * position).sum(-1)
    root = np.sqrt(np.maximum(product * product + square * missing, 0.0))
    share = np.divide(root - product, square, out=np.full(len(move), np.inf), where=square > 0.0)
    return np.where(share <= 1.0, share, np.inf)


class ForkVectorEnv(BatchedEnv):
    """Point in the middle of a ring-shaped wall with K gates, which has to leave the ring in time.

    The point p starts uniformly in [−0.01, 0.01]², and an action a moves it by 0.4 clip(a, ±1). The wall is the circle
    ‖p‖ = 1. A step that crosses it within 0.25 rad of the direction 2πk/K passes gate k; anywhere else the point hits
    the wall and sticks there. The reward is 1 for the step that passes a gate, otherwise 0, so the return is 1 for
    success and 0 for failure. An episode is truncated after `horizon` steps.

    All gates are equally good, and the start tells nothing about them: where demonstrations leave by all of them, the
    distribution of actions at the start has K modes, and each later position tells which one was chosen. Between two
    neighboring modes is the wall. The mean of all modes is 0, so the middle is a dead zone: a policy that averages
    stays in it until time is up.

    The observation `Box(2)` is p, the action `Box(2)` is a. `info` has `success`, and `mode`, the passed gate (−1:
    none).

    Args:
        num_envs: Number of copies.
        modes: Number K of gates.
        horizon: Number of steps in an episode; at full speed, every gate takes 3.

    Raises:
        ConfigError: `modes` is not between 2 and 12, or `horizon` is less than 1.
    """

    def __init__(self, num_envs: int = 1, modes: int = 2, horizon: int = 4) -> None:
        if not 2 <= modes <= np.pi / HALF_WIDTH:
            raise ConfigError(f"modes is {modes}; it must be at least 2, and at most 12, or the gates would touch")
        high = np.full(2, np.inf, np.float32)
        super().__init__(num_envs, horizon, Box(-high, high), Box(-1.0, 1.0, (2,)))
        self.modes = modes

    def _begin(self) -> NDArray[np.float64]:
        """Start states (x, y, gate) `[num_envs, 3]`."""
        position = self.np_random.uniform(-START, START, (self.num_envs, 2))
        return np.concatenate([position, np.full((self.num_envs, 1), float(AHEAD))], axis=-1)

    def _advance(self, state: NDArray[Any], action: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        position, gate = state[:, :2], state[:, 2]
        move = SPEED * np.clip(action.astype(np.float64), -1.0, 1.0)
        move[gate == STUCK] = 0.0
        share = np.where(gate == AHEAD, crossing(position, move), np.inf)
        crosses = np.isfinite(share)
        through = gate_of(position + np.minimum(share, 1.0)[:, None] * move, self.modes)
        hits = crosses & (through == AHEAD)
        move[hits] *= share[hits, None]
        gate = np.where(hits, STUCK, np.where(crosses, through, gate))
        return np.concatenate([position + move, gate[:, None]], axis=-1), (crosses & ~hits).astype(np.float64)

    def _observe(self, state: NDArray[Any]) -> NDArray[np.float32]:
        return state[:, :2].astype(np.float32)

    def _inform(self, state: NDArray[Any]) -> dict[str, NDArray[Any]]:
        gate = state[:, 2].astype(np.int64)
        return {"success": gate >= 0, "mode": np.maximum(gate, AHEAD)}


class ForkEnv(SingleEnv):
    """Single copy of `ForkVectorEnv`, with the same arguments."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(ForkVectorEnv(1, **arguments))
