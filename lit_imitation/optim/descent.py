"""One descent step, the same for every learner: gradient, average over processes, clip, optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from lit_imitation.utils.distributed import all_reduce, world_size
from lit_imitation.utils.interruption import check, stop_requested

CHUNK = 2
"""Steps of one call of compiled code; of twice as many each is no faster, and they take a third longer to compile."""


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
            device already, for to move it afterwards would part the parameters from their vector. Where it has an
            `after_step`, that is called after each step, to bring buffers up to date with the parameters.
        parameters: those of its parameters that are trained.
        learning_rate: of Adam.
        eps: of Adam.
        max_grad_norm: longer gradients are shortened to it; infinity for never.
        compiled: compile loss, gradient and clipping into one function, and `CHUNK` steps with Adam's into another;
            takes 20 seconds the first time, for a quarter of the time of each step.
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
        self._told: Tensor | None = None
        self._after_step: Callable[[], None] | None = getattr(module, "after_step", None)
        self._functional = self._chunk = None
        if compiled:
            # What calls the kernels is C++ too: on a CPU that saves a fifth.
            options: dict[str, Any] | None = {"cpp_wrapper": True} if self.vector.device.type == "cpu" else None
            # What one object compiled is not what another needs, and a function counts what it compiled for both.
            compile_ = partial(torch.compile, dynamic=False, isolate_recompiles=True, options=options)
            self._functional, self._chunk = compile_(self._functional_gradient), compile_(self._functional_steps)

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
        if self.processes == 1:
            check()
        elif self._told is not None and self._told.item():
            check(agreed=True)
        gradient, statistics = self.gradient(*args)
        if self.processes > 1:
            # How many processes were told to stop goes along, so that all stop before the same step: the next one, or
            # a GPU would have to be waited for here.
            summed = all_reduce(torch.cat([gradient, gradient.new_tensor([float(stop_requested())])]))
            gradient, self._told = summed[:-1] / self.processes, summed[-1]
            gradient, norm = self._clipped(gradient)
            statistics = torch.cat([statistics[:-1], norm[None]])
        self.vector.grad = gradient if mask is None else gradient * mask
        self.optimizer.step()
        if self._after_step is not None:
            self._after_step()
        return statistics

    def steps(self, *columns: Tensor, mask: Tensor | None = None) -> Tensor:
        """Take a step on each of S minibatches, `[S, …]` an argument; returns `[S, 1 + K + 1]`, as `step` does of each.

        Between processes, with a mask or an `after_step`, or not compiled, one by one; else `CHUNK` of them in one
        compiled function: to call it takes almost as long as a step's arithmetic.
        """
        count, found, done = len(columns[0]), [], 0
        ready = self._chunk is not None and self.processes == 1 and mask is None and self._after_step is None
        if ready and not self.optimizer.state:
            # Adam makes its state with the first step. With it goes all that is over beside whole chunks, or one more
            # function would be compiled that later rounds may never need.
            done = count % CHUNK or CHUNK
            for i in range(done):
                self.vector.grad, statistics = self._eager(*(column[i] for column in columns))
                self.optimizer.step()
                found.append(statistics[None])
        while done < count:
            if ready and count - done >= CHUNK:
                check()
                assert self._chunk is not None
                state, group = self.optimizer.state[self.vector], self.optimizer.param_groups[0]
                moments = (state["exp_avg"], state["exp_avg_sq"], state["step"])
                rate = torch.tensor(group["lr"], dtype=self.vector.dtype, device=self.vector.device)
                minibatches = [column[done : done + CHUNK] for column in columns]
                found.append(self._chunk(self.vector.detach(), *moments, rate, self.others, *minibatches))
                done += CHUNK
            else:
                found.append(self.step(*(column[done] for column in columns), mask=mask)[None])
                done += 1
        return torch.cat(found)

    def _functional_steps(
        self,
        vector: Tensor,
        first: Tensor,
        second: Tensor,
        count: Tensor,
        rate: Tensor,
        others: dict[str, Tensor],
        *minibatches: Tensor,
    ) -> Tensor:
        """`CHUNK` steps of Adam (Kingma & Ba 2015, algorithm 1) on parameters, moments and count, all in place."""
        (beta1, beta2), eps = self.optimizer.defaults["betas"], self.optimizer.defaults["eps"]
        theta, m, v, t, statistics = vector, first, second, count, []
        for i in range(CHUNK):
            gradient, found = self._functional_gradient(theta, others, *(column[i] for column in minibatches))
            t = t + 1
            m = torch.lerp(m, gradient, 1.0 - beta1)
            v = beta2 * v + (1.0 - beta2) * gradient.square()
            deviation = v.sqrt() / (1.0 - beta2**t).sqrt() + eps
            theta = theta - rate / (1.0 - beta1**t) * (m / deviation)
            statistics.append(found)
        for old, new in ((vector, theta), (first, m), (second, v), (count, t)):
            old.copy_(new)
        return torch.stack(statistics)

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
        return self._eager(*args)

    def _eager(self, *args: Tensor) -> tuple[Tensor, Tensor]:
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
