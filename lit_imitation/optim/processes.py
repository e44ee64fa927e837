"""One gradient for all processes of a run."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_imitation.utils.distributed import all_reduce, world_size
from lit_imitation.utils.interruption import check, stop_requested


class GradientExchange:
    """Averages gradients over all processes, and lets them stop after the same step.

    The number of processes that were told to stop travels along with the gradient, and all stop before the next step:
    to stop before this one, the host would have to wait for the device.
    """

    def __init__(self) -> None:
        self.processes = world_size()
        self._told: Tensor | None = None

    def check_stop(self) -> None:
        """Stop here if this process, or at the last step any of several, was told to."""
        if self.processes == 1:
            check()
        elif self._told is not None and self._told.item():
            check(agreed=True)

    def mean(self, gradient: Tensor) -> Tensor:
        """Mean of the gradients `[parameters]` of all processes."""
        if self.processes == 1:
            return gradient
        summed = all_reduce(torch.cat([gradient, gradient.new_tensor([float(stop_requested())])]))
        self._told = summed[-1]
        return summed[:-1] / self.processes
