"""`PointMassMaze`: a point that has to move around a barrier, and variants with a mirrored barrier or none."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from lit_imitation.envs.batched import BatchedEnv, SingleEnv
from lit_imitation.errors import ConfigError

LOW, HIGH = -0.1, 0.6
"""Positions of the walls along both axes."""
START, GOAL = (0.3, 0.0), (0.3, 0.5)
BARRIER_HEIGHT = 0.3
BARRIERS = {"right": (0.2, 0.6), "left": (-0.1, 0.4), "none": (np.inf, -np.inf)}
"""Extent of the barrier along x, by the wall it is attached to; the other end is open."""
SPEED = 0.02
"""Distance moved along an axis by the action 1."""
START_NOISE = 0.01
"""Half-width of the uniform distribution of each start coordinate."""
GAP = 1e-3
"""Distance kept between the barrier and a point that hits it."""


def reward(position: NDArray[Any], action: NDArray[Any]) -> NDArray[Any]:
    """Reward R(s, a) = −‖s − goal‖ − 0.001 ‖a‖² `[...]` of positions and actions `[..., 2]`."""
    distance = np.linalg.norm(position - np.asarray(GOAL), axis=-1)
    return np.asarray(-distance - 1e-3 * np.square(np.clip(action, -1.0, 1.0)).sum(-1))


def move(position: NDArray[Any], action: NDArray[Any], barrier: str) -> NDArray[Any]:
    """Positions `[..., 2]` after one step; points slide along walls and barrier.

    Args:
        position: `[..., 2]` positions.
        action: `[..., 2]` actions, clipped to [−1, 1].
        barrier: Key of `BARRIERS`.

    Returns:
        `[..., 2]` next positions.
    """
    following = np.clip(position + SPEED * np.clip(action, -1.0, 1.0), LOW, HIGH)
    x, y = following[..., 0], following[..., 1]
    before = position[..., 1]
    crosses = (before < BARRIER_HEIGHT) != (y < BARRIER_HEIGHT)
    share = np.divide(BARRIER_HEIGHT - before, y - before, out=np.zeros_like(y), where=crosses)
    place = position[..., 0] + share * (x - position[..., 0])
    left, right = BARRIERS[barrier]
    blocked = crosses & (left <= place) & (place <= right)
    side = np.where(before < BARRIER_HEIGHT, -GAP, GAP)
    return np.stack([x, np.where(blocked, BARRIER_HEIGHT + side, y)], axis=-1)


class PointMassMazeVectorEnv(BatchedEnv):
    """Point-mass maze of Fu, Luo & Levine (2018, arXiv:1710.11248): a barrier with one open end between start and goal.

    A point moves by 0.02 a per step, a in [−1, 1]², within [−0.1, 0.6]². It starts within 0.01 of (0.3, 0); the goal is
    (0.3, 0.5). The barrier at y = 0.3 covers x in [0.2, 0.6] (`right`) or, mirrored, [−0.1, 0.4] (`left`); `none`
    removes it. The reward is −‖s − goal‖ − 0.001 ‖a‖², where s is the position before the step. An episode is truncated
    after 100 steps.

    In the paper the point has mass and damping, but only its position is observed. Here it moves at the speed to which
    the damped point converges, so the position is the whole state.

    The observation `Box(2)` is the position.

    Args:
        num_envs: Number of copies.
        horizon: Number of steps in an episode.
        barrier: Wall that the barrier is attached to: `right`, `left` or `none`.

    Raises:
        ConfigError: `horizon` is less than 1, or `barrier` is unknown.
    """

    def __init__(self, num_envs: int = 1, horizon: int = 100, barrier: str = "right") -> None:
        if barrier not in BARRIERS:
            raise ConfigError(f"barrier is {barrier!r}; choose one of {', '.join(BARRIERS)}")
        super().__init__(num_envs, horizon, Box(LOW, HIGH, (2,)), Box(-1.0, 1.0, (2,)))
        self.barrier = barrier

    def _begin(self) -> NDArray[np.float64]:
        """Start positions `[num_envs, 2]`."""
        return np.asarray(START) + self.np_random.uniform(-START_NOISE, START_NOISE, (self.num_envs, 2))

    def _advance(self, state: NDArray[Any], action: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        action = action.astype(np.float64)
        return move(state, action, self.barrier), reward(state, action)

    def _observe(self, state: NDArray[Any]) -> NDArray[np.float32]:
        return state.astype(np.float32)


class PointMassMazeEnv(SingleEnv):
    """Single copy of `PointMassMazeVectorEnv`, with the same arguments."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(PointMassMazeVectorEnv(1, **arguments))
