"""Gradients of a loss: eager, by a trace of their kernels, or compiled."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from lit_imitation.optim.tracing import Traced
from lit_imitation.optim.vector import ParameterVector

TRACE_AFTER = 500
"""Steps of Adam before gradients are traced: a trace pays after a thousand steps. By Adam's count, so that a resumed
run does what the uninterrupted one does."""


def clip(gradient: Tensor, max_norm: float | None) -> tuple[Tensor, Tensor]:
    """Scale a gradient `[parameters]` longer than `max_norm` down to it; returns it and its norm `[]` before."""
    norm = gradient.norm()
    if max_norm is None:
        return gradient, norm
    return gradient * (max_norm / (norm + 1e-6)).clamp(max=1.0), norm


def compile_for(device: torch.device, function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function of tensors whose shapes stay the same."""
    # The C++ wrapper around the kernels saves a fifth on a CPU.
    options: dict[str, Any] | None = {"cpp_wrapper": True} if device.type == "cpu" else None
    # Recompilations are counted per function; without isolation two `Descent`s would share the count.
    compile_ = partial(torch.compile, dynamic=False, isolate_recompiles=True, options=options)
    compiled: Callable[..., Any] = compile_(function)
    return compiled


class LossGradient:
    """Gradient of a module's loss by a vector of its parameters.

    Each way of computing it returns the gradient `[parameters]` and a row `[1 + K + 1]`: loss, statistics and norm of
    the gradient.

    Args:
        module: Module that computes the loss `[]` and statistics `[K]` of a minibatch.
        parameters: Parameters to differentiate by.
        max_norm: Norm to clip at; `None` only measures.
        clips: Clip the gradient and measure its norm. Otherwise the row ends with 0, and the caller clips what it makes
            of several gradients.
        traced: On a CPU, use a trace after `TRACE_AFTER` steps, if the loss can be traced.
        compiled: Compile loss, gradient and clipping into one function.
    """

    def __init__(
        self,
        module: nn.Module,
        parameters: ParameterVector,
        max_norm: float | None,
        *,
        clips: bool,
        traced: bool,
        compiled: bool,
    ) -> None:
        self.module, self.parameters, self.clips, self.max_norm = module, parameters, clips, max_norm
        device = parameters.vector.device
        self.compiled = compile_for(device, self.functional) if compiled else None
        on_cpu = device.type == "cpu"
        self.traced = Traced(self.functional, lambda: module.training) if traced and on_cpu else None

    def __call__(self, minibatch: tuple[Tensor, ...], taken: int) -> tuple[Tensor, Tensor]:
        """Gradient and row of a minibatch, after `taken` steps of Adam."""
        if self.compiled is not None:
            compiled: tuple[Tensor, Tensor] = self.compiled(self.parameters.vector.detach(), self.constants, *minibatch)
            return compiled
        if self.traced is not None and self.pays(taken):
            traced = self.traced(self.parameters.vector.detach(), self.constants, *minibatch)
            if traced is not None:
                return traced
            self.traced = None  # it branches on values
        return self.eager(*minibatch)

    @staticmethod
    def pays(taken: int) -> bool:
        """Whether to trace after so many steps of Adam."""
        return taken >= TRACE_AFTER

    def eager(self, *minibatch: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient and row by autograd."""
        value, statistics = self.module(*minibatch)
        gradient = torch.cat([one.flatten() for one in torch.autograd.grad(value, self.parameters.parameters)])
        return self._finish(gradient, value.detach(), statistics.detach())

    def functional(self, vector: Tensor, constants: dict[str, Tensor], *minibatch: Tensor) -> tuple[Tensor, Tensor]:
        """The same as a function of tensors alone, which can be traced or compiled as a whole."""

        def loss(vector: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            parameters = dict(zip(self.parameters.names, self.parameters.views(vector), strict=True))
            value, statistics = torch.func.functional_call(self.module, (parameters, constants), minibatch)
            return value, (value, statistics)

        gradient, (value, statistics) = torch.func.grad(loss, has_aux=True)(vector)
        return self._finish(gradient, value, statistics)

    @cached_property
    def constants(self) -> dict[str, Tensor]:
        """The other parameters and the buffers that the loss reads, taken at the first step, where they stay."""
        named = dict(self.module.named_parameters())
        rest = {name: one.detach() for name, one in named.items() if name not in self.parameters.names}
        return rest | dict(self.module.named_buffers())

    def _finish(self, gradient: Tensor, value: Tensor, statistics: Tensor) -> tuple[Tensor, Tensor]:
        norm = torch.zeros_like(value)
        if self.clips:
            gradient, norm = clip(gradient, self.max_norm)
        return gradient, torch.cat([value[None], statistics, norm[None]])
