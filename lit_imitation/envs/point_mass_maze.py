"""`PointMassMaze`: a point that has to get around a barrier, and the same maze with the barrier's other end open."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from lit_imitation.envs.batched import BatchedEnv, SingleEnv
from lit_imitation.errors import ConfigError

LOW, HIGH = -0.1, 0.6
"""The walls, along either axis."""
START, GOAL = (0.3, 0.0), (0.3, 0.5)
BARRIER_HEIGHT = 0.3
BARRIERS = {"right": (0.2, 0.6), "left": (-0.1, 0.4), "none": (np.inf, -np.inf)}
"""From where to where the barrier reaches, by the wall that it stands against; the other end is open."""
SPEED = 0.02
"""Length of a step along one axis under the action 1."""
START_NOISE = 0.01
"""Half-width of the uniform draw of each coordinate about the start."""
GAP = 1e-3
"""What is left between the barrier and a point that runs into it."""


def reward(position: NDArray[Any], action: NDArray[Any]) -> NDArray[Any]:
    """R(s, a) = −‖s − goal‖ − 0.001 ‖a‖² `[...]`, of positions and actions `[..., 2]`."""
    distance = np.linalg.norm(position - np.asarray(GOAL), axis=-1)
    return np.asarray(-distance - 1e-3 * np.square(np.clip(action, -1.0, 1.0)).sum(-1))


def move(position: NDArray[Any], action: NDArray[Any], barrier: str) -> NDArray[Any]:
    """The positions `[..., 2]` one step after `position: [..., 2]`; along walls and barrier a point slides.

    Args:
        position: where the points are.
        action: `[..., 2]`, clipped to [−1, 1].
        barrier: a key of `BARRIERS`.
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
    """The point-mass maze of Fu, Luo & Levine (2018): a box with a barrier between start and goal, open at one end.

    A point moves by 0.02 a, a in [−1, 1]², a step, in the box [−0.1, 0.6]². It starts within 0.01 of (0.3, 0), the goal
    is (0.3, 0.5), and at y = 0.3 a barrier stands over x in [0.2, 0.6] (`barrier` right), or mirrored, against the
    other wall, in [−0.1, 0.4] (left); with `none` the box is empty. The reward is −‖s − goal‖ − 0.001 ‖a‖², of the
    position before the step; an episode is truncated after 100 steps.

    The paper's point has mass and is damped; its position alone is observed. Here it moves with the speed to which
    that damping lets it come, so that the position is the whole state.

    The observation `Box(2)` is the position.

    Args:
        num_envs: number of copies.
        horizon: steps of an episode.
        barrier: the wall that the barrier stands against, right or left; or none.

    Raises:
        ConfigError: `horizon` is less than 1, or there is no such barrier.
    """

    def __init__(self, num_envs: int = 1, horizon: int = 100, barrier: str = "right") -> None:
        if barrier not in BARRIERS:
            raise ConfigError(f"barrier is {barrier!r}; it stands against the wall on the right or left, or is none")
        super().__init__(num_envs, horizon, Box(LOW, HIGH, (2,)), Box(-1.0, 1.0, (2,)))
        self.barrier = barrier

    def _begin(self) -> NDArray[np.float64]:
        """Positions `[num_envs, 2]`."""
        return np.asarray(START) + self.np_random.uniform(-START_NOISE, START_NOISE, (self.num_envs, 2))

    def _advance(self, state: NDArray[Any], action: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        action = action.astype(np.float64)
        return move(state, action, self.barrier), reward(state, action)

    def _observe(self, state: NDArray[Any]) -> NDArray[np.float32]:
        return state.astype(np.float32)


class PointMassMazeEnv(SingleEnv):
    """One `PointMassMazeVectorEnv`, with the same arguments."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(PointMassMazeVectorEnv(1, **arguments))
