"""The two ends of the normalized score: the mean returns of the expert and of acting at random."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import ArrayLike

from lit_imitation.errors import TrainingError
from lit_imitation.rollout.episodes import Actor, Episode, Episodes
from lit_imitation.utils.cache import Store

EPISODES = 100
"""Over how many a reference is measured."""
TOGETHER = 20
"""How many of them are played at a time."""


class Reference(NamedTuple):
    """A mean return that scores are measured by."""

    mean: float
    error: float | None = None
    """Standard error of the mean; None where it is unknown."""
    episodes: int = 0
    """Over how many it was measured; 0 for a number that was given."""

    @classmethod
    def of(cls, returns: ArrayLike) -> Reference:
        """From the returns `[M]` of episodes."""
        values = np.asarray(returns, np.float64)
        error = float(values.std(ddof=1) / math.sqrt(values.size)) if values.size > 1 else None
        return cls(float(values.mean()), error, int(values.size))


def measure(
    envs: VectorEnv[Any, Any, Any],
    actor: Actor,
    what: str,
    progress: Callable[[Episode], None] | None = None,
    purpose: str = "",
) -> Reference:
    """The reference of an actor over `EPISODES` episodes in fresh environments, which are then closed.

    Raises:
        TrainingError: a return is not finite; the text names `what`.
    """
    returns = []
    try:
        for episode in Episodes(envs, actor, EPISODES, seed=0, purpose=purpose or what):
            returns.append(episode.episode_return)
            if progress is not None:
                progress(episode)
    finally:
        envs.close()
    _check(returns, what)
    return Reference.of(returns)


def _check(returns: Sequence[float], what: str) -> None:
    bad = [value for value in returns if not math.isfinite(value)]
    if bad:
        raise TrainingError(
            f"{what}: {len(bad)} of {len(returns)} episodes have a return of {bad[0]}; the environment gave a reward "
            "that is not finite"
        )


def _write(entry: Path, reference: Reference) -> dict[str, Any]:
    return {"return_mean": reference.mean, "return_error": reference.error, "episodes": reference.episodes}


def _read(entry: Path, held: dict[str, Any]) -> Reference:
    error = held["return_error"]
    return Reference(float(held["return_mean"]), None if error is None else float(error), int(held["episodes"]))


def store(kind: str) -> Store:
    """Where references of one kind are kept."""
    return Store(kind, _write, _read)
