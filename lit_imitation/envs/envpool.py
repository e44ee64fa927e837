"""EnvPool's batched C++ environments behind Gymnasium's `VectorEnv`."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
from gymnasium import Space
from gymnasium.spaces import Box, Dict, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from lit_imitation.errors import ConfigError, require

_envpool = require("envpool", "envpool", "backend envpool")


def all_ids() -> list[str]:
    """Every id that EnvPool has."""
    return list(_envpool.list_all_envs())


def episode_limit(env_id: str) -> int:
    """Steps after which EnvPool cuts an episode; 0 where it does not say."""
    limit = int(getattr(_envpool.make_spec(env_id).config, "max_episode_steps", 0))
    return 0 if limit >= 2**31 - 1 else limit


def flattens(env_id: str) -> bool:
    """Whether EnvPool has this id with a dictionary of arrays as observation, which is flattened here."""
    if env_id not in _envpool.list_all_envs():
        return False
    space = _envpool.make_spec(env_id).gymnasium_observation_space
    return isinstance(space, Dict) and all(isinstance(part, Box) for part in space.values())


def observations(env_id: str) -> Space[Any] | None:
    """EnvPool's observation space of this id, if it has it, with observations that are plain arrays."""
    if env_id not in _envpool.list_all_envs():
        return None
    space: Space[Any] = _envpool.make_spec(env_id).gymnasium_observation_space
    return space if isinstance(space, Box | Discrete) else None


class EnvPoolVectorEnv(VectorEnv[Any, Any, Any]):
    """EnvPool takes its seed when it is made and no other afterwards; here `reset(seed=…)` makes it anew.

    It runs on `OMP_NUM_THREADS` threads, or as many as there are cores.
    """

    def __init__(self, env_id: str, num_envs: int, seed: int) -> None:
        self._flattens = flattens(env_id)
        if observations(env_id) is None and not self._flattens:
            known = env_id in _envpool.list_all_envs()
            what = "observations that cannot be read" if known else "no environment of this id"
            raise ConfigError(
                f"{env_id}: EnvPool {_envpool.__version__} has {what}; choose another backend than envpool"
            )
        self.env_id = env_id
        self.num_envs = num_envs
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self._create(seed)
        self.single_observation_space = self._pool.observation_space
        if self._flattens:  # EnvPool's bounds of these say nothing
            self._keys = sorted(self._pool.observation_space)  # the order that Gymnasium gives a dictionary of spaces
            size = sum(math.prod(part.shape) for part in self._pool.observation_space.values())
            self.single_observation_space = Box(-np.inf, np.inf, (size,), np.float32)
        self.single_action_space = self._pool.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def _create(self, seed: int) -> None:
        threads = min(self.num_envs, int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1))
        self._pool = _envpool.make_gymnasium(self.env_id, num_envs=self.num_envs, seed=seed, num_threads=threads)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start new episodes everywhere; with a seed, as if freshly made with it.

        Args:
            seed: one seed for the pool, which gives each environment its own; a list gives each environment its own.
            options: not supported by EnvPool, ignored.
        """
        if seed is not None:
            self._pool.close()
            self._create(seed if isinstance(seed, int) else [int(s or 0) for s in seed])  # type: ignore[arg-type]
        observation, info = self._pool.reset()
        return self._flat(observation), info

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step all environments; one that ended the step before ignores its action and starts an episode."""
        dtype = self.single_action_space.dtype
        observation, *rest = self._pool.step(np.asarray(actions, dtype=dtype))
        return self._flat(observation), *rest

    def _flat(self, observation: Any) -> Any:
        """Dictionaries of arrays `[num_envs, ...]` as vectors; others as they are."""
        if not self._flattens:
            return observation
        parts = [np.reshape(observation[key], (self.num_envs, -1)) for key in self._keys]
        return np.concatenate(parts, axis=1, dtype=np.float32)

    def close_extras(self, **kwargs: Any) -> None:
        """Free the pool's threads."""
        self._pool.close()
