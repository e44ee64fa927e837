"""Return of random actions: the zero of the normalized score."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lit_imitation.envs.key import environment_key
from lit_imitation.envs.make import Backend, make
from lit_imitation.rollout import reference
from lit_imitation.rollout.reference import Reference
from lit_imitation.utils.cache import load_or_make

PURPOSE = "acting at random, the zero of the normalized score"


def random_reference(env_id: str, env_kwargs: dict[str, Any], refresh: bool = False, processes: int = 0) -> Reference:
    """Mean return over 100 episodes of uniformly random actions, measured once and cached.

    Args:
        env_id: A registered Gymnasium id, or `module:Id-v0`.
        env_kwargs: Arguments of the environment.
        refresh: Whether to measure again instead of reading the cache.
        processes: Maximum number of environments, each in its own process (backend `async`), for an environment that
            may crash; 0 for the fastest backend.
    """
    backend: Backend = "async" if processes else "auto"
    what = f"return of acting at random in {env_id}"

    def measured() -> Reference:
        together = min(reference.TOGETHER, processes or reference.TOGETHER)
        envs = make(env_id, together, seed=0, backend=backend, **env_kwargs)
        envs.action_space.seed(0)

        def actor(observation: NDArray[Any]) -> NDArray[Any]:
            return np.asarray(envs.action_space.sample())

        return reference.measure(envs, actor, what, purpose=PURPOSE)

    key = environment_key(env_id, backend, env_kwargs, episodes=reference.EPISODES)
    name = env_id.rpartition(":")[2].replace("/", "_")
    return load_or_make(reference.store("random_returns"), name, key, measured, what=what, refresh=refresh)


def random_return(env_id: str, **env_kwargs: Any) -> float:
    """Mean return of random actions, see `random_reference`."""
    return random_reference(env_id, env_kwargs).mean
