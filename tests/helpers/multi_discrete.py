"""Environment with MultiDiscrete actions."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, MultiDiscrete

CHOICES, FIRST = (3, 2, 4), (0, -1, 5)


class MatchTargetsEnv(gymnasium.Env):
    """Three components each have a target choice; the reward of a step is the share of components that match it.

    The observation holds the targets as one-hot vectors. An episode is truncated after 8 steps.
    """

    observation_space, action_space = Box(0, 1, (sum(CHOICES),), np.float32), MultiDiscrete(CHOICES, start=FIRST)

    def _ask(self) -> np.ndarray:
        self.asked = self.np_random.integers(CHOICES)
        return np.concatenate([np.eye(n, dtype=np.float32)[i] for n, i in zip(CHOICES, self.asked, strict=True)])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.t = 0
        return self._ask(), {}

    def step(self, action):
        assert self.action_space.contains(np.asarray(action)), action
        reward = float(np.mean(action == self.asked + FIRST))
        self.t += 1
        return self._ask(), reward, False, self.t == 8, {}


def expert(observation: np.ndarray) -> np.ndarray:
    """Target actions `[B, 3]` of observations `[B, 9]`."""
    parts = np.split(observation, np.cumsum(CHOICES)[:-1], axis=1)
    return np.stack([part.argmax(1) for part in parts], 1) + FIRST


gymnasium.register("MatchTargets-v0", "multi_discrete:MatchTargetsEnv")
