"""What several processes know of each other."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this one is, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def all_reduced(x: Tensor) -> Tensor:
    """The sum of `x` over the processes; `x` itself where there is one."""
    if world_size() > 1:
        x = x.clone()
        dist.all_reduce(x)
    return x


def gathered(x: Any) -> list[Any] | None:
    """`x` of every process, on the first of them; None on the others."""
    if world_size() == 1:
        return [x]
    found: list[Any] | None = [None] * world_size() if rank() == 0 else None
    dist.gather_object(x, found)
    return found
