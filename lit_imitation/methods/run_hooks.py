"""`RunHooks`: what Lightning calls at the start and end of runs, epochs and blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch

from lit_imitation.data.module import EnvironmentDataModule
from lit_imitation.methods.signals import StopSignal, is_attached
from lit_imitation.methods.trainer_options import check_trainer, lower_log_interval

if TYPE_CHECKING:
    from lit_imitation.methods.resumable import Resumable as Base
else:
    Base = object


class RunHooks(Base):
    """Mixin of a module that checks the Trainer's options before a run, and stops the run at SIGTERM."""

    saves_between_blocks: ClassVar[bool] = True
    """Whether a checkpoint after any block is exact; that of a round is exact at the end of an epoch only."""
    precisions: ClassVar[tuple[str, ...]] = ("32-true", "bf16-mixed")
    """Values of `trainer.precision` that the method can compute in."""
    optimization_option: ClassVar[str] = "model.optimization"
    """Where the settings of the optimizer are given."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.signals = StopSignal(self, self.saves_between_blocks)

    @property
    def attached(self) -> bool:
        """Whether a Trainer runs the method; without one a checkpoint is being loaded."""
        return is_attached(self)

    @property
    def datamodule(self) -> EnvironmentDataModule:
        """DataModule of the running Trainer."""
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(datamodule, EnvironmentDataModule):
            raise TypeError(f"{type(self).__name__} needs an EnvironmentDataModule, not {type(datamodule).__name__}")
        return datamodule

    def configure_callbacks(self) -> list[Any]:
        """Refuse options of the Trainer that the method cannot honor, before anything is computed."""
        check_trainer(
            self.trainer,
            type(self).__name__,
            self.optimization_option,
            self.precisions,
            self.saves_between_blocks,
        )
        return []

    def on_train_start(self) -> None:
        """Listen to SIGTERM, and log a short run at least once."""
        self.signals.listen()  # Lightning has set its own handler after `on_fit_start`
        lower_log_interval(self.trainer)
        super().on_train_start()

    def on_train_epoch_start(self) -> None:
        """Stop here if SIGTERM came during the last validation."""
        self.signals.stop_between_epochs()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Stop here if SIGTERM came during the block."""
        if self.saves_between_blocks:
            self.signals.stop_between_blocks()

    def on_validation_start(self) -> None:
        """Listen to SIGTERM."""
        self.signals.listen()

    on_test_start = on_predict_start = on_validation_start

    def teardown(self, stage: str) -> None:
        """Stop listening."""
        self.signals.forget()

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Leave batches where they are: the DataModule puts them where they are needed."""
        return batch
