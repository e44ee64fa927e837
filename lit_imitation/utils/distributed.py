"""What several processes know of each other."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from typing import Any

import torch.distributed as dist
from torch import Tensor


def end_with(parent: int, grace: float = 0.0) -> None:
    """End this process, from a thread in the background, once the one that started it is gone, however that ended.

    Args:
        parent: number of the process that started this one.
        grace: seconds to finish by itself first.
    """
    forked, starter = os.getppid() == parent, multiprocessing.parent_process()

    def watch() -> None:
        if forked:
            while os.getppid() == parent:
                time.sleep(0.5)
        elif starter is not None:  # a server of multiprocessing's forked this process in its name
            starter.join()
        else:
            return
        time.sleep(grace)
        os._exit(1)

    threading.Thread(target=watch, name="end with parent", daemon=True).start()


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this one is, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def is_lost_peer(error: BaseException) -> bool:
    """Whether an error says that another process of the run is gone, or has not answered in time."""
    if not dist.is_available():
        return False
    return isinstance(error, dist.DistError) or (type(error) is RuntimeError and "gloo" in str(error).lower())


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
