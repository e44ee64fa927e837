"""Optimizer steps of a method: their learning rates, their number, and the check of their losses."""

from __future__ import annotations

import math
from collections.abc import Mapping

from lightning import LightningModule, Trainer
from torch import Tensor

from lit_imitation.errors import TrainingError
from lit_imitation.methods.checkpoints import last_good
from lit_imitation.optim.descent import Descent


def count_steps(trainer: Trainer, steps: int) -> None:
    """Advance the Trainer's `global_step`: Lightning counts steps of its own wrapper, which `Descent` bypasses."""
    progress = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
    for tracker in (progress.total, progress.current):
        tracker.ready += steps
        tracker.completed += steps


def total_steps(trainer: Trainer, accumulate_batches: int) -> int:
    """Optimizer steps of the whole training; 0 if it has no end."""
    epoch = -(-trainer.train_dataloader.minibatches // accumulate_batches)  # type: ignore[union-attr]
    limits = (epoch * (trainer.max_epochs or -1), trainer.max_steps)
    return min((limit for limit in limits if limit > 0), default=0)


def round_progress(trainer: Trainer) -> float:
    """Completed share of a training in rounds, in [0, 1); 0 if it has no end."""
    by_epochs = len(trainer.train_dataloader) * (trainer.max_epochs or -1)  # type: ignore[arg-type]
    rounds = min((limit for limit in (by_epochs, trainer.max_steps) if limit > 0), default=math.inf)
    return trainer.global_step / rounds


def block_rates(descent: Descent, trainer: Trainer, minibatches: int) -> list[float] | None:
    """Learning rate of each optimizer step of the next block by the schedule; None for a constant one."""
    optimization = descent.optimization
    if not optimization.varies:
        return None
    total = max(total_steps(trainer, optimization.accumulate_batches), 1)
    first, count = trainer.global_step, -(-minibatches // optimization.accumulate_batches)
    return [descent.learning_rate * optimization.rate(min(i / total, 1.0), i) for i in range(first, first + count)]


def set_round_rate(descent: Descent, method: LightningModule) -> None:
    """Set the learning rate of a reward or discriminator for the next round by its schedule."""
    if descent.optimization.varies:
        rate = descent.optimization.rate(round_progress(method.trainer), descent.adam_steps)
        descent.set_rate(descent.learning_rate * rate)


def check_losses(losses: Tensor, columns: Mapping[str, Tensor], trainer: Trainer, accumulate_batches: int) -> None:
    """Check that the losses of a block's steps are finite.

    Args:
        losses: Losses `[steps]` of the block, whose steps are not counted yet.
        columns: The block's columns `[K, B, …]`.
        trainer: Trainer of the run.
        accumulate_batches: Minibatches of each step.

    Raises:
        TrainingError: A loss is NaN or infinite; names the step, its minibatch and the last good checkpoint.
    """
    if bool(losses.isfinite().all()):
        return
    wrong = int((~losses.isfinite()).nonzero()[0])
    rows = slice(wrong * accumulate_batches, (wrong + 1) * accumulate_batches)
    minibatch = {name: column[rows].flatten(0, 1) for name, column in columns.items()}
    raise TrainingError(
        f"the loss is {float(losses[wrong])} at step {trainer.global_step + wrong} (epoch {trainer.current_epoch}); "
        f"the batch:\n{describe_columns(minibatch)}\n{last_good(trainer)}"
    )


def describe_columns(columns: Mapping[str, Tensor]) -> str:
    """Shape, range and count of values that are not finite of each column, a line each."""
    lines = []
    for name, values in columns.items():
        x = values.double()
        bad = int((~x.isfinite()).sum())
        lines.append(
            f"  {name} {list(values.shape)}: min {x.min():.4g}, mean {x.mean():.4g}, max {x.max():.4g}, {bad} "
            "not finite"
        )
    return "\n".join(lines)


def log_rows(trainer: Trainer, figures: Mapping[str, Tensor], last: bool) -> int | None:
    """Log figures of the last optimizer steps to the loggers, every `trainer.log_every_n_steps` of them.

    Args:
        trainer: Trainer of the run.
        figures: Values by name, `[steps]` each.
        last: Log the last step in any case.

    Returns:
        The index of the last step that was logged; None if there was none.
    """
    every = trainer.log_every_n_steps  # type: ignore[attr-defined]
    count = len(next(iter(figures.values())))
    first = trainer.global_step - count
    chosen = [i for i in range(count) if every and ((first + i + 1) % every == 0 or (last and i == count - 1))]
    for i in chosen:
        log_row(trainer, {name: values[i] for name, values in figures.items()}, first + i)
    return chosen[-1] if chosen else None


def log_row(trainer: Trainer, figures: Mapping[str, Tensor], step: int) -> None:
    """Log figures of one optimizer step: Lightning would count blocks."""
    row = {name: float(value) for name, value in figures.items()}
    for logger in trainer.loggers:
        logger.log_metrics(row | {"epoch": trainer.current_epoch}, step=step)
