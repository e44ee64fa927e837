"""Progress of work outside the Trainer."""

from __future__ import annotations

import time
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lit_imitation.rollout import Episode


class EpisodeProgress:
    """A bar over episodes that shows their mean return so far and the environment steps per second."""

    def __init__(self, description: str, episodes: int) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("return {task.fields[mean]:.1f}  {task.fields[rate]:,.0f} steps/s"),
            TimeRemainingColumn(),
        )
        self._task = self._progress.add_task(description, total=episodes, mean=float("nan"), rate=0.0)
        self._returns = self._steps = 0.0
        self._episodes = 0
        self._started = time.perf_counter()

    def __enter__(self) -> EpisodeProgress:
        self._progress.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.__exit__(kind, error, trace)

    def __call__(self, episode: Episode) -> None:
        """Count one more."""
        self._episodes += 1
        self._returns += episode.episode_return
        self._steps += episode.length
        rate = self._steps / (time.perf_counter() - self._started)
        self._progress.update(self._task, advance=1, mean=self._returns / self._episodes, rate=rate)
