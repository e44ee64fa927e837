"""Many steps of Adam in one call of traced code."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_imitation.optim.adam import adam_step_, moments_of
from lit_imitation.optim.averaging import Follower
from lit_imitation.optim.gradients import LossGradient
from lit_imitation.optim.tracing import trace_kernels
from lit_imitation.utils.interruption import check

LONGEST = 32
"""Most steps of one call, after which a stop request is heard."""


class TracedSteps:
    """Takes steps of torch's Adam by a trace of the gradient's kernels, repeated in TorchScript.

    Without Python between the kernels, a step of a small network takes half of what a traced gradient and the
    optimizer's own step take, and a fifth of a second to trace, where compiled code takes 20 to compile.

    Args:
        loss: Gradient of the loss, clipped.
        optimizer: Adam or AdamW of the vector of parameters.
        follower: Target network that follows after each step, if there is one.
    """

    def __init__(self, loss: LossGradient, optimizer: Optimizer, follower: Follower | None = None) -> None:
        self.loss, self.optimizer = loss, optimizer
        self.vector = loss.parameters.vector
        nothing = self.vector.detach()[:0]
        self.follower = (nothing, nothing, 0.0) if follower is None else (follower.source, follower.copy, follower.tau)
        self.loops: dict[Any, Callable[..., Tensor]] = {}
        """Loops by what their trace depends on: shapes, types, precision and mode."""

    def __call__(self, columns: Sequence[Tensor], rates: Sequence[float] | None, taken: int) -> list[Tensor]:
        """Take S steps, if tracing pays by now and succeeds.

        Args:
            columns: `[S, B, …]` each, an argument of the loss.
            rates: Learning rate of each step; the optimizer's own if not given.
            taken: Steps of Adam so far.

        Returns:
            The rows of the steps, `[steps, 1 + K + 1]` each part; none if it took none.
        """
        if self.loss.traced is None or not self.loss.pays(taken):
            return []
        kinds = tuple((one.shape[1:], one.dtype) for one in columns)
        key = (self.loss.module.training, torch.is_autocast_enabled(self.vector.device.type), kinds)
        if key not in self.loops:
            try:
                self.loops[key] = self._trace(columns)
            except Exception:  # an error of the loss itself comes up again in the eager step that follows
                self.loss.traced = None  # it branches on values
                return []
        group, moments, rows = self.optimizer.param_groups[0], moments_of(self.optimizer, self.vector), list[Tensor]()
        rates = [group["lr"]] * len(columns[0]) if rates is None else list(rates)
        state, constants = (self.vector.detach(), moments.first, moments.second), list(self.loss.constants.values())
        for first in range(0, len(rates), LONGEST):
            check()
            chosen = slice(first, first + LONGEST)
            parts = [column[chosen] for column in columns]
            settings = (taken + first, rates[chosen], tuple(group["betas"]), group["eps"], group["weight_decay"])
            rows.append(self.loops[key](*state, constants, parts, *settings, *self.follower))
            moments.steps.add_(len(parts[0]))
        group["lr"] = rates[-1]
        return rows

    def _trace(self, columns: Sequence[Tensor]) -> Callable[..., Tensor]:
        names = list(self.loss.constants)

        def gradient(vector: Tensor, rest: list[Tensor]) -> tuple[Tensor, Tensor]:
            constants, minibatch = dict(zip(names, rest, strict=False)), rest[len(names) :]
            return self.loss.functional(vector, constants, *minibatch)

        rest = [*self.loss.constants.values(), *(column[0] for column in columns)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trace = trace_kernels(gradient, (self.vector.detach(), rest))
            loop: Callable[..., Tensor] = torch.jit.script(_Loop(trace))
        return loop


class _Loop(nn.Module):
    """Steps of Adam by a traced gradient, as TorchScript."""

    def __init__(self, gradient: nn.Module) -> None:
        super().__init__()
        self.gradient = gradient

    def forward(
        self,
        theta: Tensor,
        first: Tensor,
        second: Tensor,
        constants: list[Tensor],
        columns: list[Tensor],
        taken: int,
        rates: list[float],
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        source: Tensor,
        copy: Tensor,
        tau: float,
    ) -> Tensor:
        """Rows `[S, 1 + K + 1]` of S steps on columns `[S, B, …]`; all state changes in place."""
        rows: list[Tensor] = []
        for i in range(len(rates)):
            gradient, row = self.gradient(theta, constants + [column[i] for column in columns])
            adam_step_(theta, gradient, first, second, taken + i + 1, rates[i], betas, eps, weight_decay)
            if tau > 0.0:
                copy.lerp_(source, tau)
            rows.append(row)
        return torch.stack(rows)
