"""Schedules of β_i, the probability that the expert acts in a step of round i (Ross, Gordon & Bagnell 2011, §3.3).

In round 0, the demonstrations, only the expert acts. A number is a constant schedule, and any function of the round is
a schedule too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from lit_imitation.errors import ConfigError
from lit_imitation.utils.arguments import TypeChecked

BetaSchedule: TypeAlias = Callable[[int], float]
"""Function from the round i ≥ 1 to β_i in [0, 1]."""


@dataclass(frozen=True)
class LinearBeta(TypeChecked):
    """β_i = max(0, 1 − i/N).

    Args:
        rounds: Number N of the first round in which the learner acts alone.
    """

    rounds: int

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ConfigError(f"LinearBeta: rounds is {self.rounds}; it must be at least 1")

    def __call__(self, i: int) -> float:
        """Return β_i."""
        return max(0.0, 1.0 - i / self.rounds)


@dataclass(frozen=True)
class IndicatorBeta(TypeChecked):
    """β_i = 1[i = 1]: from the second round on the learner acts alone, which worked best for Ross et al."""

    def __call__(self, i: int) -> float:
        """Return β_i."""
        return float(i == 1)


@dataclass(frozen=True)
class ExponentialBeta(TypeChecked):
    """β_i = p^(i−1).

    Args:
        p: Factor from each round to the next, in [0, 1].
    """

    p: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.p <= 1.0:
            raise ConfigError(f"ExponentialBeta: p is {self.p}; it must lie in [0, 1]")

    def __call__(self, i: int) -> float:
        """Return β_i."""
        return float(self.p ** (i - 1))
