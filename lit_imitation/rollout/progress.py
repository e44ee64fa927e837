"""Progress of rollouts outside the Trainer: a bar in a terminal, lines in a file or a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol, runtime_checkable

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lit_imitation.rollout.episodes import Episode, Episodes

SECONDS_BETWEEN_LINES = 10.0


@runtime_checkable
class ShowsEpisodes(Protocol):
    """A progress bar that can show the episodes of a rollout during a training run."""

    def collecting(self, description: str, rollout: Episodes) -> AbstractContextManager[Callable[[Episode], None]]:
        """Context manager whose value is called with each episode that ended."""


class EpisodeProgress:
    """Shows the number of finished episodes, their mean return so far, and environment steps per second."""

    def __init__(self, description: str, episodes: int) -> None:
        self.description, self.episodes = description, episodes
        self._bar = None
        if sys.stdout.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("return {task.fields[mean]:.1f}  {task.fields[rate]:,.0f} steps/s"),
                TimeRemainingColumn(),
            )
            self._task = self._bar.add_task(description, total=episodes, mean=float("nan"), rate=0.0)
        self._returns = self._steps = 0.0
        self._done = 0
        self._started = self._said = time.perf_counter()

    def __enter__(self) -> EpisodeProgress:
        if self._bar is not None:
            self._bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.__exit__(kind, error, trace)

    def __call__(self, episode: Episode) -> None:
        """Count one more episode."""
        self._done += 1
        self._returns += episode.episode_return
        self._steps += episode.length
        now = time.perf_counter()
        mean, rate = self._returns / self._done, self._steps / (now - self._started)
        if self._bar is not None:
            self._bar.update(self._task, advance=1, mean=mean, rate=rate)
        elif self._done == self.episodes or now - self._said > SECONDS_BETWEEN_LINES:
            self._said = now
            done = f"{self._done}/{self.episodes} episodes"
            print(f"{self.description}: {done}, return {mean:.1f}, {rate:,.0f} steps/s", flush=True)
