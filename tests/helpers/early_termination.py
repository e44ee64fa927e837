"""Two tasks whose episodes end early, one with success and one with failure."""

from __future__ import annotations

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

EDGE, HORIZON = 6, 60


class FinishLine(gymnasium.Env):
    """Walk to the line at `EDGE`, where the episode ends; each step before it costs 1.

    The observation is the position; the actions are left, stay and right.
    """

    observation_space = Box(-20.0, float(EDGE), (1,), np.float32)
    action_space = Discrete(3)
    paid = -1.0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = float(self.np_random.integers(0, 2))
        return self._seen(), {}

    def step(self, action):
        self.place = max(-20.0, self.place + float(action) - 1.0)
        return self._seen(), self.paid, self.place >= EDGE, False, {}

    def _seen(self):
        return np.array([self.place], np.float32)


class Ledge(FinishLine):
    """The same walk with a cliff at `EDGE`: reward 1 per step until the fall."""

    paid = 1.0


gymnasium.register("FinishLine-v0", FinishLine, max_episode_steps=HORIZON)
gymnasium.register("Ledge-v0", Ledge, max_episode_steps=HORIZON)


def walks(observation: NDArray[np.float32]) -> NDArray[np.int64]:
    """Right, always: the expert of `FinishLine`."""
    return np.full(len(observation), 2)


def stays(observation: NDArray[np.float32]) -> NDArray[np.int64]:
    """Stay, always: the expert of `Ledge`."""
    return np.full(len(observation), 1)
