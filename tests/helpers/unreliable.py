"""Expert and environment that fail on the second of two processes."""

import itertools
import os

import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv

from lit_imitation.experts.scripted import cart_pole

calls = itertools.count()


def expert(observation):
    if next(calls) == 7 and os.environ.get("LOCAL_RANK") == "1":
        raise RuntimeError("the pilot has left")
    return cart_pole(observation)


class HalfBrokenEnv(CartPoleEnv):
    """CartPole that returns a NaN reward at step 100 on the second of two processes."""

    steps = 0

    def step(self, action):
        observation, reward, *rest = super().step(action)
        self.steps += 1
        lost = self.steps == 100 and os.environ.get("LOCAL_RANK") == "1"
        return observation, float("nan") if lost else reward, *rest


gymnasium.register("HalfBroken-v0", HalfBrokenEnv, max_episode_steps=500)
