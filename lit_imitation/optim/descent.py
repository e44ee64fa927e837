"""`Descent`: takes gradient steps, one at a time or a block at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_imitation.optim.adam import make_adam, moments_of
from lit_imitation.optim.averaging import Follower, WeightAverage
from lit_imitation.optim.compiled import CompiledSteps
from lit_imitation.optim.gradients import LossGradient, clip
from lit_imitation.optim.optimization import Optimization
from lit_imitation.optim.processes import GradientExchange
from lit_imitation.optim.traced import TracedSteps
from lit_imitation.optim.vector import ParameterVector


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
        traced: On a CPU, take steps or at least gradients by a trace of their kernels after a while, see `TracedSteps`
            and `LossGradient`.
        compiled: Compile the gradient into one function, and several steps with Adam into another: 20 seconds at the
            first step, then faster steps.
        follower: Part of `module` with trained parameters, another part that follows it, and τ; see `Follower`.
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
        follower: tuple[nn.Module, nn.Module, float] | None = None,
    ) -> None:
        self.learning_rate, self.optimization = learning_rate, optimization
        self.layout = ParameterVector(module, parameters)
        self.vector, self.parameters = self.layout.vector, self.layout.parameters
        own = make_optimizer([self.vector]) if make_optimizer is not None else None
        self.optimizer = own or make_adam(self.vector, learning_rate, eps, optimization.weight_decay)
        self.optimizer.param_groups[0]["schedule"] = optimization.schedule  # so that a resumed run sees a change
        self.adam_steps = 0
        """Steps of Adam so far, counted on the host."""
        self.exchange = GradientExchange()
        self.ema = WeightAverage(self.optimizer, self.vector, optimization.ema_decay)
        self.follower = None if follower is None else Follower(self.layout, *follower)
        self._after_step: Callable[[], None] | None = getattr(module, "after_step", None)
        compiled = compiled and own is None
        alone = self.exchange.processes == 1 and optimization.accumulate_batches == 1
        max_norm = optimization.max_grad_norm
        self.loss_gradient = LossGradient(module, self.layout, max_norm, clips=alone, traced=traced, compiled=compiled)
        self.block: CompiledSteps | TracedSteps | None = None
        if alone and own is None and self._after_step is None and optimization.ema_decay is None:
            if compiled and self.follower is None:
                self.block = CompiledSteps(self.loss_gradient, self.optimizer, eps, optimization.weight_decay)
            elif self.loss_gradient.traced is not None:
                self.block = TracedSteps(self.loss_gradient, self.optimizer, self.follower)

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
        rows, first = list[Tensor](), 0
        while first < count:
            if self.block is not None and mask is None:
                left = [column[first:] for column in columns]
                if found := self.block(left, None if rates is None else rates[first:], self.adam_steps):
                    rows += found
                    taken = sum(map(len, found))
                    first, self.adam_steps = first + taken, self.adam_steps + taken
                    continue
            if rates is not None:
                self.set_rate(rates[first // every])
            minibatches = [[column[i] for column in columns] for i in range(first, min(first + every, count))]
            rows.append(self.step_mean(minibatches, mask)[None])
            first += every
        return torch.cat(rows)

    def step(self, *minibatch: Tensor, mask: Tensor | None = None) -> Tensor:
        """Take one optimizer step; returns `[1 + K + 1]`: loss, statistics, norm of the gradient."""
        return self.step_mean([minibatch], mask)

    def step_mean(self, minibatches: Sequence[Sequence[Tensor]], mask: Tensor | None = None) -> Tensor:
        """Take one optimizer step on the mean gradient of some minibatches; returns their mean row `[1 + K + 1]`."""
        self.exchange.check_stop()
        gradient, row = self.gradient(*minibatches[0])
        for minibatch in minibatches[1:]:
            more, found = self.gradient(*minibatch)
            gradient, row = gradient + more, row + found
        if len(minibatches) > 1:
            gradient, row = gradient / len(minibatches), row / len(minibatches)
        gradient = self.exchange.mean(gradient)
        if not self.loss_gradient.clips:
            gradient, norm = clip(gradient, self.optimization.max_grad_norm)
            row = torch.cat([row[:-1], norm[None]])
        self.vector.grad = gradient if mask is None else gradient * mask
        self.optimizer.step()
        self.adam_steps += 1
        if self.follower is not None:
            self.follower.update()
        if self._after_step is not None:
            self._after_step()
        self.ema.update()
        return row

    def gradient(self, *minibatch: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradient `[parameters]`, clipped unless it is to be averaged, and the row of `step`."""
        return self.loss_gradient(minibatch, self.adam_steps)

    def mask(self, module: nn.Module) -> Tensor:
        """`[parameters]`: 1 for the parameters of `module`, a part of the whole, and 0 for the others."""
        return self.layout.mask(module)

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the coming steps."""
        self.optimizer.param_groups[0]["lr"] = rate

    def rates(self, progress: float, first: int, minibatches: int) -> list[float]:
        """Return the rate of each step on some minibatches, from step `first` on; `progress` is in [0, 1)."""
        count = -(-minibatches // self.optimization.accumulate_batches)
        return [self.learning_rate * self.optimization.rate(progress, first + i) for i in range(count)]

    def forget_moments(self) -> None:
        """Start Adam anew, for parameters or inputs that have changed."""
        self.optimizer.state = defaultdict(dict)
        self.adam_steps = 0

    def moments(self, parameter: nn.Parameter) -> tuple[Tensor, Tensor] | None:
        """Views of Adam's first and second moment of one parameter, in its shape; None before the first step."""
        if not self.optimizer.state:
            return None
        number, found = self.layout.position(parameter), moments_of(self.optimizer, self.vector)
        return self.layout.views(found.first)[number], self.layout.views(found.second)[number]

    def swap_average(self) -> None:
        """Exchange the weights and their moving average, if there is one."""
        self.ema.swap()

    def average(self) -> list[Tensor] | None:
        """Moving averages of the parameters, in their shapes; None where there are none."""
        weights = self.ema.weights()
        return None if weights is None else self.layout.views(weights)

    def last(self) -> Tensor:
        """Return the last weights `[parameters]`, also while their moving average is loaded."""
        return self.ema.last()

    def resume(self) -> None:
        """Go on after a checkpoint was read: count Adam's steps, and put the last weights in their averages' place."""
        state = self.optimizer.state[self.vector] if self.optimizer.state else {}
        self.adam_steps = int(state.get("step", 0))
        self.ema.resume()
