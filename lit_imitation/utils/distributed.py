"""Helpers around `torch.distributed`."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from typing import Any

import torch.distributed as dist
from torch import Tensor


def exit_with_parent(parent: int, grace: float = 0.0) -> None:
    """Exit this process once its parent is gone, however the parent ended. A background thread watches.

    Args:
        parent: PID of the parent process.
        grace: Seconds this process gets to finish on its own first.
    """
    forked, starter = os.getppid() == parent, multiprocessing.parent_process()

    def watch() -> None:
        if forked:
            while os.getppid() == parent:
                time.sleep(0.5)
        elif starter is not None:  # multiprocessing's fork server is the direct parent, not the starter
            starter.join()
        else:
            return
        time.sleep(grace)
        os._exit(1)

    threading.Thread(target=watch, name="end with parent", daemon=True).start()


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Rank of this process, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def is_lost_peer(error: BaseException) -> bool:
    """Whether an error means that another process of the run is gone or timed out."""
    if not dist.is_available():
        return False
    return isinstance(error, dist.DistError) or (type(error) is RuntimeError and "gloo" in str(error).lower())


def all_reduce(x: Tensor) -> Tensor:
    """Sum `x` over all processes; with one process, return `x` itself."""
    if world_size() > 1:
        x = x.clone()
        dist.all_reduce(x)
    return x


def gather_to_first(x: Any) -> list[Any] | None:
    """Collect `x` from every process on rank 0; return None on the other ranks."""
    if world_size() == 1:
        return [x]
    found: list[Any] | None = [None] * world_size() if rank() == 0 else None
    dist.gather_object(x, found)
    return found
