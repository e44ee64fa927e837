"""EnvPool's batched C++ environments behind Gymnasium's `VectorEnv`."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from gymnasium import Space
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from lit_imitation.errors import ConfigError, require

_envpool = require("envpool", "envpool", "backend envpool")


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
        if observations(env_id) is None:
            raise ConfigError(f"EnvPool {_envpool.__version__} has no {env_id}; choose another backend than envpool")
        self.env_id = env_id
        self.num_envs = num_envs
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self._create(seed)
        self.single_observation_space = self._pool.observation_space
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
        return observation, info

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step all environments; one that ended the step before ignores its action and starts an episode."""
        dtype = self.single_action_space.dtype
        result: tuple[Any, Any, Any, Any, dict[str, Any]] = self._pool.step(np.asarray(actions, dtype=dtype))
        return result

    def close_extras(self, **kwargs: Any) -> None:
        """Free the pool's threads."""
        self._pool.close()
