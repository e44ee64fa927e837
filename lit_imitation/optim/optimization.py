"""Settings of gradient descent that every method shares."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from lit_imitation.errors import ConfigError
from lit_imitation.utils.ranges import check_at_least, check_positive, check_weights


@dataclass(frozen=True)
class Optimization:
    """How an optimizer descends.

    Args:
        weight_decay: Decoupled weight decay of AdamW (arXiv:1711.05101).
        max_grad_norm: Norm to which longer gradients are scaled down; `None` for no clipping.
        accumulate_batches: Minibatches whose mean gradient makes one optimizer step.
        schedule: Learning rate over the training: `constant`, `linear` to 0, or `cosine` to 0 (arXiv:1608.03983).
        warmup_steps: Optimizer steps over which the learning rate rises linearly to its value.
        ema_decay: Decay of an exponential moving average of the weights, which is evaluated and saved in place of
            the last weights; `None` for the last weights.

    Raises:
        ConfigError: a setting out of its range.
    """

    weight_decay: float = 0.0
    max_grad_norm: float | None = None
    accumulate_batches: int = 1
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: int = 0
    ema_decay: float | None = None

    def __post_init__(self) -> None:
        check_weights("optimization", weight_decay=self.weight_decay)
        check_positive("optimization", max_grad_norm=self.max_grad_norm)
        check_at_least("optimization", 1, accumulate_batches=self.accumulate_batches)
        if self.schedule not in ("constant", "linear", "cosine"):
            raise ConfigError(f"optimization.schedule is {self.schedule!r}; choose constant, linear or cosine")
        check_at_least("optimization", 0, warmup_steps=self.warmup_steps)
        if self.ema_decay is not None and not 0.0 < self.ema_decay < 1.0:
            raise ConfigError(f"optimization.ema_decay is {self.ema_decay}; it must lie between 0 and 1")

    def rate(self, progress: float, step: int) -> float:
        """Factor of the learning rate.

        Args:
            progress: Share of the training that is over, in [0, 1].
            step: Optimizer steps taken so far.
        """
        factor = min(1.0, (step + 1) / (self.warmup_steps + 1))
        if self.schedule == "linear":
            factor *= 1.0 - progress
        elif self.schedule == "cosine":
            factor *= 0.5 * (1.0 + math.cos(math.pi * progress))
        return factor

    @property
    def varies(self) -> bool:
        """Whether the learning rate changes during training."""
        return self.schedule != "constant" or self.warmup_steps > 0
