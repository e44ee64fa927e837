"""Options of Lightning's Trainer: what a method cannot honor is one clear line before training."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lightning import Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler, StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.utilities import rank_zero_info

from lit_imitation.errors import ConfigError


def check_trainer(
    trainer: Trainer, name: str, owner: str, precisions: Sequence[str], saves_between_blocks: bool
) -> None:
    """Refuse what the Trainer is given and a method cannot honor.

    Args:
        trainer: The Trainer.
        name: Name of the method.
        owner: Path of the settings of its optimizer, `model.optimization`.
        precisions: Values of `trainer.precision` in which it can compute.
        saves_between_blocks: Whether it trains on blocks of minibatches.

    Raises:
        ConfigError: names the option, and the option of the method or the data that does the same.
    """
    if (precision := str(trainer.precision)) not in precisions:
        raise ConfigError(f"{name} does not run in trainer.precision {precision}; use one of {', '.join(precisions)}")
    if trainer.accumulate_grad_batches != 1 and not saves_between_blocks:
        raise ConfigError(
            f"{name} takes its optimizer steps itself: set a larger {owner}.batch_size in place of "
            "trainer.accumulate_grad_batches"
        )
    if trainer.accumulate_grad_batches != 1:
        raise ConfigError(
            f"{name} takes its optimizer steps itself: set {owner}.accumulate_batches "
            f"{trainer.accumulate_grad_batches} in place of trainer.accumulate_grad_batches"
        )
    if trainer.gradient_clip_val:
        raise ConfigError(
            f"{name} takes its optimizer steps itself: set {owner}.max_grad_norm {trainer.gradient_clip_val} in place "
            "of trainer.gradient_clip_val"
        )
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, GradientAccumulationScheduler):
            raise ConfigError(
                f"{name} takes its optimizer steps itself: set {owner}.accumulate_batches in place of "
                "GradientAccumulationScheduler"
            )
    if not saves_between_blocks or trainer.fast_dev_run:  # type: ignore[attr-defined]
        return
    if trainer.val_check_interval not in (None, 1.0):
        raise ConfigError(
            f"{name} is validated at the end of epochs, not by trainer.val_check_interval "
            f"{trainer.val_check_interval}: make an epoch shorter or longer by data.passes_per_epoch, or set "
            "trainer.check_val_every_n_epoch"
        )
    limit = trainer.limit_train_batches
    if isinstance(limit, float) and limit not in (0.0, 1.0):
        raise ConfigError(f"trainer.limit_train_batches is {limit}; for {name} give a whole number of batches")
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, StochasticWeightAveraging | WeightAveraging):
            raise ConfigError(
                f"{type(callback).__name__} would see one step in many of {name}: leave it out and set "
                f"{owner}.ema_decay"
            )


def lower_log_interval(trainer: Trainer) -> None:
    """Lower `log_every_n_steps` to the length of the run: a shorter run would log nothing of its training."""
    epochs = trainer.max_epochs if trainer.max_epochs is not None and trainer.max_epochs >= 0 else math.inf
    limit = trainer.max_steps if trainer.max_steps >= 0 else math.inf
    loader = trainer.train_dataloader
    steps = min(getattr(loader, "minibatches", trainer.num_training_batches) * epochs, limit)
    if 1 <= steps < trainer.log_every_n_steps:  # type: ignore[attr-defined]
        trainer.log_every_n_steps = int(steps)  # type: ignore[attr-defined]


def log_every_round(trainer: Trainer) -> None:
    """Log every round unless nothing is logged: a step of Lightning's is a round."""
    if trainer.log_every_n_steps:  # type: ignore[attr-defined]
        trainer.log_every_n_steps = 1  # type: ignore[attr-defined]


def announce_compilation() -> None:
    """Say why the first round takes longer where gradients are compiled."""
    rank_zero_info(
        "compiling the gradients: the first round usually takes 20 to 60 seconds longer, during which the "
        "progress stays at 0 (--model.learner.compile false turns this off)"
    )
