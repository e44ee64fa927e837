"""Progress display of the Trainer: bars in a terminal, lines in a file or a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar as Progress
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm

from lit_imitation.methods.method import Method
from lit_imitation.rollout import Episode, Episodes, Round, Steps

NAMES = {"val/return_mean": "return", "val/loss": "val_loss"}
"""Short names of logged metrics."""


class RoundFigures:
    """Mean return of the episodes that ended most recently, and environment steps per second.

    These figures are displayed only: a rate in `metrics.csv` would differ between identical runs.
    """

    def __init__(self) -> None:
        self.figures: dict[str, str] = {}
        self._steps, self._started = 0, 0.0

    def start(self, module: LightningModule) -> None:
        """Start the clock, so that evaluation between rounds is not counted."""
        self._started, self._steps = time.perf_counter(), getattr(module, "env_steps", 0)

    def update(self, module: LightningModule, batch: Any) -> None:
        """Update the figures from a round; ignores other kinds of batches."""
        if not isinstance(batch, Round) or not isinstance(module, Method):
            return
        now, steps = time.perf_counter(), module.env_steps
        if batch.episodes:
            mean = sum(episode.episode_return for episode in batch.episodes) / len(batch.episodes)
            self.figures["train_return"] = f"{mean:.1f}"
        self.figures["steps/s"] = f"{(steps - self._steps) / (now - self._started):,.0f}"
        self._started, self._steps = now, steps


class ProgressBar(TQDMProgressBar):
    """Progress bars with the last evaluation's return during training, and the mean return so far during rollouts.

    Where batches are rounds, the bar also shows the mean return of the episodes that ended most recently, and the
    environment steps per second, with the time of learning included.

    Args:
        refresh_rate: Batches between updates of the bar, because drawing takes as long as a small batch. Rounds always
            update the bar.
    """

    def __init__(self, refresh_rate: int = 50) -> None:
        super().__init__(refresh_rate=refresh_rate)
        self._returns: list[float] = []
        self._steps = 0
        self._started = 0.0
        self._round = RoundFigures()

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """The logged metrics under short names."""
        metrics = {NAMES.get(k, k): v for k, v in super().get_metrics(trainer, pl_module).items() if k != "v_num"}
        return metrics | self._round.figures

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Update the bar with every batch if batches are rounds."""
        super().on_train_start(trainer, pl_module)
        if not pl_module.automatic_optimization:
            self._refresh_rate = min(self._refresh_rate, 1)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of the rounds."""
        super().on_train_epoch_start(trainer, pl_module)
        self._round.start(pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Show the figures of a round."""
        self._round.update(pl_module, args[1])
        super().on_train_batch_end(trainer, pl_module, *args, **kwargs)

    def init_predict_tqdm(self) -> Tqdm:
        """Disable Lightning's bar: prediction is one batch, and its episodes have their own bar."""
        return Tqdm(disable=True)

    @contextmanager
    def collecting(self, description: str, rollout: Episodes) -> Iterator[Callable[[Episode], None]]:
        """Show a bar below the training bar while `rollout` runs.

        Args:
            description: Label of the bar.
            rollout: Episodes or steps that are collected.

        Yields:
            A function to call with each finished episode.
        """
        self._start_evaluation()
        bar = Tqdm(
            desc=description,
            total=len(rollout),
            position=2 * self.process_position + 1,
            disable=self.is_disabled,
            leave=False,
            dynamic_ncols=True,
            file=sys.stdout,
            bar_format=self.BAR_FORMAT,
        )

        def progress(episode: Episode) -> None:
            self._show_episode(bar, episode)
            bar.update(episode.length if isinstance(rollout, Steps) else 1)

        try:
            yield progress
            if isinstance(rollout, Steps):  # includes steps of unfinished episodes
                self._steps = len(rollout)
                self._show(bar)
                bar.update(len(rollout) - bar.n)
        finally:
            bar.refresh()
            bar.close()

    def _start_evaluation(self) -> None:
        self._returns, self._steps, self._started = [], 0, time.perf_counter()

    def _show_episode(self, bar: Any, batch: Any) -> None:
        if not isinstance(batch, Episode):
            return
        self._returns.append(batch.episode_return)
        self._steps += batch.length
        self._show(bar)

    def _show(self, bar: Any) -> None:
        rate = self._steps / (time.perf_counter() - self._started)
        mean = f"return={sum(self._returns) / len(self._returns):.1f}, " if self._returns else ""
        # `refresh=False`: the bar draws itself at its own pace.
        bar.set_postfix_str(f"{mean}steps/s={rate:,.0f}", refresh=False)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start counting episodes and steps."""
        super().on_validation_start(trainer, pl_module)
        self._start_evaluation()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start counting episodes and steps."""
        super().on_test_start(trainer, pl_module)
        self._start_evaluation()

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Show the mean return of the episodes so far."""
        self._show_episode(self.val_progress_bar, args[1])
        super().on_validation_batch_end(trainer, pl_module, *args, **kwargs)

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Show the mean return of the episodes so far."""
        self._show_episode(self.test_progress_bar, args[1])
        super().on_test_batch_end(trainer, pl_module, *args, **kwargs)


