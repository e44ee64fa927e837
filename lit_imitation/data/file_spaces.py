"""Spaces without an environment: inferred from demonstrations, or given as plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from gymnasium import Space
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

from lit_imitation.data.checks import check_numeric, check_rows
from lit_imitation.data.columns import Array, Columns
from lit_imitation.errors import ConfigError, DemonstrationError, UnsupportedSpaceError
from lit_imitation.transitions import Transitions
from lit_imitation.utils.spaces import FlatBox

SpaceArguments: TypeAlias = dict[str, str | int | float | list]  # type: ignore[type-arg]
"""A space as plain data: `{"type": "Box", "low": -1, "high": 1, "shape": [2]}` or `{"type": "Discrete", "n": 4}`."""

MOST_CHOICES = 2**16
"""Largest number of values of a discrete action or observation; more are measurements, not choices."""
_KEYS = {
    "Box": ("low", "high", "shape", "dtype"),
    "Discrete": ("n", "start"),
    "MultiDiscrete": ("nvec", "start"),
    "MultiBinary": ("n",),
}


# Inferred


def infer_spaces(
    sources: Sequence[Columns],
    observation_space: Space[Any] | None = None,
    action_space: Space[Any] | None = None,
) -> tuple[Space[Any], Space[Any]]:
    """Observation and action space of demonstrations, from shapes, dtypes, and the largest whole numbers.

    | column | observation space | action space |
    |---|---|---|
    | floats `[N, *shape]` | Box of `shape` without bounds | Box of `shape` without bounds |
    | uint8 `[N, *shape]` | Box of `shape` from 0 to 255 | as other whole numbers |
    | whole numbers `[N]` or `[N, 1]` | Discrete(max + 1); without bounds if one is negative | Discrete(max + 1) |
    | whole numbers `[N, k]` | Box without bounds | MultiDiscrete(max + 1 of each column) |
    | bools `[N, *shape]` | MultiBinary | refused |
    | several observations | `flat_space` of a Dict of them, see `to_columns` | |

    A row of one number without an axis has shape `[1]`. The range of continuous actions does not become their bounds:
    it is not the range that the robot can do, and other recordings of it would not fit. Policies fit their units to it
    (`lit_imitation.utils.units.action_units`).

    Args:
        sources: Columns of one or several files with the same kind of rows; the first one decides dtypes and shapes.
        observation_space: Space of the observations if it is known, which is returned.
        action_space: Space of the actions if it is known, which is returned.

    Raises:
        DemonstrationError: A column is empty, holds no numbers, or holds whole numbers that cannot be choices.
        UnsupportedSpaceError: Actions are whole numbers with more than one axis.
    """
    for columns in sources:
        check_rows(columns)
        for key in ("observations", "actions"):
            array = columns.arrays[key]
            if key == "actions" or array.dtype.kind != "b":
                check_numeric(key, array, columns)
            if 0 in array.shape[1:]:
                raise DemonstrationError(
                    f"{columns.where(key, None)} has shape {list(array.shape)}: its rows are empty"
                )
    return observation_space or _observation_space(sources), action_space or _action_space(sources)


def _observation_space(sources: Sequence[Columns]) -> Space[Any]:
    first = sources[0].arrays["observations"]
    if (found := sources[0].observation_space) is not None:
        for columns in sources[1:]:
            own = columns.observation_space
            if own is None or own.parts != found.parts or type(own) is not type(found):
                raise DemonstrationError(
                    f"{columns.where('observations', None)} holds {_name(own) if own else 'one observation'}, but "
                    f"{sources[0].where('observations', None)} holds {_name(found)}: all files need the same; "
                    "data.observation_keys chooses some"
                )
        return found
    shape = first.shape[1:] or (1,)
    if first.dtype.kind == "b":
        return MultiBinary(shape if len(shape) > 1 else shape[0])
    if first.dtype == np.uint8:
        return Box(0, 255, shape, np.uint8)
    if first.dtype.kind in "iu" and shape == (1,):
        least, most = _extremes("observations", sources)
        if least.min() >= 0 and most.max() < MOST_CHOICES:
            return Discrete(int(most.max()) + 1)
    return Box(-np.inf, np.inf, shape, np.float32)


def _action_space(sources: Sequence[Columns]) -> Space[Any]:
    columns = sources[0]
    first = columns.arrays["actions"]
    shape = first.shape[1:] or (1,)
    if first.dtype.kind == "f":
        return Box(-np.inf, np.inf, shape, np.float32)
    if len(shape) > 1:
        raise UnsupportedSpaceError(
            f"{columns.where('actions', None)} holds {first.dtype} {list(first.shape)}; choices must be [N] or [N, k]. "
            "If these are quantities, write floats: actions.astype(np.float32)"
        )
    least, most = _extremes("actions", sources)
    if least.min() < 0 or most.max() >= MOST_CHOICES:
        raise DemonstrationError(
            f"{columns.where('actions', None)} holds whole numbers from {int(least.min())} to {int(most.max())}, and "
            f"choices are numbered from 0 to at most {MOST_CHOICES - 1}. If these are quantities, write floats: "
            "actions.astype(np.float32); if they are choices, set data.action_space: {type: Discrete, n: …, start: …}"
        )
    counts = most.astype(np.int64) + 1
    return Discrete(int(counts[0])) if shape == (1,) else MultiDiscrete(counts)


def _extremes(key: str, sources: Sequence[Columns]) -> tuple[Array, Array]:
    """Least and largest values `[k]` of the columns of a key."""
    arrays = [columns.arrays[key] for columns in sources]
    rows = [array.reshape(len(array), -1) for array in arrays]
    width = rows[0].shape[1]
    same = [row for row in rows if row.shape[1] == width]  # reading reports the others
    with np.errstate(invalid="ignore"):
        least = np.min([np.nan_to_num(row).min(0) for row in same], 0)
        return least, np.max([np.nan_to_num(row).max(0) for row in same], 0)


# Given


def space_of(given: Mapping[str, Any], name: str) -> Space[Any]:
    """Space from plain data, as `lit_imitation.utils.spaces.space_to_dict` writes it, with defaults.

    `Box` takes `shape`, `low` and `high` (a number for all, or nested lists; by default the range of the dtype) and
    `dtype` (float32); `Discrete` takes `n` and `start` (0); `MultiDiscrete` takes `nvec` and `start`; `MultiBinary`
    takes `n`.

    Args:
        given: Plain data with the key `type`.
        name: Name of the setting, for messages.

    Raises:
        ConfigError: The data do not describe such a space.
    """
    kind = given.get("type")
    if kind not in _KEYS:
        raise ConfigError(f"{name} has type {kind!r}; choose {', '.join(_KEYS)}")
    if unknown := [key for key in given if key not in ("type", *_KEYS[kind])]:
        raise ConfigError(f"{name} has {unknown[0]!r}; a {kind} takes {', '.join(_KEYS[kind])}")
    arguments = {key: value for key, value in given.items() if key != "type"}
    try:
        if kind == "Box":
            return _box(**arguments)
        counts = np.asarray(arguments["nvec" if kind == "MultiDiscrete" else "n"])
        start = np.asarray(arguments.get("start", 0))
        if counts.dtype.kind not in "iu" or start.dtype.kind not in "iu" or counts.min() < 1:
            raise ValueError("sizes must be whole numbers above 0, and start whole numbers")
        size = counts.sum() if kind == "MultiDiscrete" else math.prod(counts.ravel().tolist())
        if size > MOST_CHOICES or np.abs(start).max() > 2**53:
            raise ValueError(f"it has more than {MOST_CHOICES} values")
        if kind == "Discrete":
            return Discrete(int(counts), start=int(start))
        if kind == "MultiDiscrete":
            return MultiDiscrete(counts, start=np.broadcast_to(start, counts.shape))
        return MultiBinary(counts.tolist())
    except KeyError as error:
        raise ConfigError(f"{name} lacks {error}; a {kind} takes {', '.join(_KEYS[kind])}") from error
    except (TypeError, ValueError, AssertionError, OverflowError) as error:
        raise ConfigError(f"{name} is no {kind}: {' '.join(str(error).split()):.200}") from error


def _box(shape: Any = None, low: Any = None, high: Any = None, dtype: str = "float32") -> Box:
    kind = np.dtype(dtype)
    if kind.kind not in "fiu":
        raise ValueError(f"its dtype is {kind}, which is not a dtype of numbers")
    least, most = (-np.inf, np.inf) if kind.kind == "f" else (np.iinfo(kind).min, np.iinfo(kind).max)
    bounds = [np.asarray(default if bound is None else bound) for bound, default in ((low, least), (high, most))]
    sizes = np.broadcast_shapes(*(bound.shape for bound in bounds)) if shape is None else tuple(map(int, shape))
    if not sizes or min(sizes) < 1 or math.prod(sizes) > 2**27:
        raise ValueError(f"its shape is {list(sizes)}; give one like shape: [7]")
    if any(bound.dtype.kind not in "fiu" or np.isnan(bound).any() for bound in bounds):
        raise ValueError("low and high must be numbers")
    lower, upper = (np.broadcast_to(bound, sizes).astype(kind) for bound in bounds)
    if (lower > upper).any():
        raise ValueError("low is above high")
    return Box(lower, upper, dtype=kind.type)


# Described


def check_varied(transitions: Transitions, source: str) -> None:
    """Check that the actions differ somewhere.

    Raises:
        DemonstrationError: They are the same in all rows.
    """
    action = transitions.action
    if bool((action == action[:1]).all()):
        value = action[0].tolist()
        raise DemonstrationError(
            f"{source}: 'actions' is {value!s:.80} in all {len(action)} training rows, so there is nothing to learn: "
            "was another column recorded?"
        )


def describe_seen(transitions: Transitions, observation_space: Space[Any], action_space: Space[Any]) -> str:
    """Describe what demonstrations hold: `observations are 11 numbers, actions 4 choices, of which 3 occur`."""
    action = transitions.action.reshape(len(transitions), -1)
    text = f"observations are {_name(observation_space)}, actions {_name(action_space)}"
    if isinstance(action_space, Box):
        text += f" from {float(action.min()):.4g} to {float(action.max()):.4g}"
        constant = (action == action[:1]).all(0).nonzero().flatten().tolist()
        if constant:
            text += f", constant in column {', '.join(map(str, constant[:8]))}{', …' if len(constant) > 8 else ''}"
        if action.shape[1] == 1 and bool((action == action.round()).all()) and len(np.unique(action.numpy())) <= 20:
            text += " (whole numbers stored as floats: if they are choices, set data.action_space to a Discrete)"
    elif isinstance(action_space, Discrete):
        text += f", of which {len(np.unique(action.numpy()))} occur"
    return text


def _name(space: Space[Any]) -> str:
    if isinstance(space, FlatBox):
        return ", ".join(f"{part.path} ({_name(part.space)})" for part in space.parts)
    if isinstance(space, Discrete):
        return f"{space.n} choices"
    if isinstance(space, MultiDiscrete):
        return f"{' × '.join(map(str, space.nvec.ravel().tolist()))} choices"
    if isinstance(space, MultiBinary):
        return f"{math.prod(space.shape)} bits"
    shape = space.shape or ()
    numbers = f"{shape[0]} number{'s' * (shape[0] > 1)}" if len(shape) == 1 else f"arrays {list(shape)}"
    return f"{numbers} of uint8" if space.dtype == np.uint8 else numbers
