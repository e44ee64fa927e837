"""Exponential moving average of the weights."""

from __future__ import annotations

from torch import Tensor, nn
from torch.optim import Optimizer


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
