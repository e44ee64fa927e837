"""Row sampling with replacement, for one process or several, and shuffled minibatches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lit_imitation.utils.distributed import rank, world_size


def sample_rows(
    number: int,
    count: int,
    device: torch.device,
    weight: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Sample row indices with replacement.

    Args:
        number: Number of rows to choose from.
        count: Number of indices to sample.
        device: Device of the result.
        weight: `[number]` sampling weights; uniform if None.
        generator: Source of randomness; torch's global stream if None.

    Returns:
        `[count]` indices below `number`.
    """
    if weight is None:
        return torch.randint(number, (count,), device=device, generator=generator)
    # In float32 the sum over a million rows would lose small weights. Apple GPUs have no float64.
    dtype = torch.float32 if device.type == "mps" else torch.float64
    cumulative = weight.to(device, dtype).cumsum(0)
    place = torch.rand(count, dtype=dtype, device=device, generator=generator) * cumulative[-1]
    return torch.searchsorted(cumulative, place, right=True).clamp(max=number - 1)


def sample_rank_rows(number: int, count: int, device: torch.device, weight: Tensor | None = None) -> Tensor:
    """Sample `count` row indices on each process, each from its own part of the stream.

    All processes share one random stream. Each takes every `world_size`-th index, so together they sample what a
    single process would.
    """
    return sample_rows(number, world_size() * count, device, weight)[rank() :: world_size()]


def rank_generator(device: torch.device) -> torch.Generator | None:
    """Generator of this process alone, seeded from the shared stream; None (the global one) for a single process."""
    if world_size() == 1:
        return None
    seed = int(torch.randint(2**62, (), dtype=torch.int64))
    return torch.Generator(device).manual_seed((seed + 0x9E3779B97F4A7C15 * rank()) % 2**63)


def shuffle_minibatches(columns: Sequence[Tensor], size: int) -> list[Tensor]:
    """Cut the rows of columns `[N, …]` into minibatches `[S, size, …]`, in a new order that all columns share.

    What does not fill a minibatch is left out. With fewer rows than `size`, they all are one minibatch.
    """
    rows = len(columns[0])
    size = min(size, rows)
    order = torch.randperm(rows, device=columns[0].device)[: rows // size * size]
    return [column[order].view(-1, size, *column.shape[1:]) for column in columns]
