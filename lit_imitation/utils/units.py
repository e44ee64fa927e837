"""In which units a network writes, and reads, continuous actions."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

ABSURD = 1e6
"""Half-widths from which bounds are a formality (`1e10`, float32's largest number) and say nothing of the actions."""
USED = 0.05
"""Demonstrations that use less of the range than this give the units themselves."""
ORDINARY = 100.0
"""Half-width up to which the bounds give the units of a dimension in which demonstrations never vary."""


class Units(NamedTuple):
    """An action a is written as u = (a − center) / scale, each field `[act_dim]`."""

    center: NDArray[np.float64]
    scale: NDArray[np.float64]
    ranged: NDArray[np.bool_]
    """Whether u ∈ [−1, 1] is the box itself; elsewhere the bounds do nothing but clip."""


def action_units(space: Box, used: NDArray[Any] | None = None, room: float = 1.0) -> Units:
    """The units of a box of actions: by its bounds, and where these say nothing by the actions that are used.

    A dimension with two finite bounds has their middle as center and half their distance as scale. One with an infinite
    or an absurd bound (`ABSURD`) has scale 1, and as center the number nearest to 0 that is 1 inside the bounds. Where
    demonstrated actions use less than a twentieth of the range (`USED`), or there is none, their middle is the center
    and half their range times `room` the scale.

    Args:
        space: the box.
        used: demonstrated actions, `[N, *act]`.
        room: factor on the scale of what is used.
    """
    low, high = space.low.astype(np.float64).ravel(), space.high.astype(np.float64).ravel()
    with np.errstate(invalid="ignore", over="ignore"):
        half, middle = (high - low) / 2, (low + high) / 2
    ranged = np.isfinite(half) & (half < ABSURD)
    center = np.where(ranged, middle, np.clip(0.0, low + 1.0, high - 1.0))
    scale = np.where(ranged & (half > 0.0), half, 1.0)  # a dimension with one value only has no scale
    if used is None or not len(used):
        return Units(center, scale, ranged)
    used = used.reshape(len(used), -1).astype(np.float64)
    lowest, highest = used.min(0), used.max(0)
    spread, between = (highest - lowest) / 2, (lowest + highest) / 2
    constant = spread <= 1e-6 * np.maximum(1.0, np.abs(between))
    narrow = ~ranged | ((spread < USED * half) & ~(constant & (half <= ORDINARY)))
    spread = np.where(constant, 1.0, spread)
    return Units(np.where(narrow, between, center), np.where(narrow, room * spread, scale), ranged & ~narrow)
