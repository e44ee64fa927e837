"""The return of acting at random: the zero of the normalised score."""

from __future__ import annotations

import hashlib
import json
from contextlib import closing
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lit_imitation.cache import cache_dir
from lit_imitation.envs.make import make
from lit_imitation.files import atomic_write
from lit_imitation.rollout import Episodes

EPISODES = 100
PURPOSE = "acting at random, the zero of the normalized score"


def random_return(env_id: str, **env_kwargs: Any) -> float:
    """Mean return over 100 episodes of actions drawn from the action space, measured once and cached."""
    key = json.dumps([env_id, env_kwargs, version("gymnasium"), EPISODES], sort_keys=True, default=str)
    path = cache_dir() / "random_returns" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
    if path.exists():
        return float(json.loads(path.read_text())["return_mean"])
    envs = make(env_id, 20, seed=0, **env_kwargs)
    envs.action_space.seed(0)

    def actor(observation: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(envs.action_space.sample())

    run = Episodes(envs, actor, EPISODES, seed=0, purpose=PURPOSE)
    with closing(envs):
        mean = float(np.mean([episode.episode_return for episode in run]))
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, json.dumps({"env_id": env_id, "return_mean": mean, "key": key}))
    return mean
