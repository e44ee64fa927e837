"""`DemonstrationDataModule`: shuffled batches of demonstrations."""

from __future__ import annotations

from typing import Any

from lit_imitation.data.blocks import Blocks
from lit_imitation.data.expert_module import ExpertDataModule
from lit_imitation.utils.ranges import check_at_least
from lit_imitation.utils.seeding import derive_seed


class DemonstrationDataModule(ExpertDataModule):
    """Demonstrations in shuffled batches, with an environment for evaluation.

    Args:
        env_id: ID of a registered Gymnasium environment, or `module:Id-v0`.
        batch_size: Size of the batch of one gradient step, over all processes together.
        passes_per_epoch: Passes over the data in one epoch. Validation and checkpoints fall between epochs, so take
            more for small data.
        **expert: Arguments of `ExpertDataModule` and `EnvironmentDataModule`.
    """

    def __init__(self, env_id: str, *, batch_size: int = 64, passes_per_epoch: int = 1, **expert: Any) -> None:
        super().__init__(env_id, **expert)
        check_at_least("data", 1, batch_size=batch_size, passes_per_epoch=passes_per_epoch)
        self.batch_size, self.passes_per_epoch = batch_size, passes_per_epoch

    def train_dataloader(self) -> Blocks:
        """Shuffled minibatches of the training split in blocks; this process's part of each."""
        trainer = self.trainer
        assert trainer is not None
        return Blocks(self.train, self.batch_size, self.passes_per_epoch, derive_seed(self.seed, "batches"), trainer)
