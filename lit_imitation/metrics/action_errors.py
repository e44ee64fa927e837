"""Error of each dimension of continuous actions."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class ActionErrors(Metric):
    """Mean absolute error of each dimension, e_i = 1/N Σ_n |â_ni − a_ni|, over all processes.

    Dimensions have units of their own, such as radians and meters, so their mean can hide one of them.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", default=torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("count", default=torch.zeros(()), dist_reduce_fx="sum")

    def update(self, errors: Tensor) -> None:
        """Add absolute errors `[B, act_dim]`."""
        self.total = self.total + errors.detach().sum(0)
        self.count = self.count + len(errors)

    def compute(self) -> Tensor:
        """Mean of each dimension, `[act_dim]`."""
        return self.total / self.count
