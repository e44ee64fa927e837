"""`StreamedBlocks`: blocks of minibatches whose observations are read from disk ahead of training."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeAlias

import torch
from lightning import Trainer
from torch import Tensor

from lit_imitation.data.blocks import LONGEST, Blocks
from lit_imitation.data.streamed_examples import StreamedExamples
from lit_imitation.transitions import Transitions
from lit_imitation.windows import Windows

POOL = 2**27
"""Bytes of the observations that are shuffled among each other."""
GROUP = 32
"""Smallest number of examples that stay together until then."""
FEWEST_GROUPS = 8
"""Smallest number of groups in a pool."""

Pool: TypeAlias = "tuple[int, int]"
"""Pass within the epoch, and number of the pool within the pass."""


class StreamedBlocks(Blocks):
    """As `Blocks`, for observations on disk, where a row by itself takes as long to read as its neighbors.

    The order of a pass has two levels: examples in the order of the file are cut into groups of 32 consecutive ones,
    the groups are permuted, and examples are permuted within pools of consecutive groups that hold 128 MiB of
    observations together. If the file stores more than 32 rows in one piece (a chunk or row group), groups are as long,
    up to an eighth of a pool. A minibatch thus holds examples of the groups of one
    pool, which come from all over the file.

    A pool is a whole number of minibatches and the unit of reading: threads read the next ones during training. The
    order depends on data, batch size, seed and epoch alone, not on threads or processes. Each process reads its part of
    every minibatch, so that several processes read most groups several times.

    Args:
        data: Examples to draw from.
        batch_size: As for `Blocks`.
        passes: As for `Blocks`.
        seed: As for `Blocks`.
        trainer: As for `Blocks`.
        workers: Threads that read; with 0, training waits for each pool.

    Raises:
        ConfigError: a minibatch cannot be divided equally among the processes.
    """

    data: StreamedExamples

    def __init__(
        self, data: StreamedExamples, batch_size: int, passes: int, seed: int, trainer: Trainer, workers: int
    ) -> None:
        self.workers = workers
        pool = max(POOL // (min(batch_size, len(data)) * data.example_bytes), 1)
        self.pool = pool - pool % LONGEST if pool > LONGEST else pool
        """Minibatches of a pool."""
        self.longest = min(LONGEST, self.pool)
        super().__init__(data, batch_size, passes, seed, trainer)
        self.group = min(max(GROUP, data.stored.together), max(self.pool * self.batch_size // FEWEST_GROUPS, 1))
        """Examples of a group."""
        self._reading: dict[Pool, Future[Transitions | Windows]] = {}
        self._executor: ThreadPoolExecutor | None = None

    def __iter__(self) -> Iterator[Any]:
        """Blocks from where the epoch was left."""
        if self.workers and self._executor is None:  # its threads keep the files open from one epoch to the next
            self._executor = ThreadPoolExecutor(self.workers, thread_name_prefix="observations")
        try:
            yield from super().__iter__()
        finally:
            for future in self._reading.values():
                future.cancel()
            wait(self._reading.values())
            self._reading = {}

    def _block(self, epoch: int, start: int, stop: int) -> Any:
        parts: list[Any] = []
        while start < stop:
            pool, first = self._pool_of(start)
            examples = self._read(epoch, pool)
            parts.append(examples[start - first : stop - first])
            start += len(parts[-1])
        block = parts[0] if len(parts) == 1 else torch.cat(parts)
        return block.to(self.data.target, non_blocking=True)

    def _pool_of(self, minibatch: int) -> tuple[Pool, int]:
        """Pool that a minibatch of the epoch is in, and the pool's first minibatch."""
        number, within = divmod(minibatch, self.per_pass)
        return (number, within // self.pool), minibatch - within % self.pool

    def _read(self, epoch: int, pool: Pool) -> Transitions | Windows:
        """Examples `[minibatches, B]` of a pool; the next ones are begun, and those before are forgotten."""
        self._reading = {key: future for key, future in self._reading.items() if key >= pool}
        following, needed = pool, [pool]
        while len(needed) <= self.workers and (first := self._end(following)) < self.minibatches:
            following, _ = self._pool_of(first)
            needed.append(following)
        for key in needed:
            if key not in self._reading:
                index = self._index(epoch, key)
                if self._executor is not None:
                    self._reading[key] = self._executor.submit(self.data.read, index)
                else:
                    self._reading[key] = Future()
                    self._reading[key].set_result(self.data.read(index))
        return self._reading[pool].result()

    def _end(self, pool: Pool) -> int:
        """Minibatch of the epoch after the last one of a pool."""
        number, within = pool
        return number * self.per_pass + min((within + 1) * self.pool, self.per_pass)

    def _index(self, epoch: int, pool: Pool) -> Tensor:
        number, within = pool
        left = self.minibatches - number * self.per_pass
        return self._order(epoch, number)[within * self.pool : min((within + 1) * self.pool, left)]

    def _shuffle(self, generator: torch.Generator) -> Tensor:
        count, size = len(self.data), self.pool * self.batch_size
        group = torch.arange(count) // self.group
        place = torch.randperm(int(group[-1]) + 1, generator=generator)
        order = torch.argsort(place[group], stable=True)
        return torch.cat([part[torch.randperm(len(part), generator=generator)] for part in torch.split(order, size)])
