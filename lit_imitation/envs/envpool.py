"""EnvPool's batched C++ environments as Gymnasium `VectorEnv`s."""

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
    """All ids that EnvPool provides."""
    return list(_envpool.list_all_envs())


def episode_limit(env_id: str) -> int:
    """EnvPool's step limit for episodes; 0 if it declares none."""
    limit = int(getattr(_envpool.make_spec(env_id).config, "max_episode_steps", 0))
    return 0 if limit >= 2**31 - 1 else limit


def has_dict_observations(env_id: str) -> bool:
    """Whether EnvPool provides this id with a dictionary of arrays as observation; these are flattened here."""
    if env_id not in _envpool.list_all_envs():
        return False
    space = _envpool.make_spec(env_id).gymnasium_observation_space
    return isinstance(space, Dict) and all(isinstance(part, Box) for part in space.values())


def observation_space(env_id: str) -> Space[Any] | None:
    """EnvPool's observation space for this id; None without the id, or if observations are not plain arrays."""
    if env_id not in _envpool.list_all_envs():
        return None
    space: Space[Any] = _envpool.make_spec(env_id).gymnasium_observation_space
    return space if isinstance(space, Box | Discrete) else None


class EnvPoolVectorEnv(VectorEnv[Any, Any, Any]):
    """EnvPool environment that can be reseeded: `reset(seed=…)` creates a new pool, since EnvPool fixes its seed.

    The pool runs on `OMP_NUM_THREADS` threads, by default one per core.

    Args:
        env_id: Id in EnvPool.
        num_envs: Number of copies.
        seed: Seed of the pool.

    Raises:
        ConfigError: EnvPool does not provide the id, or its observations are not supported.
    """

    def __init__(self, env_id: str, num_envs: int, seed: int) -> None:
        self._flattens = has_dict_observations(env_id)
        if observation_space(env_id) is None and not self._flattens:
            known = env_id in _envpool.list_all_envs()
            what = "unsupported observations for it" if known else "no environment with this id"
            raise ConfigError(f"{env_id}: EnvPool {_envpool.__version__} has {what}; choose another backend")
        self.env_id = env_id
        self.num_envs = num_envs
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self._create(seed)
        self.single_observation_space = self._pool.observation_space
        if self._flattens:  # EnvPool's bounds of dictionary parts are not meaningful
            self._keys = sorted(self._pool.observation_space)  # the order of a Gymnasium Dict
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
        """Start new episodes in all copies; with a seed, as in a newly created pool.

        Args:
            seed: Seed of the pool, which derives one per copy, or a list of seeds, one per copy.
            options: Ignored; EnvPool has no options.
        """
        if seed is not None:
            self._pool.close()
            self._create(seed if isinstance(seed, int) else [int(s or 0) for s in seed])  # type: ignore[arg-type]
        observation, info = self._pool.reset()
        return self._flat(observation), info

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step all copies; a copy whose episode has ended ignores its action and starts the next episode."""
        dtype = self.single_action_space.dtype
        observation, *rest = self._pool.step(np.asarray(actions, dtype=dtype))
        return self._flat(observation), *rest

    def _flat(self, observation: Any) -> Any:
        """Flatten dictionaries of arrays `[num_envs, ...]` to vectors; return other observations unchanged."""
        if not self._flattens:
            return observation
        parts = [np.reshape(observation[key], (self.num_envs, -1)) for key in self._keys]
        return np.concatenate(parts, axis=1, dtype=np.float32)

    def close_extras(self, **kwargs: Any) -> None:
        """Close the pool and its threads."""
        self._pool.close()