class ProgressLines(Progress):
    """Prints a line after each epoch, for output to a file or a pipe, where a bar would repeat itself.

    Long rounds get lines within the epoch.

    Args:
        seconds: Shortest time between two lines; the last epoch always gets one.
    """

    def __init__(self, seconds: float = 5.0) -> None:
        super().__init__()
        self.seconds = seconds
        self._round = RoundFigures()
        self._said = 0.0
        self._enabled = True

    def disable(self) -> None:
        """Print nothing; Lightning calls this on all processes except the first."""
        self._enabled = False

    def enable(self) -> None:
        """Print lines again."""
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, so that the first line is not printed at once."""
        self._said = time.monotonic()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of the rounds."""
        self._round.start(pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Print a line within an epoch if its rounds take long."""
        self._round.update(pl_module, args[1])
        batch, batches = args[2] + 1, trainer.num_training_batches
        if isinstance(args[1], Round) and batch < batches and time.monotonic() - self._said > self.seconds:
            self._say(trainer, self._round.figures, f", round {batch}/{batches}")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print a line with the metrics of the epoch."""
        last = trainer.current_epoch + 1 == trainer.max_epochs or trainer.should_stop
        if last or time.monotonic() - self._said > self.seconds:
            metrics = {NAMES.get(k, k): v for k, v in self.get_metrics(trainer, pl_module).items() if k != "v_num"}
            shown = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in metrics.items()}
            self._say(trainer, shown | self._round.figures, "")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Announce the test, which may take a while."""
        if self._enabled:
            print("testing the policy", flush=True)

    @contextmanager
    def collecting(self, description: str, rollout: Episodes) -> Iterator[Callable[[Episode], None]]:
        """Print a line after `rollout` ran.

        Args:
            description: Start of the line.
            rollout: Episodes or steps that are collected.

        Yields:
            A function to call with each finished episode.
        """
        returns: list[float] = []
        yield lambda episode: returns.append(episode.episode_return)
        if self._enabled and time.monotonic() - self._said > self.seconds:
            mean = f", mean return {sum(returns) / len(returns):.1f}" if returns else ""
            print(f"{description}: {len(rollout)} {rollout.unit}{mean}", flush=True)

    def _say(self, trainer: Trainer, figures: dict[str, Any], where: str) -> None:
        self._said = time.monotonic()
        if self._enabled:
            epochs = "" if trainer.max_epochs in (None, -1) else f"/{trainer.max_epochs}"
            shown = ", ".join(f"{name} {value}" for name, value in figures.items())
            print(f"epoch {trainer.current_epoch + 1}{epochs}{where}{': ' if shown else ''}{shown}", flush=True)
