"""`LaneKeeping`: steering a car along a winding lane between hazards."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from lit_imitation.envs.batched import BatchedEnv, SingleEnv

AMPLITUDE, WAVENUMBER = 0.6, np.pi / 2
HALF_WIDTH = 0.1
"""Half the width of the lane, measured along y; everything beyond it is hazard."""
SPEED = 0.05
"""Length of a step."""
TURN = 0.15
"""Change of heading in a step at full steering, in radians."""
HEADING_NOISE = 0.02
"""Standard deviation of the heading noise per step, in radians."""
START_OFFSET, START_HEADING = 0.05, 0.1
"""Half-widths of the uniform distributions of initial lateral offset and heading, relative to the lane."""


def center_line(x: NDArray[Any]) -> NDArray[Any]:
    """Ordinate c(x) = 0.6 sin(πx/2) of the lane's center."""
    return np.asarray(AMPLITUDE * np.sin(WAVENUMBER * x))


def center_heading(x: NDArray[Any]) -> NDArray[Any]:
    """Direction arctan c′(x) of the lane, in radians."""
    return np.asarray(np.arctan(AMPLITUDE * WAVENUMBER * np.cos(WAVENUMBER * x)))


def lateral_offset(observation: NDArray[Any]) -> NDArray[Any]:
    """Offset y − c(x) `[...]` of observations `[..., 4]`; a hazard begins where its magnitude exceeds `HALF_WIDTH`."""
    return np.asarray(observation[..., 1] - center_line(observation[..., 0]))


class LaneKeepingVectorEnv(BatchedEnv):
    """Car that moves a fixed distance per step along its heading ψ, steered by an action a in [−1, 1]:

        ψ ← ψ + 0.15 a + 0.02 ξ,  ξ ~ N(0, 1);    (x, y) ← (x, y) + 0.05 (cos ψ, sin ψ)

    The lane is |y − c(x)| ≤ 0.1 around the winding center line c(x) = 0.6 sin(πx/2), with hazards on both sides. The
    reward is −1 for a step that ends in a hazard, otherwise 0. A hazard has no other effect, so the car can be steered
    back. An episode starts at x = 0, close to the center and to the lane's direction, and is truncated after `horizon`
    steps. Driven well, 200 steps cover two bends to each side.

    The observation `Box(4)` is (x, y, cos ψ, sin ψ). It does not show the lane: a learner knows the lane only where
    demonstrations went.

    Args:
        num_envs: Number of copies.
        horizon: Number of steps in an episode.

    Raises:
        ConfigError: `horizon` is less than 1.
    """

    def __init__(self, num_envs: int = 1, horizon: int = 200) -> None:
        high = np.array([np.inf, np.inf, 1.0, 1.0], np.float32)
        super().__init__(num_envs, horizon, Box(-high, high), Box(-1.0, 1.0, (1,)))

    def _begin(self) -> NDArray[np.float64]:
        """Start states (x, y, ψ) `[num_envs, 3]`."""
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
    """Single copy of `LaneKeepingVectorEnv`, with the same arguments."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(LaneKeepingVectorEnv(1, **arguments))
