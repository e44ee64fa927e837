"""`Blocks`: shuffled minibatches, handed over many at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from lit_imitation.data.streamed_examples import StreamedExamples
from lit_imitation.errors import ConfigError
from lit_imitation.transitions import Transitions
from lit_imitation.utils.seeding import derive_seed
from lit_imitation.windows import WindowedTransitions

LONGEST = 64
"""Most minibatches of a block: Lightning's cost per training step no longer matters, and progress stays visible."""


class Blocks:
    """An epoch of minibatches without replacement, as blocks `[K, B]` of K minibatches each.

    Each pass shuffles the rows once and cuts them into whole minibatches. Rows that do not fill one are left out, other
    ones in each pass. Process r of w takes the r-th part of every minibatch, so that w processes see what one would.
    The order depends on seed and epoch alone, and the position within the epoch is state: a resumed run sees the
    minibatches that it would have seen.

    A block ends where the Trainer may have to do something: at the end of the epoch, at `trainer.max_steps`, and where
    a `ModelCheckpoint` with `every_n_train_steps` saves.

    Args:
        data: Rows or windows `[N]` to draw from.
        batch_size: Rows of a minibatch over all processes; N if that is less.
        passes: Passes over the data in one epoch.
        seed: Seed of the order.
        trainer: Trainer whose epoch, limits and processes count.

    Raises:
        ConfigError: a minibatch cannot be divided equally among the processes.
    """

    longest = LONGEST

    def __init__(
        self,
        data: Transitions | WindowedTransitions | Tensor | StreamedExamples,
        batch_size: int,
        passes: int,
        seed: int,
        trainer: Trainer,
    ) -> None:
        batch_size, world = min(batch_size, len(data)), trainer.world_size
        if batch_size < world or batch_size % world:
            raise ConfigError(
                f"a batch of {batch_size} cannot be divided equally among {world} processes; choose another "
                "data.batch_size"
            )
        self.data, self.batch_size, self.seed, self.trainer = data, batch_size, seed, trainer
        self.per_pass = len(data) // batch_size
        limit = trainer.limit_train_batches
        whole = passes * self.per_pass
        self.minibatches = min(whole, limit) if isinstance(limit, int) else whole
        self.accumulate = int(getattr(trainer.lightning_module, "accumulate_batches", 1))
        self.length = self._choose_length()
        self._position = {"epoch": -1, "batches": 0}
        self._orders: dict[tuple[int, int], Tensor] = {}

    def _choose_length(self) -> int:
        """K: a multiple of the minibatches of an optimizer step that meets every step at which a checkpoint is due."""
        length = self.longest * self.accumulate
        for callback in self.trainer.checkpoint_callbacks:
            every = _steps_between(callback) * self.accumulate
            if every and every % self.minibatches:
                common = math.gcd(every, self.minibatches)
                length = max(k for k in range(1, min(length, common) + 1) if common % k == 0)
        return max(length // self.accumulate, 1) * self.accumulate

    def __len__(self) -> int:
        """Blocks of an epoch."""
        return -(-self.minibatches // self.length)

    @property
    def done(self) -> int:
        """Blocks of the running epoch that are over, the one that was cut short by `trainer.max_steps` not counted."""
        return self._start() // self.length

    @property
    def within_epoch(self) -> bool:
        """Whether the running epoch has begun and is not over."""
        return 0 < self._start() < self.minibatches

    def _start(self) -> int:
        return self._position["batches"] if self._position["epoch"] == self.trainer.current_epoch else 0

    def __iter__(self) -> Iterator[Any]:
        """Blocks from where the epoch was left."""
        epoch, start = self.trainer.current_epoch, self._start()
        self._position = {"epoch": epoch, "batches": start}
        while start < self.minibatches:
            stop = min((start // self.length + 1) * self.length, self.minibatches)
            if self.trainer.max_steps >= 0:
                left = max(self.trainer.max_steps - self.trainer.global_step, 1)
                stop = min(stop, start + left * self.accumulate)
            self._position["batches"] = stop
            yield self._block(epoch, start, stop)
            start = stop

    def _block(self, epoch: int, start: int, stop: int) -> Any:
        """Minibatches `start` to `stop` of an epoch."""
        numbers = range(start // self.per_pass, (stop - 1) // self.per_pass + 1)
        firsts = [number * self.per_pass for number in numbers]
        parts = [self._order(epoch, n)[max(start - i, 0) : stop - i] for n, i in zip(numbers, firsts, strict=True)]
        return self.data[torch.cat(parts)]

    def _order(self, epoch: int, number: int) -> Tensor:
        """Rows of this process in pass `number`: `[minibatches of a pass, B]`; those of the last two are kept."""
        key = epoch, number
        if key not in self._orders:
            world, rank = self.trainer.world_size, self.trainer.global_rank
            generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch, number))
            order = self._shuffle(generator)[: self.per_pass * self.batch_size]
            self._orders = dict([*self._orders.items()][-1:])
            self._orders[key] = order.view(self.per_pass, world, -1)[:, rank].to(self.data.device)
        return self._orders[key]

    def _shuffle(self, generator: torch.Generator) -> Tensor:
        """Rows `[N]` in the order of a pass."""
        return torch.randperm(len(self.data), generator=generator)

    def state_dict(self) -> dict[str, Any]:
        """Epoch, and minibatches of it that were handed over."""
        return dict(self._position)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on there."""
        self._position = dict(state_dict)


def _steps_between(callback: Any) -> int:
    """Optimizer steps between two checkpoints of a `ModelCheckpoint`; 0 if it saves by epochs only."""
    if not isinstance(callback, ModelCheckpoint):
        return 0
    _, _, settings = callback.state_key.partition("'every_n_train_steps': ")
    return int(settings.partition(",")[0] or 0)
