"""Several steps of Adam in one compiled function."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from lit_imitation.optim.adam import Moments, adam_step, moments_of
from lit_imitation.optim.gradients import LossGradient, compile_for
from lit_imitation.utils.interruption import check

CHUNK = 2
"""Steps of one call of compiled code. Twice as many are no faster each and take a third longer to compile."""


class CompiledSteps:
    """Takes steps of torch's Adam, `CHUNK` of them by one compiled function.

    Calling a compiled function takes almost as long as the arithmetic of one step. Compilation takes 20 seconds at the
    first step.

    Args:
        loss: Gradient of the loss, clipped.
        optimizer: Adam of the vector of parameters.
        eps: ε of Adam.
        weight_decay: Decoupled weight decay.
    """

    def __init__(self, loss: LossGradient, optimizer: Optimizer, eps: float, weight_decay: float) -> None:
        self.loss, self.optimizer, self.eps, self.weight_decay = loss, optimizer, eps, weight_decay
        self.vector = loss.parameters.vector
        self.chunk: Callable[..., Tensor] = compile_for(self.vector.device, self.functional)

    def __call__(self, columns: Sequence[Tensor], rates: Sequence[float] | None, taken: int) -> list[Tensor]:
        """Take as many of S steps as fill whole chunks, and before them the optimizer's first steps.

        Args:
            columns: `[S, B, …]` each, an argument of the loss.
            rates: Learning rate of each step; the optimizer's own if not given.
            taken: Steps of Adam so far.

        Returns:
            The rows of the steps taken, `[steps, 1 + K + 1]` each part; the caller takes the others one by one.
        """
        group, rows, count, done = self.optimizer.param_groups[0], list[Tensor](), len(columns[0]), 0
        if not taken:
            # Adam makes its state at the first step. The remainder of whole chunks goes with it; otherwise one more
            # function would be compiled that later blocks may never need.
            done = min(count % CHUNK or CHUNK, count)
            for i in range(done):
                if rates is not None:
                    group["lr"] = rates[i]
                self.vector.grad, row = self.loss.eager(*(column[i] for column in columns))
                self.optimizer.step()
                rows.append(row[None])
        for first in range(done, count - CHUNK + 1, CHUNK):
            check()
            chosen = slice(first, first + CHUNK)
            rate = torch.tensor(
                rates[chosen] if rates is not None else [group["lr"]] * CHUNK,
                dtype=self.vector.dtype,
                device=self.vector.device,
            )
            moments = moments_of(self.optimizer, self.vector)
            minibatches = [column[chosen] for column in columns]
            rows.append(self.chunk(self.vector.detach(), *moments, rate, self.loss.constants, *minibatches))
            done += CHUNK
        if rates is not None and rows:
            group["lr"] = rates[done - 1]
        return rows

    def functional(
        self,
        vector: Tensor,
        first: Tensor,
        second: Tensor,
        count: Tensor,
        rates: Tensor,
        constants: dict[str, Tensor],
        *minibatches: Tensor,
    ) -> Tensor:
        """Rows `[CHUNK, 1 + K + 1]` of as many steps of Adam on parameters and moments, all in place."""
        betas = self.optimizer.defaults["betas"]
        theta, moments, rows = vector, Moments(first, second, count), []
        for i in range(CHUNK):
            gradient, row = self.loss.functional(theta, constants, *(column[i] for column in minibatches))
            theta, moments = adam_step(theta, gradient, moments, rates[i], betas, self.eps, self.weight_decay)
            rows.append(row)
        for old, new in zip((vector, first, second, count), (theta, *moments), strict=True):
            old.copy_(new)
        return torch.stack(rows)
