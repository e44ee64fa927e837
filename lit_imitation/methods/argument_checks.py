"""Range checks of a method's constructor arguments, each with a `ConfigError` that names the option."""

from __future__ import annotations

import math
from typing import Any

from lit_imitation.errors import ConfigError
from lit_imitation.rewards import AdversarialReward
from lit_imitation.rl import Learner


def check_at_least(least: int, **arguments: int) -> None:
    """Check that arguments have at least this value."""
    for name, value in arguments.items():
        if value < least:
            raise ConfigError(f"model.{name} is {value}; it must be at least {least}")


def check_positive(**arguments: float) -> None:
    """Check that arguments are positive and finite."""
    for name, value in arguments.items():
        if not 0.0 < value < math.inf:
            raise ConfigError(f"model.{name} is {value}; it must be positive")


def check_not_negative(**arguments: float) -> None:
    """Check that arguments are 0 or positive, and finite."""
    for name, value in arguments.items():
        if not 0.0 <= value < math.inf:
            raise ConfigError(f"model.{name} is {value}; it must be 0 or more")


def check_finite(**arguments: float) -> None:
    """Check that arguments are finite."""
    for name, value in arguments.items():
        if not math.isfinite(value):
            raise ConfigError(f"model.{name} is {value}; it must be finite")


def check_discounts(discriminator: AdversarialReward, learner: Learner[Any]) -> None:
    """Check that a discriminator whose reward depends on γ has the learner's."""
    if discriminator.uses_gamma and learner.gamma != discriminator.gamma:
        raise ConfigError(
            f"model.learner discounts by gamma {learner.gamma}, model.discriminator by "
            f"{discriminator.gamma}; set both to the same gamma"
        )
