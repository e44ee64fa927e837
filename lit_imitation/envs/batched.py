"""Base classes of the package's own environments: a batch of copies with a fixed horizon, and a single copy."""

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
    """`num_envs` copies that step together; every episode is truncated after `horizon` steps.

    As in Gymnasium's batched environments, all copies share one generator and start the next episode on the step after
    the end (`AutoresetMode.NEXT_STEP`). That step ignores the actions and gives reward 0. All episodes end together.

    Subclasses define `_begin` and `_advance`.

    Args:
        num_envs: Number of copies.
        horizon: Number of steps T in an episode.
        observation_space: Observation space of one copy.
        action_space: Action space of one copy.

    Raises:
        ConfigError: `horizon` is less than 1.
    """

    def __init__(self, num_envs: int, horizon: int, observation_space: Space[Any], action_space: Space[Any]) -> None:
        if horizon < 1:
            raise ConfigError(f"horizon is {horizon}; it must be at least 1")
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self.num_envs, self.horizon = num_envs, horizon
        self.single_observation_space, self.single_action_space = observation_space, action_space
        self.observation_space = batch_space(observation_space, num_envs)
        self.action_space = batch_space(action_space, num_envs)
        self._state: NDArray[Any] | None = None
        self._steps = 0

    @abstractmethod
    def _begin(self) -> NDArray[Any]:
        """Sample start states `[num_envs, ...]`."""

    @abstractmethod
    def _advance(self, state: NDArray[Any], action: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Successors `[num_envs, ...]` and rewards `[num_envs]` of `state` under `action: [num_envs, *act]`."""

    def _observe(self, state: NDArray[Any]) -> NDArray[Any]:
        """Observations `[num_envs, *obs]` of `state`, as new arrays."""
        return state.copy()

    def _inform(self, state: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Values `[num_envs]` of `state` for `info`, by name."""
        return {}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Start new episodes in all copies."""
        super().reset(seed=seed, options=options)
        self._state, self._steps = self._begin(), 0
        return self._observe(self._state), self._inform(self._state)

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Step all copies, or start new episodes if the last ones have ended."""
        assert self._state is not None, "call reset before step"
        if self._steps == self.horizon:
            self._state, self._steps, reward = self._begin(), 0, np.zeros(self.num_envs)
        else:
            self._state, reward = self._advance(self._state, np.asarray(actions))
            self._steps += 1
        never, over = np.zeros(self.num_envs, np.bool_), np.full(self.num_envs, self._steps == self.horizon)
        return self._observe(self._state), reward, never, over, self._inform(self._state)


class SingleEnv(Env[Any, Any]):
    """Single copy of a `BatchedEnv` with Gymnasium's `Env` interface.

    Args:
        batch: Batch of one copy.
    """

    def __init__(self, batch: BatchedEnv) -> None:
        self.batch = batch
        self.observation_space, self.action_space = batch.single_observation_space, batch.single_action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        super().reset(seed=seed)
        observation, info = self.batch.reset(seed=seed)
        return observation[0], _first(info)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take one step; call `reset` after the end of an episode."""
        observation, reward, terminated, truncated, info = self.batch.step(np.asarray(action)[None])
        return observation[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), _first(info)


def _first(info: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """`info` of the first copy."""
    return {name: values[0].item() for name, values in info.items()}
