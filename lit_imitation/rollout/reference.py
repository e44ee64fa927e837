"""The two ends of the normalized score: the mean returns of the expert and of random actions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import ArrayLike

from lit_imitation.errors import TrainingError
from lit_imitation.rollout.actor import ActorLike
from lit_imitation.rollout.episodes import Episode, Episodes
from lit_imitation.utils.cache import Store

EPISODES = 100
"""Episodes over which a reference is measured."""
TOGETHER = 20
"""Environments in which they run."""


class Reference(NamedTuple):
    """A mean return that normalizes scores."""

    mean: float
    error: float | None = None
    """Standard error of the mean; None if unknown."""
    episodes: int = 0
    """Number of measured episodes; 0 for a return that the user gave."""

    @classmethod
    def of(cls, returns: ArrayLike) -> Reference:
        """Reference from the returns `[M]` of episodes."""
        values = np.asarray(returns, np.float64)
        error = float(values.std(ddof=1) / math.sqrt(values.size)) if values.size > 1 else None
        return cls(float(values.mean()), error, int(values.size))


def measure(
    envs: VectorEnv[Any, Any, Any],
    actor: ActorLike,
    what: str,
    progress: Callable[[Episode], None] | None = None,
    purpose: str = "",
) -> Reference:
    """Measure an actor's mean return over `EPISODES` episodes in fresh environments, and close them.

    Args:
        envs: Fresh vector environment from `make`.
        actor: Chooses the actions.
        what: Name of the measured return, for errors.
        progress: Called with each episode as it finishes.
        purpose: What the episodes are for, in messages about a rollout that takes long; default `what`.

    Raises:
        TrainingError: A return is not finite. The message starts with `what`.
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
    """Cache of the references of one kind."""
    return Store(kind, _write, _read)
