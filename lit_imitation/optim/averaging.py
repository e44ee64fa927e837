"""Exponential moving averages of weights: of all of them, or of a part in a network of its own."""

from __future__ import annotations

from torch import Tensor, nn
from torch.optim import Optimizer

from lit_imitation.optim.vector import ParameterVector, flatten_parameters


class WeightAverage:
    """Exponential moving average of a vector of weights, kept in the optimizer's state for checkpoints.

    While the average is swapped in, for example for an evaluation, the state keeps the last weights instead.

    Args:
        optimizer: Optimizer of the vector.
        vector: The weights `[parameters]`.
        decay: Decay of the average; `None` for no average.
    """

    def __init__(self, optimizer: Optimizer, vector: nn.Parameter, decay: float | None) -> None:
        self.optimizer, self.vector, self.decay = optimizer, vector, decay
        self._swapped = False

    def update(self) -> None:
        """Move the average toward the weights after a step."""
        if self.decay is None:
            return
        state = self.optimizer.state[self.vector]
        if "average" not in state:
            state["average"] = self.vector.detach().clone()
        else:
            state["average"].lerp_(self.vector.detach(), 1.0 - self.decay)

    def swap(self) -> None:
        """Exchange the weights and their average, if there is one."""
        average = self.optimizer.state[self.vector].get("average") if self.optimizer.state else None
        if average is not None:
            last = self.vector.detach().clone()
            self.vector.data.copy_(average)
            average.copy_(last)
            self._swapped = not self._swapped

    def weights(self) -> Tensor | None:
        """Copy of the average `[parameters]`; None where there is none."""
        if self.decay is None or not self.optimizer.state:
            return None
        return (self.vector.detach() if self._swapped else self.optimizer.state[self.vector]["average"]).clone()

    def last(self) -> Tensor:
        """The last weights `[parameters]`, whether or not their average is swapped in."""
        return self.optimizer.state[self.vector]["average"] if self._swapped else self.vector.detach()

    def resume(self) -> None:
        """Put the last weights back in place after a checkpoint was read, which has their average as the weights."""
        state = self.optimizer.state[self.vector] if self.optimizer.state else {}
        if "average" not in state:
            return
        if self.decay is None:
            del state["average"]
            return
        self._swapped = True
        self.swap()


class Follower:
    """A target network that follows a trained one: θ̄ ← θ̄ + τ (θ − θ̄) after each step.

    Args:
        layout: The trained parameters.
        source: The part of them that is followed, a module whose parameters lie side by side in `layout`.
        copy: Module of the same shape that follows.
        tau: Step size τ.
    """

    def __init__(self, layout: ParameterVector, source: nn.Module, copy: nn.Module, tau: float) -> None:
        own, first = list(source.parameters()), layout.position(next(source.parameters()))
        assert all(a is b for a, b in zip(layout.parameters[first:], own, strict=False))
        start = sum(layout.sizes[:first])
        self.source = layout.vector.detach()[start : start + sum(one.numel() for one in own)]
        self.copy, self.tau = flatten_parameters(list(copy.parameters())), tau

    def update(self) -> None:
        """Take a step."""
        self.copy.lerp_(self.source, self.tau)
