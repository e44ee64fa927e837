"""One descent step, the same for every generator: gradient, average over processes, clip, optimiser."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from lit_imitation.processes import all_reduced, world_size


def flattened(parameters: Sequence[nn.Parameter]) -> Tensor:
    """The parameters laid into one vector `[numel]`, of which they become views."""
    vector = torch.cat([parameter.detach().flatten() for parameter in parameters])
    parts = torch.split(vector, [parameter.numel() for parameter in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.data = part.view(parameter.shape)
    return vector


class Descent:
    """Descends a loss of some parameters of a module by Adam.

    The parameters are laid into one vector, of which they become views: one gradient, one norm, one message between
    processes and one update then stand for all of them, where a dozen small calls would take longer than the
    arithmetic. No hook of a wrapper such as DDP is involved, so that a step may touch any subset of the parameters;
    processes are averaged here.

    Args:
        module: holds all that the loss reads; its `forward(*args)` returns the loss `[]` and statistics `[K]`. On its
            device already, for to move it afterwards would part the parameters from their vector.
        parameters: those of its parameters that are trained.
        learning_rate: of Adam.
        eps: of Adam.
        max_grad_norm: longer gradients are shortened to it; infinity for never.
        compiled: compile loss, gradient and clipping into one function; takes half a minute the first time, for a
            third of the time of each step.
    """

    def __init__(
        self,
        module: nn.Module,
        parameters: Iterable[nn.Parameter],
        learning_rate: float,
        eps: float = 1e-8,
        max_grad_norm: float = float("inf"),
        compiled: bool = False,
    ) -> None:
        self.module, self.max_grad_norm = module, max_grad_norm
        trained = {id(parameter) for parameter in parameters}
        named = dict(module.named_parameters())
        mine = {name: parameter for name, parameter in named.items() if id(parameter) in trained}
        self.parameters = list(mine.values())
        self.names, self.shapes = list(mine), [parameter.shape for parameter in mine.values()]
        self.sizes = [parameter.numel() for parameter in mine.values()]
        self.vector = nn.Parameter(flattened(self.parameters))
        self.optimizer = torch.optim.Adam([self.vector], learning_rate, eps=eps, fused=True)
        self.processes = world_size()
        self._functional = torch.compile(self._functional_gradient, dynamic=False) if compiled else None

    @cached_property
    def others(self) -> dict[str, Tensor]:
        """The rest of what the loss reads, as constants; taken at the first step, when all of it is where it stays."""
        named = dict(self.module.named_parameters())
        rest = {name: p.detach() for name, p in named.items() if name not in self.names}
        return rest | dict(self.module.named_buffers())

    def step(self, *args: Tensor, mask: Tensor | None = None) -> Tensor:
        """Take one step down the loss at `args`; returns `[1 + K + 1]`: loss, statistics, norm of the gradient.

        Where `mask: [parameters]` is 0 the gradient counts as 0.
        """
        gradient, statistics = self.gradient(*args)
        if self.processes > 1:
            gradient = all_reduced(gradient) / self.processes
            gradient, norm = self._clipped(gradient)
            statistics = torch.cat([statistics[:-1], norm[None]])
        self.vector.grad = gradient if mask is None else gradient * mask
        self.optimizer.step()
        return statistics

    def mask(self, module: nn.Module) -> Tensor:
        """`[parameters]`: 1 for those of `module`, a part of the whole, and 0 for the rest."""
        chosen = {id(parameter) for parameter in module.parameters()}
        named = dict(self.module.named_parameters())
        parts = [
            torch.full((size,), float(id(named[name]) in chosen))
            for name, size in zip(self.names, self.sizes, strict=True)
        ]
        return torch.cat(parts).to(self.vector.device)

    def gradient(self, *args: Tensor) -> tuple[Tensor, Tensor]:
        """`[parameters]`, clipped where there is one process; and `[1 + K + 1]` as in `step`."""
        if self._functional is not None:
            found: tuple[Tensor, Tensor] = self._functional(self.vector.detach(), self.others, *args)
            return found
        value, statistics = self.module(*args)
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(value, self.parameters)])
        return self._finished(gradient, value.detach(), statistics.detach())

    def _functional_gradient(self, vector: Tensor, others: dict[str, Tensor], *args: Tensor) -> tuple[Tensor, Tensor]:
        """The same as a function of tensors alone, which can be compiled as a whole (and is slow if it is not)."""

        def loss(vector: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            parameters = dict(zip(self.names, self._views(vector), strict=True))
            value, statistics = torch.func.functional_call(self.module, (parameters, others), args)
            return value, (value, statistics)

        gradient, (value, statistics) = torch.func.grad(loss, has_aux=True)(vector)
        return self._finished(gradient, value, statistics)

    def _finished(self, gradient: Tensor, value: Tensor, statistics: Tensor) -> tuple[Tensor, Tensor]:
        if self.processes > 1:  # their mean is what is clipped
            return gradient, torch.cat([value[None], statistics, torch.zeros_like(value)[None]])
        gradient, norm = self._clipped(gradient)
        return gradient, torch.cat([value[None], statistics, norm[None]])

    def _clipped(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        norm = gradient.norm()
        if self.max_grad_norm == float("inf"):
            return gradient, norm
        return gradient * (self.max_grad_norm / (norm + 1e-6)).clamp(max=1.0), norm

    def _views(self, vector: Tensor) -> list[Tensor]:
        parts = torch.split(vector, self.sizes)
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]
