"""Units of continuous actions inside a network."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

MAX_HALF_WIDTH = 1e6
"""Half-width from which bounds are ignored: `1e10` or the largest float32 say nothing about the actions."""
MIN_USED_SHARE = 0.05
"""Share of the range below which the demonstrated actions define the units."""
ORDINARY_HALF_WIDTH = 100.0
"""Half-width up to which the bounds define the units of a dimension in which demonstrations are constant."""


class Units(NamedTuple):
    """Affine map u = (a − center) / scale from actions to network units; each field is `[act_dim]`."""

    center: NDArray[np.float64]
    scale: NDArray[np.float64]
    bounded: NDArray[np.bool_]
    """Whether u ∈ [−1, 1] is exactly the box; otherwise the bounds only clip."""


def action_units(space: Box, used: NDArray[Any] | None = None, range_factor: float = 1.0) -> Units:
    """Units of a box of actions, from its bounds or, where these are not informative, from demonstrated actions.

    A dimension with two finite bounds is centered at their middle and scaled by half their distance. With an infinite
    or huge bound (`MAX_HALF_WIDTH`), the scale is 1 and the center is the number nearest to 0 that lies 1 inside the
    bounds. If demonstrated actions use less than 1/20 of the range (`MIN_USED_SHARE`), or the range is infinite, their
    middle is the center and half their range times `range_factor` the scale.

    Args:
        space: Box of actions.
        used: `[N, *act]` demonstrated actions.
        range_factor: Factor on the scale of demonstrated actions.
    """
    low, high = space.low.astype(np.float64).ravel(), space.high.astype(np.float64).ravel()
    with np.errstate(invalid="ignore", over="ignore"):
        half, middle = (high - low) / 2, (low + high) / 2
    bounded = np.isfinite(half) & (half < MAX_HALF_WIDTH)
    center = np.where(bounded, middle, np.clip(0.0, low + 1.0, high - 1.0))
    scale = np.where(bounded & (half > 0.0), half, 1.0)  # low = high gives no scale
    if used is None or not len(used):
        return Units(center, scale, bounded)
    used = used.reshape(len(used), -1).astype(np.float64)
    lowest, highest = used.min(0), used.max(0)
    spread, between = (highest - lowest) / 2, (lowest + highest) / 2
    constant = spread <= 1e-6 * np.maximum(1.0, np.abs(between))
    narrow = ~bounded | ((spread < MIN_USED_SHARE * half) & ~(constant & (half <= ORDINARY_HALF_WIDTH)))
    spread = np.where(constant, 1.0, spread)
    return Units(np.where(narrow, between, center), np.where(narrow, range_factor * spread, scale), bounded & ~narrow)
