"""Checks of columns against an environment's spaces; a column that passes becomes part of `Transitions`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

from lit_imitation.data.columns import Array, Columns
from lit_imitation.errors import DemonstrationError, UnsupportedSpaceError
from lit_imitation.transitions import Transitions
from lit_imitation.utils.spaces import PackedBox, float32_bounds

FIELDS = {
    "observations": "observation",
    "actions": "action",
    "rewards": "reward",
    "terminals": "terminated",
    "timeouts": "truncated",
    "next_observations": "next_observation",
    "weights": "weight",
}
"""Fields of `Transitions` by their keys in D4RL files; `weights` is ours."""

ACTION_TOLERANCE = 1e-5
"""Distance outside its bounds up to which an action is clipped, as a fraction of the range: rounding errors."""


def transitions_of(
    columns: Columns, observation_space: gymnasium.Space[Any], action_space: gymnasium.Space[Any]
) -> Transitions:
    """Check columns, and convert them to transitions with the dtypes and shapes that `Transitions` names."""
    check_rows(columns)
    arrays, length = columns.arrays, len(columns.arrays["observations"])
    fitted: dict[str, Array] = {
        "observation": _fit("observations", columns, observation_space),
        "action": _fit("actions", columns, action_space),
        "reward": _scalars("rewards", columns) if "rewards" in arrays else np.zeros(length, np.float32),
        "terminated": _flags("terminals", columns),
        "truncated": _flags("timeouts", columns),
    }
    if isinstance(action_space, Box):
        fitted["action"] = _bounded(fitted["action"], columns, action_space)
    if "next_observations" in arrays:
        fitted["next_observation"] = _fit("next_observations", columns, observation_space)
    if "weights" in arrays:
        fitted["weight"] = weights = _scalars("weights", columns)
        _no_row("weights", weights < 0, columns, lambda row: f"is {weights[row]}; weights must be at least 0")
        if not weights.any():
            raise DemonstrationError(
                f"{columns.where('weights', None)} is 0 in all {length} rows: at least one must be positive"
            )
    if not (fitted["terminated"][-1] or fitted["truncated"][-1]):
        ends = np.flatnonzero(fitted["terminated"] | fitted["truncated"])
        none = f"there is no episode end in any of its {length} rows" if not len(ends) else "no episode end"
        drop = f", or drop the rows after {ends[-1]}, the last episode end" if len(ends) else ""
        raise DemonstrationError(
            f"{columns.where('timeouts', length - 1)} (the last): {none}, neither in 'terminals' nor in 'timeouts'. "
            f"Every trajectory must end: set 'timeouts' at its last row if recording just stopped there{drop}"
        )
    return Transitions.from_numpy(fitted)


def check_rows(columns: Columns) -> None:
    """Check that there are transitions, and that every column has one row for each of them."""
    arrays = columns.arrays
    per_row = [key for key in FIELDS if key in arrays]
    for key in per_row:
        if arrays[key].ndim == 0:
            raise DemonstrationError(f"{columns.where(key, None)} is a single value; one per row is needed")
    length = len(arrays["observations"])
    if length == 0:
        raise DemonstrationError(f"{columns.where('observations', None)} holds no transitions (0 rows)")
    for key in per_row:
        if len(arrays[key]) != length:
            raise DemonstrationError(
                f"{columns.where(key, None)} has {len(arrays[key])} rows, but 'observations' has {length}: "
                "lengths differ, and every key needs one row per transition"
            )


def _fit(key: str, columns: Columns, space: gymnasium.Space[Any]) -> Array:
    """A column of observations or actions in the dtype and shape of its space."""
    array = columns.arrays[key]
    if not isinstance(space, Box | Discrete | MultiDiscrete | MultiBinary) or (
        key == "actions" and isinstance(space, MultiBinary)
    ):
        kinds = (
            "Box, Discrete and MultiDiscrete" if key == "actions" else "Box, Discrete, MultiDiscrete and MultiBinary"
        )
        raise UnsupportedSpaceError(f"{columns.where(key, None)} is for {space}; only {kinds} can be read")
    if array.dtype.kind == "b" and key != "actions":
        array = array.astype(np.uint8)
    check_numeric(key, array, columns)
    shape = (len(array), *(space.shape or ()))
    single = space.shape in ((), (1,)) and array.shape in ((len(array),), (len(array), 1))
    if array.shape != shape and not single:
        raise DemonstrationError(
            f"{columns.where(key, None)} has shape {list(array.shape)}, but {space} needs {list(shape)}: "
            "are these demonstrations of another environment?"
        )
    array = array.reshape(shape)
    if isinstance(space, PackedBox):
        return _parts(key, array, columns, space)
    if isinstance(space, Discrete | MultiDiscrete | MultiBinary):
        return _choices(key, array, columns, space)
    if space.dtype == np.uint8 and key != "actions":
        if array.dtype.kind not in "iu":
            raise DemonstrationError(
                f"{columns.where(key, None)} holds {array.dtype}; this environment's observations are uint8: "
                "write them unchanged, 0 to 255"
            )
        if array.dtype != np.uint8:
            outside = (array < 0) | (array > 255)
            _no_row(key, outside, columns, lambda row: "is not in 0 to 255, the range of uint8 observations")
        return array.astype(np.uint8, copy=False)
    return finite(key, array, np.float32, columns)


def _parts(key: str, array: Array, columns: Columns, space: PackedBox) -> Array:
    """Packed observations `[N, bytes]`, whose parts are finite numbers and choices of their spaces."""
    if array.dtype != np.uint8:
        raise DemonstrationError(f"{columns.where(key, None)} holds {array.dtype}, but packed observations are uint8")
    for part in space.parts:

        def where(key: str, row: int | None, path: str = part.path) -> str:
            return f"{columns.where(key, row)}, part '{path}'"

        named = columns._replace(where=where)
        if part.dtype.kind == "f":
            finite(key, part.from_bytes(array), np.float32, named)
        elif isinstance(part.space, Discrete | MultiDiscrete | MultiBinary):
            _choices(key, part.from_bytes(array), named, part.space)
    return array


def _choices(key: str, array: Array, columns: Columns, space: Discrete | MultiDiscrete | MultiBinary) -> Array:
    """`[N]` or `[N, *components]` int64, each a value of the space; float arrays may hold whole numbers."""
    if array.dtype.kind == "f":
        array = finite(key, array, array.dtype, columns)
        _no_row(key, array != np.floor(array), columns, lambda row: f"is {array[row]}; {space} has only whole numbers")
    low: Any = 0
    high: Any = 1
    if not isinstance(space, MultiBinary):
        low, high = space.start, space.start + (space.n if isinstance(space, Discrete) else space.nvec) - 1
    outside = (array < low) | (array > high)
    _no_row(
        key,
        outside,
        columns,
        lambda row: f"is {array[row].tolist()}, outside {space}, whose values are {low} to {high}",
    )
    return array.astype(np.int64, copy=False)


def _bounded(actions: Array, columns: Columns, space: Box) -> Array:
    """Actions inside their box: clipped if they are outside by rounding errors, refused if by more."""
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    width = high - low
    slack = ACTION_TOLERANCE * np.where(np.isfinite(width), width, 1.0)
    outside = (actions < low - slack) | (actions > high + slack)
    if outside.any():
        row, *column = np.unravel_index(int(outside.argmax()), actions.shape)
        value, bounds = actions[(row, *column)], (space.low[tuple(column)], space.high[tuple(column)])
        raise DemonstrationError(
            f"{columns.where('actions', int(row))}{_column(column)} is {value}, outside the action space, "
            f"[{bounds[0]}, {bounds[1]}] in this column. Convert the actions to the environment's units; if the "
            "environment clipped them during recording, clip them too: np.clip(actions, low, high)"
        )
    return np.clip(actions, *float32_bounds(space))


def _scalars(key: str, columns: Columns) -> Array:
    """`[N]` float32, finite."""
    array = column_of(columns.arrays[key])
    check_numeric(key, array, columns)
    if array.ndim != 1:
        raise DemonstrationError(
            f"{columns.where(key, None)} has shape {list(array.shape)}; one number per row is needed"
        )
    return finite(key, array, np.float32, columns)


def _flags(key: str, columns: Columns) -> Array:
    """`[N]` bool, from bools or from numbers 0 and 1."""
    array = column_of(columns.arrays[key])
    if array.ndim != 1:
        raise DemonstrationError(
            f"{columns.where(key, None)} has shape {list(array.shape)}; one flag per row is needed"
        )
    if array.dtype.kind != "b":
        check_numeric(key, array, columns)
        _no_row(key, (array != 0) & (array != 1), columns, lambda row: f"is {array[row]}; a flag must be 0 or 1")
    return array.astype(np.bool_, copy=False)


def column_of(array: Array) -> Array:
    """`[N, 1]` as `[N]`; other shapes unchanged."""
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def check_numeric(key: str, array: Array, columns: Columns) -> None:
    """Raise an error unless a column holds real numbers."""
    if array.dtype.kind not in "iuf":
        raise DemonstrationError(f"{columns.where(key, None)} holds {array.dtype}; numbers are needed")


def finite(key: str, array: Array, dtype: Any, columns: Columns) -> Array:
    """Cast to another precision, and refuse values that are NaN, infinite, or too large for it."""
    with np.errstate(over="ignore"):
        cast = array.astype(dtype, copy=False)
    finite = np.isfinite(cast)
    if not finite.all():
        row, *column = np.unravel_index(int((~finite).argmax()), array.shape)
        raise DemonstrationError(
            f"{columns.where(key, int(row))}{_column(column)} is {array[(row, *column)]}, which is not finite in "
            f"{cast.dtype}: correct it or leave its trajectory out"
        )
    return cast


def _no_row(key: str, bad: Array, columns: Columns, text: Callable[[int], str]) -> None:
    """Raise for the first row that `bad` `[N, ...]` marks, with the text for that row."""
    if bad.any():
        row = int(np.unravel_index(int(bad.argmax()), bad.shape)[0])
        raise DemonstrationError(f"{columns.where(key, row)} {text(row)}")


def _column(index: list[Any]) -> str:
    """Position within a row, for messages; empty if a row is one number."""
    return f", column {', '.join(map(str, index))}" if index else ""
