"""Checks of the first reset and step of an environment."""

import copy

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from lit_imitation.envs.probe import probe
from lit_imitation.errors import ConfigError


class Counter(gym.Env):
    """Environment that observes its step number; from the second step on its results are invalid."""

    observation_space, action_space = spaces.Box(0, 9, (1,), np.float32), spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        return (np.float32([self.t]), 1.0, False, False, {}) if self.t < 2 else "nonsense"


def test_only_first_calls_are_checked():
    env = Counter()
    probe(env, "Counter-v0")
    assert {"reset", "step"} <= set(vars(env))
    env.reset()
    assert env.step(0)[0] == 1
    assert not {"reset", "step"} & set(vars(env))
    assert env.step(0) == "nonsense"


def test_deep_copy_steps_itself():
    env = Counter()
    probe(env, "Counter-v0")
    env.reset()
    other = copy.deepcopy(env)
    assert other.step(0)[0] == 1
    assert (env.t, other.t) == (0, 1)


def test_probe_looks_through_gymnasium_wrappers_only():
    class Broken(gym.Wrapper):
        def step(self, action):
            return self.env.step(action)[:4]

    for env in (gym.wrappers.TimeLimit(Broken(Counter()), 5), Broken(gym.wrappers.TimeLimit(Counter(), 5))):
        probe(env, "Broken-v0")
        env.reset()
        with pytest.raises(ConfigError, match=r"^Broken-v0: step\(\) returned a tuple of 4, as in the old Gym API"):
            env.step(0)


def test_gymnasium_environments_are_not_probed():
    env = gym.make("CartPole-v1")
    probe(env, "CartPole-v1")
    assert "step" not in vars(env.unwrapped)
