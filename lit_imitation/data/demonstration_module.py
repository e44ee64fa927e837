"""`DemonstrationDataModule`: shuffled batches of demonstrations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from lit_imitation.data.expert_module import ExpertDataModule
from lit_imitation.data.module import check_at_least
from lit_imitation.errors import ConfigError
from lit_imitation.transitions import Transitions
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
        check_at_least(1, batch_size=batch_size, passes_per_epoch=passes_per_epoch)
        self.batch_size, self.passes_per_epoch = batch_size, passes_per_epoch

    def train_dataloader(self) -> Batches:
        """Shuffled batches of the training split; this process's share of each."""
        trainer = self.trainer
        assert trainer is not None
        return Batches(
            self.train,
            self.batch_size,
            passes=self.passes_per_epoch,
            seed=derive_seed(self.seed, "batches"),
            epoch=lambda: trainer.current_epoch,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
        )


class Batches:
    """Loader of shuffled batches, drawn without replacement.

    The processes share each batch equally, so w processes see the same batches as one. The incomplete batch at the end
    of a pass is dropped; its transitions change from pass to pass. The order depends on seed and epoch alone, and the
    position within the epoch is saved, so a resumed run continues with the next batch.

    Args:
        data: Data `[N]`; a batch is some of its rows.
        batch_size: Batch size over all processes; N if that is less.
        passes: Passes over the data in one epoch.
        seed: Seed of the order.
        epoch: Function that returns the current epoch.
        rank: Index of this process.
        world_size: Number of processes.
    """

    def __init__(
        self,
        data: Transitions | Tensor,
        batch_size: int,
        passes: int,
        seed: int,
        epoch: Callable[[], int],
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        batch_size = min(batch_size, len(data))
        if batch_size < world_size or batch_size % world_size:
            raise ConfigError(
                f"a batch of {batch_size} cannot be divided equally among {world_size} processes; choose another "
                "data.batch_size"
            )
        self.data, self.batch_size, self.passes, self.seed, self.epoch = data, batch_size, passes, seed, epoch
        self.rank, self.world_size = rank, world_size
        self._position = {"epoch": -1, "batches": 0}

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        return self.passes * (len(self.data) // self.batch_size)

    def __iter__(self) -> Iterator[Transitions]:
        epoch = self.epoch()
        start = self._position["batches"] if self._position["epoch"] == epoch else 0
        self._position = {"epoch": epoch, "batches": start}
        per_pass, share = len(self.data) // self.batch_size, self.batch_size // self.world_size
        for number in range(start // per_pass, self.passes):
            generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch, number))
            order = torch.randperm(len(self.data), generator=generator)[: per_pass * self.batch_size]
            mine = order.view(per_pass, self.world_size, share)[:, self.rank].flatten().to(self.data.device)
            # One gather per pass, then views: indexing for each batch would cost more than the batch.
            batches = self.data[mine].split(share)
            for batch in batches[start % per_pass if number == start // per_pass else 0 :]:
                self._position["batches"] += 1
                yield batch

    def state_dict(self) -> dict[str, Any]:
        """Epoch and position in it."""
        return dict(self._position)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from that position."""
        self._position = dict(state_dict)
