"""Range checks of constructor arguments, with messages that name the option.

Each function takes the owner of the options, such as `learner`, and their values by name; `None` passes.
"""

from __future__ import annotations

import math

from lit_imitation.errors import ConfigError


def check_at_least(owner: str, least: float, **values: float | None) -> None:
    """Raise `ConfigError` unless each value is `least` or more."""
    for name, value in values.items():
        if value is not None and not value >= least:
            raise ConfigError(f"{owner}.{name} is {value}; it must be at least {least:g}")


def check_between(owner: str, low: float, high: float, **values: float | None) -> None:
    """Raise `ConfigError` unless each value lies in [`low`, `high`]."""
    for name, value in values.items():
        if value is not None and not low <= value <= high:
            raise ConfigError(f"{owner}.{name} is {value}; it must lie in [{low:g}, {high:g}]")


def check_positive(owner: str, **values: float | None) -> None:
    """Raise `ConfigError` unless each value is above 0."""
    for name, value in values.items():
        if value is not None and not value > 0.0:
            raise ConfigError(f"{owner}.{name} is {value}; it must be above 0")


def check_weights(owner: str, **values: float | None) -> None:
    """Raise `ConfigError` unless each value is 0 or more, and finite."""
    for name, value in values.items():
        if value is not None and not 0.0 <= value < math.inf:
            raise ConfigError(f"{owner}.{name} is {value}; it must be 0 or more, and finite")


def check_finite(owner: str, **values: float | None) -> None:
    """Raise `ConfigError` unless each value is finite."""
    for name, value in values.items():
        if value is not None and not math.isfinite(value):
            raise ConfigError(f"{owner}.{name} is {value}; it must be finite")
