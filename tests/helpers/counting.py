"""Environments with predictable transitions, and the loop that predicts them."""

from __future__ import annotations

from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space

ACTIONS = 5
TAGS = 100_000
FIELDS = ("tag", "episode", "t", "last action", "final")
OBSERVATIONS = Box(-1.0, float(TAGS), (len(FIELDS),), np.float32)


def plan(rng: np.random.Generator, lengths: tuple[int, ...]) -> tuple[int, int, int]:
    """Tag, length and ending of the next episode: 1 terminated, 2 truncated, 3 both."""
    return int(rng.integers(TAGS)), int(rng.choice(lengths)), int(rng.integers(1, 4))


def outcome(tag: int) -> bool | None:
    """Whether an episode counts as a success; one in three does not report it."""
    return (True, False, None)[tag % 3]


class CountingEnv(gymnasium.Env):
    """Environment that observes the seed (`tag`), the episode, the time step, the last action and whether it is over.

    The reward is 100 episode + t + action / 8, exact in float32.

    Args:
        lengths: Possible lengths of an episode, equally likely.
        success: Info key that reports the outcome: at the end only or, if it ends in `*`, at every step.
    """

    observation_space, action_space = OBSERVATIONS, Discrete(ACTIONS)

    def __init__(self, lengths: tuple[int, ...] = (1, 1, 2, 3, 5, 8, 13), success: str = "") -> None:
        self.lengths, self.success = lengths, success

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        if seed is not None:
            self.episode = -1
        super().reset(seed=seed)
        self.tag, self.length, self.ending = plan(self.np_random, self.lengths)
        self.episode, self.t = getattr(self, "episode", -1) + 1, 0
        return np.float32([self.tag, self.episode, 0, -1, 0]), {}

    def step(self, action):
        reward = 100 * self.episode + self.t + int(action) / 8
        self.t += 1
        over = self.t == self.length
        ending = self.ending if over else 0
        key, success, info = self.success.removesuffix("*"), outcome(self.tag), {}
        if key and success is not None and (over or self.success.endswith("*")):
            info[key] = success if over else not success  # reports before the end must not count
        observation = np.float32([self.tag, self.episode, self.t, action, over])
        return observation, reward, bool(ending & 1), bool(ending & 2), info


class CountingVectorEnv(VectorEnv):
    """Batched version with NEXT_STEP resets; ignored steps return NaN rewards."""

    def __init__(
        self, num_envs: int, lengths: tuple[int, ...] = (1, 1, 2, 3, 5, 8, 13), success: str = "", **kwargs: Any
    ) -> None:
        self.num_envs, self.lengths, self.success = num_envs, lengths, success
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self.single_observation_space, self.single_action_space = OBSERVATIONS, Discrete(ACTIONS)
        self.observation_space = batch_space(OBSERVATIONS, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def _begin(self, which: np.ndarray) -> None:
        for i in np.flatnonzero(which):
            self.tag[i], self.length[i], self.ending[i] = plan(self.rngs[i], self.lengths)
        self.episode[which] += 1
        self.t[which], self.last[which], self.over[which] = 0, -1, False

    def _observation(self) -> np.ndarray:
        return np.stack([self.tag, self.episode, self.t, self.last, self.over], axis=1).astype(np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        if seed is not None:
            self.rngs = [gymnasium.utils.seeding.np_random(seed + i)[0] for i in range(self.num_envs)]
            self.tag, self.episode, self.t, self.last, self.length, self.ending = np.zeros((6, self.num_envs), int)
            self.episode -= 1
            self.over = np.zeros(self.num_envs, bool)
        self._begin(np.ones(self.num_envs, bool))
        return self._observation(), {}

    def step(self, actions):
        dead = self.over.copy()
        reward = np.where(dead, np.nan, 100 * self.episode + self.t + actions / 8)
        self.t, self.last = self.t + 1, np.array(actions)
        self._begin(dead)
        self.over = ~dead & (self.t == self.length)
        ending = np.where(self.over, self.ending, 0)
        info: dict[str, Any] = {}
        if self.success:
            success = [outcome(tag) for tag in self.tag.tolist()]
            info = {self.success: np.array([bool(x) for x in success])}
            info[f"_{self.success}"] = np.array([x is not None for x in success]) & self.over
        return self._observation(), reward, (ending & 1) > 0, (ending & 2) > 0, info


class ColumnsEnv(CountingEnv):
    """Version with rewards and flags as arrays `[1]`."""

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, np.array([reward]), np.array([terminated]), np.array([truncated]), info


class ColumnsVectorEnv(CountingVectorEnv):
    """Batched version with rewards and flags as arrays `[N, 1]`."""

    def step(self, actions):
        observation, *columns, info = super().step(actions)
        return observation, *(column[:, None] for column in columns), info


class SpacesEnv(gymnasium.Env):
    """Environment with random observations of any space, which accepts any action and ends after 3 steps."""

    def __init__(self, observation_space=OBSERVATIONS, action_space=Discrete(ACTIONS)) -> None:  # noqa: B008
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.t = 0
        if seed is not None:
            self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.t += 1
        return self.observation_space.sample(), 1.0, self.t == 3, False, {}


def spaces_vector(mode: AutoresetMode, num_envs: int, **kwargs: Any) -> SyncVectorEnv:
    return SyncVectorEnv([partial(SpacesEnv, **kwargs)] * num_envs, autoreset_mode=mode)


gymnasium.register("Counting-v0", "counting:CountingEnv", vector_entry_point="counting:CountingVectorEnv")
gymnasium.register("Columns-v0", "counting:ColumnsEnv", vector_entry_point="counting:ColumnsVectorEnv")
gymnasium.register("Spaces-v0", "counting:SpacesEnv")
for _mode in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP):  # batched, with any observation space
    gymnasium.register(
        f"Batched{_mode.name.title().replace('_', '')}-v0",
        "counting:SpacesEnv",
        vector_entry_point=partial(spaces_vector, _mode),
    )


def act(observation: np.ndarray) -> np.ndarray:
    """Actions `[B]` for observations `[B, 5]` that distinguish each row from its neighbors."""
    tag, episode, t = observation[:, :3].astype(np.int64).T
    return (tag + 2 * episode + 3 * t) % ACTIONS


def share(num_envs: int, episodes: int) -> list[int]:
    """Number of episodes that each environment runs."""
    return [episodes // num_envs + (i < episodes % num_envs) for i in range(num_envs)]


def expected(num_envs: int, episodes: int, seed: int, **kwargs: Any) -> dict[str, np.ndarray]:
    """Expected record of `episodes` episodes of `act`, one environment after another, by a plain loop."""
    rows = []
    for i, count in enumerate(share(num_envs, episodes)):
        env = CountingEnv(**kwargs)
        for episode in range(count):
            observation, _ = env.reset(seed=seed + i if episode == 0 else None)
            over = False
            while not over:
                action = int(act(observation[None])[0])
                following, reward, terminated, truncated, _ = env.step(action)
                rows.append((observation, action, reward, terminated, truncated, following))
                observation, over = following, terminated or truncated
    names = ("observation", "action", "reward", "terminated", "truncated", "next_observation")
    return {name: np.array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
