"""Rows drawn with replacement from torch's global stream, for one process or for each of several."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_imitation.utils.distributed import rank, world_size


def draw_rows(number: int, count: int, device: torch.device, weight: Tensor | None = None) -> Tensor:
    """`[count]`: indices below `number`, uniform, or each in proportion to its `weight: [number]`."""
    if weight is None:
        return torch.randint(number, (count,), device=device)
    # Sums of float32 would lose small weights among a million rows. (Apple's GPUs have no float64.)
    dtype = torch.float32 if device.type == "mps" else torch.float64
    cumulative = weight.to(device, dtype).cumsum(0)
    place = torch.rand(count, dtype=dtype, device=device) * cumulative[-1]
    return torch.searchsorted(cumulative, place, right=True).clamp(max=number - 1)


def draw_own_rows(number: int, count: int, device: torch.device, weight: Tensor | None = None) -> Tensor:
    """`draw_rows` of `count` on each process, no two of which draw the same.

    The streams of all processes are one; each takes its own part of what it gives, so that together they draw what one
    process would.
    """
    return draw_rows(number, world_size() * count, device, weight)[rank() :: world_size()]


def own_stream(device: torch.device) -> torch.Generator | None:
    """A stream of this process's own, begun anew from the one that all share; None, the global one, for one process."""
    if world_size() == 1:
        return None
    seed = int(torch.randint(2**62, (), dtype=torch.int64))
    return torch.Generator(device).manual_seed((seed + 0x9E3779B97F4A7C15 * rank()) % 2**63)
