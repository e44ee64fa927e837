"""`Descent`: every gradient step of every method, one at a time or a block at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_imitation.optim.adam import Moments, adam_step, make_adam, moments_of
from lit_imitation.optim.optimization import Optimization
from lit_imitation.optim.tracing import Traced
from lit_imitation.utils.distributed import all_reduce, world_size
from lit_imitation.utils.interruption import check, stop_requested

CHUNK = 2
"""Steps of one call of compiled code. Twice as many are no faster each and take a third longer to compile."""

TRACE_AFTER = 500
"""Steps of Adam before gradients are traced: a trace pays after a thousand steps. By Adam's count, so that a resumed
run does what the uninterrupted one does."""


def flatten_parameters(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Lay the parameters into one vector `[parameters]` and turn them into views of it."""
    vector = torch.cat([parameter.detach().flatten() for parameter in parameters])
    parts = torch.split(vector, [parameter.numel() for parameter in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.data = part.view(parameter.shape)
    return vector


class Descent:
    """Minimizes a loss over some parameters of a module by Adam.

    The parameters become views of one vector: one gradient, one norm, one message between processes and one update
    replace a dozen small calls each. No wrapper such as DDP takes part, so a step may touch any subset of the
    parameters; gradients of several processes are averaged here.

    Args:
        module: Module that computes the loss: `forward(*minibatch)` returns the loss `[]` and statistics `[K]`. It must
            be on its device already. If it has a method `after_step`, that is called after each step.
        parameters: Parameters of `module` to train.
        learning_rate: Learning rate of Adam.
        eps: ε of Adam.
        optimization: Clipping, accumulation, weight decay, schedule and averaging.
        make_optimizer: Builds another optimizer of torch than Adam from the one vector; its steps are not compiled.
        traced: On a CPU, take gradients by a trace of their kernels after `TRACE_AFTER` steps, see `Traced`.
        compiled: Compile loss, gradient and clipping into one function, and `CHUNK` steps with Adam into another. Takes
            20 seconds at the first step; each step then takes about a quarter of the time.
    """

    def __init__(
        self,
        module: nn.Module,
        parameters: Iterable[nn.Parameter],
        learning_rate: float,
        eps: float = 1e-8,
        optimization: Optimization = Optimization(),  # noqa: B008 - frozen
        make_optimizer: Callable[[list[nn.Parameter]], Optimizer | None] | None = None,
        traced: bool = False,
        compiled: bool = False,
    ) -> None:
        self.module, self.learning_rate, self.optimization = module, learning_rate, optimization
        trained = {id(parameter) for parameter in parameters}
        named = {name: one for name, one in module.named_parameters() if id(one) in trained}
        self.parameters, self.names = list(named.values()), list(named)
        self.shapes, self.sizes = [one.shape for one in named.values()], [one.numel() for one in named.values()]
        self.vector = nn.Parameter(flatten_parameters(self.parameters))
        self.eps = eps
        own = make_optimizer([self.vector]) if make_optimizer is not None else None
        self.optimizer = own or make_adam(self.vector, learning_rate, eps, optimization.weight_decay)
        self.optimizer.param_groups[0]["schedule"] = optimization.schedule  # so that a resumed run sees a change
        self.processes = world_size()
        self.taken = 0
        """Steps of Adam so far, counted on the host."""
        self._told: Tensor | None = None
        self._swapped = False  # whether the weights are their moving average
        self._after_step: Callable[[], None] | None = getattr(module, "after_step", None)
        self._functional: Callable[..., tuple[Tensor, Tensor]] | None = None
        self._chunk: Callable[..., Tensor] | None = None
        self._traced: Traced | None = None
        if traced and self.vector.device.type == "cpu":
            self._traced = Traced(self._functional_gradient, lambda: self.module.training)
        if compiled and own is None:
            # The C++ wrapper around the kernels saves a fifth on a CPU.
            options: dict[str, Any] | None = {"cpp_wrapper": True} if self.vector.device.type == "cpu" else None
            # Recompilations are counted per function; without isolation two `Descent`s would share the count.
            compile_ = partial(torch.compile, dynamic=False, isolate_recompiles=True, options=options)
            self._functional, self._chunk = compile_(self._functional_gradient), compile_(self._functional_steps)

    # Steps

    def steps(self, *columns: Tensor, mask: Tensor | None = None, rates: Sequence[float] | None = None) -> Tensor:
        """Take one optimizer step on each of S minibatches (of every `accumulate_batches` together).

        Args:
            columns: `[S, B, …]` each, an argument of the loss.
            mask: `[parameters]`; where it is 0 the gradient counts as 0.
            rates: Learning rate of each optimizer step; the optimizer's own if not given.

        Returns:
            `[steps, 1 + K + 1]`: loss, statistics and norm of the gradient of each step.
        """
        count, every = len(columns[0]), self.optimization.accumulate_batches
        plain = self._chunk is not None and self.processes == 1 and mask is None and self._after_step is None
        if plain and every == 1 and self.optimization.ema_decay is None:
            return self._compiled_steps(columns, rates)
        found = []
        for number, first in enumerate(range(0, count, every)):
            if rates is not None:
                self.set_rate(rates[number])
            minibatches = [[column[i] for column in columns] for i in range(first, min(first + every, count))]
            found.append(self.step(*minibatches[0], mask=mask) if every == 1 else self.step_on(minibatches, mask))
        return torch.stack(found)

    def step(self, *minibatch: Tensor, mask: Tensor | None = None) -> Tensor:
        """Take one optimizer step; returns `[1 + K + 1]`: loss, statistics, norm of the gradient."""
        return self.step_on([minibatch], mask)

    def step_on(self, minibatches: Sequence[Sequence[Tensor]], mask: Tensor | None = None) -> Tensor:
        """Take one optimizer step on the mean gradient of some minibatches; returns as `step`, means over them."""
        if self.processes == 1:
            check()
        elif self._told is not None and self._told.item():
            check(agreed=True)
        gradient, statistics = self.gradient(*minibatches[0])
        for minibatch in minibatches[1:]:
            more, found = self.gradient(*minibatch)
            gradient, statistics = gradient + more, statistics + found
        if len(minibatches) > 1:
            gradient, statistics = gradient / len(minibatches), statistics / len(minibatches)
        if self.processes > 1:
            # The number of processes that were told to stop travels along, and all stop before the next step: to stop
            # before this one, the host would have to wait for the device.
            summed = all_reduce(torch.cat([gradient, gradient.new_tensor([float(stop_requested())])]))
            gradient, self._told = summed[:-1] / self.processes, summed[-1]
        if not self._clips_alone:
            gradient, norm = self._clip(gradient)
            statistics = torch.cat([statistics[:-1], norm[None]])
        self.vector.grad = gradient if mask is None else gradient * mask
        self.optimizer.step()
        self.taken += 1
        if self._after_step is not None:
            self._after_step()
        self._average()
        return statistics

    def _compiled_steps(self, columns: Sequence[Tensor], rates: Sequence[float] | None) -> Tensor:
        """`CHUNK` steps in one compiled function: calling it takes almost as long as the arithmetic of a step."""
        count, found, done = len(columns[0]), [], 0
        if not self.optimizer.state:
            # Adam makes its state at the first step. The remainder of whole chunks goes with it; otherwise one more
            # function would be compiled that later blocks may never need.
            for i in range(done := count % CHUNK or CHUNK):
                if rates is not None:
                    self.set_rate(rates[i])
                self.vector.grad, statistics = self._eager(*(column[i] for column in columns))
                self.optimizer.step()
                found.append(statistics[None])
        group = self.optimizer.param_groups[0]
        while count - done >= CHUNK:
            check()
            assert self._chunk is not None
            chosen = rates[done : done + CHUNK] if rates is not None else [group["lr"]] * CHUNK
            rate = torch.tensor(chosen, dtype=self.vector.dtype, device=self.vector.device)
            minibatches = [column[done : done + CHUNK] for column in columns]
            moments = moments_of(self.optimizer, self.vector)
            found.append(self._chunk(self.vector.detach(), *moments, rate, self.constants, *minibatches))
            done += CHUNK
        for i in range(done, count):
            if rates is not None:
                self.set_rate(rates[i])
            found.append(self.step(*(column[i] for column in columns))[None])
        if rates is not None:
            self.set_rate(rates[-1])
        return torch.cat(found)

    def _functional_steps(
        self,
        vector: Tensor,
        first: Tensor,
        second: Tensor,
        count: Tensor,
        rates: Tensor,
        constants: dict[str, Tensor],
        *minibatches: Tensor,
    ) -> Tensor:
        """`CHUNK` steps of Adam on parameters and moments, all in place."""
        betas = self.optimizer.defaults["betas"]
        theta, moments, statistics = vector, Moments(first, second, count), []
        for i in range(CHUNK):
            gradient, found = self._functional_gradient(theta, constants, *(column[i] for column in minibatches))
            theta, moments = adam_step(
                theta, gradient, moments, rates[i], betas, self.eps, self.optimization.weight_decay
            )
            statistics.append(found)
        for old, new in zip((vector, first, second, count), (theta, *moments), strict=True):
            old.copy_(new)
        return torch.stack(statistics)

    # Gradients

    def gradient(self, *minibatch: Tensor) -> tuple[Tensor, Tensor]:
        """`[parameters]`, clipped if one process takes it as it is; and `[1 + K + 1]` as in `step`."""
        if self._functional is not None:
            return self._functional(self.vector.detach(), self.constants, *minibatch)
        if self._traced is not None and self.taken >= TRACE_AFTER:
            found = self._traced(self.vector.detach(), self.constants, *minibatch)
            if found is not None:
                return found
            self._traced = None  # such as one-hot codes, which look at their indices
        return self._eager(*minibatch)

    def _eager(self, *minibatch: Tensor) -> tuple[Tensor, Tensor]:
        value, statistics = self.module(*minibatch)
        gradient = torch.cat([one.flatten() for one in torch.autograd.grad(value, self.parameters)])
        return self._finish(gradient, value.detach(), statistics.detach())

    def _functional_gradient(
        self, vector: Tensor, constants: dict[str, Tensor], *minibatch: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The same as a function of tensors alone, which can be compiled as a whole."""

        def loss(vector: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            parameters = dict(zip(self.names, self._views(vector), strict=True))
            value, statistics = torch.func.functional_call(self.module, (parameters, constants), minibatch)
            return value, (value, statistics)

        gradient, (value, statistics) = torch.func.grad(loss, has_aux=True)(vector)
        return self._finish(gradient, value, statistics)

    @cached_property
    def constants(self) -> dict[str, Tensor]:
        """The other parameters and the buffers that the loss reads, taken at the first step, where they stay."""
        named = dict(self.module.named_parameters())
        rest = {name: one.detach() for name, one in named.items() if name not in self.names}
        return rest | dict(self.module.named_buffers())

    @property
    def _clips_alone(self) -> bool:
        """Whether the gradient of one minibatch of one process is what is clipped."""
        return self.processes == 1 and self.optimization.accumulate_batches == 1

    def _finish(self, gradient: Tensor, value: Tensor, statistics: Tensor) -> tuple[Tensor, Tensor]:
        if not self._clips_alone:
            return gradient, torch.cat([value[None], statistics, torch.zeros_like(value)[None]])
        gradient, norm = self._clip(gradient)
        return gradient, torch.cat([value[None], statistics, norm[None]])

    def _clip(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        norm = gradient.norm()
        if self.optimization.max_grad_norm is None:
            return gradient, norm
        return gradient * (self.optimization.max_grad_norm / (norm + 1e-6)).clamp(max=1.0), norm

    def _views(self, vector: Tensor) -> list[Tensor]:
        parts = torch.split(vector, self.sizes)
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]

    # Learning rate, moments, averages

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the coming steps."""
        self.optimizer.param_groups[0]["lr"] = rate

    def forget_moments(self) -> None:
        """Start Adam anew, for parameters or inputs that have changed."""
        self.optimizer.state = defaultdict(dict)
        self.taken = 0

    def moments(self, parameter: nn.Parameter) -> tuple[Tensor, Tensor] | None:
        """Views of Adam's first and second moment of one parameter, in its shape; None before the first step."""
        if not self.optimizer.state:
            return None
        number = next(i for i, one in enumerate(self.parameters) if one is parameter)
        found = moments_of(self.optimizer, self.vector)
        return self._views(found.first)[number], self._views(found.second)[number]

    def mask(self, module: nn.Module) -> Tensor:
        """`[parameters]`: 1 for the parameters of `module`, a part of the whole, and 0 for the others."""
        chosen = {id(parameter) for parameter in module.parameters()}
        parts = [
            torch.full((size,), float(id(one) in chosen)) for one, size in zip(self.parameters, self.sizes, strict=True)
        ]
        return torch.cat(parts).to(self.vector.device)

    def _average(self) -> None:
        decay = self.optimization.ema_decay
        if decay is None:
            return
        state = self.optimizer.state[self.vector]
        if "average" not in state:
            state["average"] = self.vector.detach().clone()
        else:
            state["average"].lerp_(self.vector.detach(), 1.0 - decay)

    def swap_average(self) -> None:
        """Exchange the weights and their moving average, if there is one."""
        average = self.optimizer.state[self.vector].get("average") if self.optimizer.state else None
        if average is not None:
            last = self.vector.detach().clone()
            self.vector.data.copy_(average)
            average.copy_(last)
            self._swapped = not self._swapped

    def average(self) -> list[Tensor] | None:
        """Moving averages of the parameters, in their shapes; None where there are none."""
        if self.optimization.ema_decay is None or not self.optimizer.state:
            return None
        state = self.optimizer.state[self.vector]
        return self._views((self.vector.detach() if self._swapped else state["average"]).clone())

    def last(self) -> Tensor:
        """The last weights `[parameters]`, whether or not their average is in place."""
        return self.optimizer.state[self.vector]["average"] if self._swapped else self.vector.detach()

    def resume(self) -> None:
        """Go on after a checkpoint was read: count Adam's steps, and put the last weights in their averages' place."""
        state = self.optimizer.state[self.vector] if self.optimizer.state else {}
        self.taken = int(state.get("step", 0))
        if "average" not in state:
            return
        if self.optimization.ema_decay is None:
            del state["average"]
            return
        self._swapped = True
        self.swap_average()
