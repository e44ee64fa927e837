"""Changes of Lightning's Trainer for DAgger: training in rounds, and the best checkpoint by return."""

from __future__ import annotations

import math

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping, ModelCheckpoint
from lightning_utilities.core.rank_zero import rank_zero_info


def prepare_trainer(trainer: Trainer, callback: Checkpoint, epochs: int) -> None:
    """Reload the growing data at each epoch, train for at most `epochs`, and let `callback` keep the best checkpoint.

    The callback is placed after `EarlyStopping` and before other checkpoints: at the end of an epoch, Lightning calls
    callbacks that are not a `Checkpoint` first. Monitored `ModelCheckpoint`s are removed.
    """
    trainer.reload_dataloaders_every_n_epochs = 1  # type: ignore[attr-defined]
    trainer.fit_loop.max_epochs = epochs
    others = []
    for one in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(one, ModelCheckpoint) and one.monitor is not None:
            rank_zero_info(
                f"DAgger saves the policy of the round with the best return as best.ckpt; the {type(one).__name__} "
                f"that monitors {one.monitor} is removed"
            )
        elif one is not callback:
            others.append(one)
    first = next((i for i, one in enumerate(others) if isinstance(one, Checkpoint)), len(others))
    # A new list, because Lightning is iterating over the old one.
    trainer.callbacks = [*others[:first], callback, *others[first:]]  # type: ignore[attr-defined]


def stopped_early(trainer: Trainer) -> bool:
    """Whether an `EarlyStopping` has just ended the training of this round."""
    return trainer.should_stop and any(one.stopped_epoch == trainer.current_epoch for one in _early(trainer))


def restart_early_stopping(trainer: Trainer) -> None:
    """Let each `EarlyStopping` start over with the data of a new round."""
    if stopped_early(trainer):
        trainer.should_stop = False
    for one in _early(trainer):
        one.wait_count, one.stopped_epoch = 0, 0
        one.best_score = torch.tensor(math.inf if one.monitor_op == torch.lt else -math.inf)


def _early(trainer: Trainer) -> list[EarlyStopping]:
    return [one for one in trainer.callbacks if isinstance(one, EarlyStopping)]  # type: ignore[attr-defined]
