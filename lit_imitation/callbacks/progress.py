"""Progress bars of the Trainer."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm

from lit_imitation.methods.base import ImitationModule
from lit_imitation.rollout import Episode, Episodes, Round, Steps


class ProgressBar(TQDMProgressBar):
    """Bars that show the return of the last evaluation while training, and of the episodes so far while rolling out.

    Where a batch is a round of rollouts, also the mean return of the episodes that ended in it (in the last one in
    which any did) and the environment steps a second, learning included.

    Args:
        refresh_rate: batches between updates; a bar redrawn for every batch would take as long as the batch. Rounds
            are all shown.
    """

    def __init__(self, refresh_rate: int = 50) -> None:
        super().__init__(refresh_rate=refresh_rate)
        self._returns: list[float] = []
        self._steps = 0
        self._started = 0.0
        self._round: dict[str, str] = {}

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """The logged metrics under short names."""
        names = {"val/return_mean": "return", "val/loss": "val_loss"}
        metrics = {names.get(k, k): v for k, v in super().get_metrics(trainer, pl_module).items() if k != "v_num"}
        return metrics | self._round

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show each batch if it is a round."""
        super().on_train_start(trainer, pl_module)
        if not pl_module.automatic_optimization:
            self._refresh_rate = min(self._refresh_rate, 1)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock: evaluation in between is not counted."""
        super().on_train_epoch_start(trainer, pl_module)
        self._started = time.perf_counter()
        self._steps = getattr(pl_module, "env_steps", 0)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Note what came out of a round, for the bar alone: a rate in `metrics.csv` would be another each time."""
        batch = args[1]
        if isinstance(batch, Round) and isinstance(pl_module, ImitationModule):
            now, seen = time.perf_counter(), self._steps
            self._steps = pl_module.env_steps
            if batch.episodes:
                mean = sum(episode.episode_return for episode in batch.episodes) / len(batch.episodes)
                self._round["train_return"] = f"{mean:.1f}"
            self._round["steps/s"] = f"{(self._steps - seen) / (now - self._started):,.0f}"
            self._started = now
        super().on_train_batch_end(trainer, pl_module, *args, **kwargs)

    def init_predict_tqdm(self) -> Tqdm:
        """None: prediction is one batch, whose episodes have a bar of their own."""
        return Tqdm(disable=True)

    @contextmanager
    def collecting(self, description: str, rollout: Episodes) -> Iterator[Callable[[Episode], None]]:
        """A bar below that of training, while `rollout` runs; what it yields is to hear of each finished episode."""
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
            if isinstance(rollout, Steps):  # those of episodes that were cut as well
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
        """Start counting."""
        super().on_validation_start(trainer, pl_module)
        self._start_evaluation()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start counting."""
        super().on_test_start(trainer, pl_module)
        self._start_evaluation()

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Show the return of the episodes so far."""
        self._show_episode(self.val_progress_bar, args[1])
        super().on_validation_batch_end(trainer, pl_module, *args, **kwargs)

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Show the return of the episodes so far."""
        self._show_episode(self.test_progress_bar, args[1])
        super().on_test_batch_end(trainer, pl_module, *args, **kwargs)
