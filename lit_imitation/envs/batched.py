"""What our own environments share: many copies as one batch of arrays, a fixed horizon, and one copy alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from gymnasium import Env, Space
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from lit_imitation.errors import ConfigError


class BatchedEnv(VectorEnv[NDArray[Any], NDArray[Any], NDArray[Any]], ABC):
    """`num_envs` copies that step together; every episode takes `horizon` steps and is then truncated.

    As in Gymnasium's own batched environments the copies draw from one generator, and start their next episodes on the
    step after the end (`AutoresetMode.NEXT_STEP`): that step ignores the actions and gives reward 0. Since all episodes
    are equally long, all end on the same step.

    A subclass defines `_begin` and `_advance`.

    Args:
        num_envs: number of copies.
        horizon: steps of an episode, T.
        observation_space: of one copy.
        action_space: of one copy.

    Raises:
        ConfigError: `horizon` is less than 1.
    """

    def __init__(self, num_envs: int, horizon: int, observation_space: Space[Any], action_space: Space[Any]) -> None:
        if horizon < 1:
            raise ConfigError(f"horizon is {horizon}; an episode takes at least 1 step")
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self.num_envs, self.horizon = num_envs, horizon
        self.single_observation_space, self.single_action_space = observation_space, action_space
        self.observation_space = batch_space(observation_space, num_envs)
        self.action_space = batch_space(action_space, num_envs)
        self._state: NDArray[Any] | None = None
        self._steps = 0

    @abstractmethod
    def _begin(self) -> NDArray[Any]:
        """`[num_envs, ...]`: states to start from."""

    @abstractmethod
    def _advance(self, state: NDArray[Any], action: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """The successors of `state: [num_envs, ...]` under `action: [num_envs, *act]`, and the rewards `[num_envs]`."""

    def _observe(self, state: NDArray[Any]) -> NDArray[Any]:
        """`[num_envs, *obs]`, in memory of its own."""
        return state.copy()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Start all episodes anew."""
        super().reset(seed=seed, options=options)
        self._state, self._steps = self._begin(), 0
        return self._observe(self._state), {}

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Step all copies, or start their next episodes where these were over."""
        assert self._state is not None, "call reset before step"
        if self._steps == self.horizon:
            self._state, self._steps, reward = self._begin(), 0, np.zeros(self.num_envs)
        else:
            self._state, reward = self._advance(self._state, np.asarray(actions))
            self._steps += 1
        never, over = np.zeros(self.num_envs, np.bool_), np.full(self.num_envs, self._steps == self.horizon)
        return self._observe(self._state), reward, never, over, {}


class SingleEnv(Env[Any, Any]):
    """One copy of a `BatchedEnv` by Gymnasium's ordinary interface.

    Args:
        batch: the batch of one.
    """

    def __init__(self, batch: BatchedEnv) -> None:
        self.batch = batch
        self.observation_space, self.action_space = batch.single_observation_space, batch.single_action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        super().reset(seed=seed)
        observation, info = self.batch.reset(seed=seed)
        return observation[0], info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take one step; after the episode's end `reset` has to come first."""
        observation, reward, terminated, truncated, info = self.batch.step(np.asarray(action)[None])
        return observation[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), info
