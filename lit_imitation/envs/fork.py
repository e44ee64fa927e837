"""`Fork`: several equally good ways around an obstacle, and none between them."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from lit_imitation.envs.batched import BatchedEnv, SingleEnv
from lit_imitation.errors import ConfigError

SPEED = 0.1
"""Displacement along each axis of a step at full action."""
FRONT, BACK = 1.0, 1.2
"""Abscissae of the wall's two faces; it is thicker than a step, so it cannot be jumped."""
INNER, OUTER = 0.4, 1.0
"""Distances of the innermost and the outermost gate from the axis y = 0; one gate alone on its side lies halfway."""
HALF_WIDTH = 0.07
"""Half the width of a gate."""
START = 0.02
"""Half-width of the uniform distribution of the start's ordinate."""


def gate_heights(modes: int) -> NDArray[np.float64]:
    """Ordinates `[modes]` of the gates' centers, from the highest to the lowest.

    ⌈K/2⌉ gates lie above the axis and ⌊K/2⌋ below it, evenly from `INNER` to `OUTER` on each side. The dead zone
    between them is solid.
    """
    above, below = (
        np.linspace(OUTER, INNER, count) if count > 1 else np.array([(INNER + OUTER) / 2])
        for count in ((modes + 1) // 2, modes // 2)
    )
    return np.concatenate([above, -below[::-1]])


def gate_of(y: NDArray[Any], modes: int) -> NDArray[np.int64]:
    """Index `[B]` of the gate at ordinates `y: [B]`, −1 where there is none."""
    distance = np.abs(y[:, None] - gate_heights(modes))
    return np.where(distance.min(1) <= HALF_WIDTH, distance.argmin(1), -1)


class ForkVectorEnv(BatchedEnv):
    """Point that has to pass a wall with K gates, none of which lies straight ahead.

    The point p = (x, y) starts at x = 0 with y ~ U(−0.02, 0.02), and an action a moves it by 0.1 clip(a, ±1). The wall
    is the strip 1 ≤ x ≤ 1.2. It is solid except at the K gates |y − g_k| ≤ 0.07 (`gate_heights`), and a point that ends
    a step inside the solid part sticks there. The reward is 1 for the step that leaves the wall behind, otherwise 0,
    so the return is 1 for success and 0 for failure. An episode is truncated after `horizon` steps.

    All gates are equally good, and the start tells nothing about them: where demonstrations choose different gates, the
    distribution of actions at the start has K modes. Their mean leads into the dead zone around y = 0, which is solid.

    The observation `Box(2)` is p, the action `Box(2)` is a. `info` has `success`, and `mode`, the gate in or behind
    which the point is (−1: none).

    Args:
        num_envs: Number of copies.
        modes: Number K of gates.
        horizon: Number of steps in an episode; the expert needs at most 19.

    Raises:
        ConfigError: `modes` is less than 2, or `horizon` is less than 1.
    """

    def __init__(self, num_envs: int = 1, modes: int = 2, horizon: int = 20) -> None:
        if modes < 2:
            raise ConfigError(f"modes is {modes}; it must be at least 2")
        high = np.full(2, np.inf, np.float32)
        super().__init__(num_envs, horizon, Box(-high, high), Box(-1.0, 1.0, (2,)))
        self.modes = modes

    def _begin(self) -> NDArray[np.float64]:
        """Start states (x, y, gate) `[num_envs, 3]`; the gate, −1 so far, is the last one passed."""
        y = self.np_random.uniform(-START, START, self.num_envs)
        return np.stack([np.zeros(self.num_envs), y, np.full(self.num_envs, -1.0)], axis=-1)

    def _advance(self, state: NDArray[Any], action: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        x, y, gate = state.T
        here = gate_of(y, self.modes)
        stuck = (x >= FRONT) & (x <= BACK) & (here < 0)
        move = SPEED * np.clip(action.astype(np.float64), -1.0, 1.0) * ~stuck[:, None]
        next_x, next_y = x + move[:, 0], y + move[:, 1]
        inside = (next_x >= FRONT) & (next_x <= BACK)
        gate = np.where(inside, gate_of(next_y, self.modes), np.where(next_x < FRONT, -1, gate))
        reward = ((x <= BACK) & (next_x > BACK)).astype(np.float64)
        return np.stack([next_x, next_y, gate], axis=-1), reward

    def _observe(self, state: NDArray[Any]) -> NDArray[np.float32]:
        return state[:, :2].astype(np.float32)

    def _inform(self, state: NDArray[Any]) -> dict[str, NDArray[Any]]:
        x, _, gate = state.T
        return {"success": x > BACK, "mode": gate.astype(np.int64)}


class ForkEnv(SingleEnv):
    """Single copy of `ForkVectorEnv`, with the same arguments."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(ForkVectorEnv(1, **arguments))
