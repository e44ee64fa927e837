"""Supported spaces and their serialization in checkpoints."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import gymnasium
import numpy as np
from gymnasium import Space
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from numpy.typing import NDArray

from lit_imitation.errors import UnsupportedSpaceError

Array: TypeAlias = NDArray[Any]

OBSERVATIONS = "Box, Discrete, MultiDiscrete, MultiBinary, and Dict or Tuple of these"


class Part(NamedTuple):
    """One observation of a Dict or Tuple, and where it lies in a flat row."""

    path: str
    """Keys from the outside in: `camera`, `robot/position`, or an index of a Tuple."""
    space: Space[Any]
    """Space of the observation."""
    start: int
    stop: int
    """First element of the row, and the one after the last."""
    dtype: np.dtype[Any]
    """Type of the stored numbers."""

    def to_bytes(self, values: Array) -> Array:
        """Bytes `[*batch, stop - start]` of values `[*batch, *shape]` in a packed row."""
        shape = self.space.shape or ()
        stored = np.ascontiguousarray(values, self.dtype)
        return stored.reshape(*values.shape[: values.ndim - len(shape)], math.prod(shape)).view(np.uint8)

    def from_bytes(self, rows: Array) -> Array:
        """Values `[*batch, *shape]` in the space's dtype from packed rows `[*batch, bytes]`: inverse of `to_bytes`."""
        stored = rows[..., self.start : self.stop].view(self.dtype)
        return stored.reshape(*rows.shape[:-1], *(self.space.shape or ())).astype(self.space.dtype, copy=False)


class FlatBox(Box):
    """Box of flattened Dict or Tuple observations that remembers the original space.

    Args:
        original: Dict or Tuple space to flatten.

    Raises:
        UnsupportedSpaceError: Two parts have the same path, such as `a/b` and the `b` of `a`.
    """

    parts: tuple[Part, ...]
    """Parts of the original space in its order, and where they lie."""

    def __init__(self, original: Dict | Tuple[Any]) -> None:
        flat = gymnasium.spaces.flatten_space(original)
        assert isinstance(flat, Box)
        assert flat.dtype is not None
        super().__init__(flat.low, flat.high, dtype=flat.dtype.type)
        self.original = original
        leaves = list(leaf_spaces(original))
        ends = np.cumsum([gymnasium.spaces.flatdim(space) for _, space in leaves]).tolist()
        self.parts = tuple(
            Part(path, space, start, stop, flat.dtype)
            for (path, space), start, stop in zip(leaves, [0, *ends], ends, strict=False)
        )

    def flatten(self, observation: Any) -> Array:
        """Flatten observations of the original space.

        Args:
            observation: One observation, or a batch of them.

        Returns:
            `[*shape]` for one observation, `[B, *shape]` for a batch.

        Raises:
            ValueError: A part is missing, or its shape fits neither one observation nor a batch.
        """
        return _flatten(self.original, observation, "observation")

    def unflatten(self, observation: Array) -> Any:
        """Vectors `[B, *shape]` back to a batch of the original space, each part in its own dtype and shape."""
        return _unflatten(self.original, observation)


class PackedBox(FlatBox):
    """Rows of bytes of Dict or Tuple observations with images, so that an image takes its own bytes and no more.

    A row holds whole numbers of Discrete and MultiDiscrete parts (int64), then the numbers of Boxes (float32), then
    images and other parts of bytes, and ends with padding to a multiple of 8 bytes. A slice of a row is therefore a
    view of a part, on any device.

    Args:
        original: Dict or Tuple space.

    Raises:
        UnsupportedSpaceError: Two parts have the same path.
    """

    def __init__(self, original: Dict | Tuple[Any]) -> None:
        self.original = original
        stored = [(path, space, _stored_type(space)) for path, space in leaf_spaces(original)]
        places, stop = {}, 0
        for path, space, dtype in sorted(stored, key=lambda one: -one[2].itemsize):
            start, stop = stop, stop + math.prod(space.shape or ()) * dtype.itemsize
            places[path] = Part(path, space, start, stop, dtype)
        self.parts = tuple(places[path] for path, _, _ in stored)
        Box.__init__(self, 0, 255, (-(-stop // 8) * 8,), np.uint8)

    def flatten(self, observation: Any) -> Array:
        """Pack observations of the original space into bytes.

        Args:
            observation: One observation, or a batch of them.

        Returns:
            `[bytes]` for one observation, `[B, bytes]` for a batch.

        Raises:
            ValueError: A part is missing, its shape fits neither one observation nor a batch, a number is not finite,
                or bytes are not whole numbers from 0 to 255.
        """
        values = list(_leaf_values(self.original, observation, "observation"))
        rows = [_checked_part(part, value, where) for part, (where, value) in zip(self.parts, values, strict=True)]
        if len({row.shape[:-1] for row in rows}) > 1:
            raise ValueError(f"observation has parts with {[list(row.shape[:-1]) for row in rows]} rows; {_EQUAL}")
        packed = np.zeros((*rows[0].shape[:-1], *self.shape), np.uint8)
        for part, row in zip(self.parts, rows, strict=True):
            packed[..., part.start : part.stop] = row
        return packed

    def unflatten(self, observation: Array) -> Any:
        """Bytes `[B, bytes]` back to a batch of the original space, each part in its own dtype and shape."""
        values = iter([part.from_bytes(np.ascontiguousarray(observation)) for part in self.parts])

        def rebuild(space: Space[Any]) -> Any:
            if isinstance(space, Dict):
                return {key: rebuild(inner) for key, inner in space.spaces.items()}
            return tuple(map(rebuild, space.spaces)) if isinstance(space, Tuple) else next(values)

        return rebuild(self.original)

    def __eq__(self, other: object) -> bool:
        """Whether the other has the same parts in the same places."""
        return isinstance(other, PackedBox) and self.parts == other.parts

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """The original space: its parts say more than a number of bytes."""
        return repr(self.original)


def flat_space(original: Dict | Tuple[Any]) -> FlatBox:
    """Space of flat observations: bytes if a part is an image, else one vector."""
    return PackedBox(original) if has_pictures(original) else FlatBox(original)


def has_pictures(original: Dict | Tuple[Any]) -> bool:
    """Whether a part of a Dict or Tuple is kept apart as an image."""
    return any(isinstance(space, Box) and is_picture(space.shape, space.dtype) for _, space in leaf_spaces(original))


def is_picture(shape: tuple[int, ...], dtype: Any) -> bool:
    """Whether an observation among several is kept apart as an image: three or more axes, or two axes of bytes."""
    return len(shape) >= 3 or (len(shape) == 2 and dtype == np.uint8)


def leaf_spaces(space: Space[Any]) -> Iterator[tuple[str, Space[Any]]]:
    """Parts of a Dict or Tuple space by path, in its order: `a/b` for the part `b` of `a`.

    Raises:
        UnsupportedSpaceError: Two parts have the same path.
    """
    found: dict[str, Space[Any]] = {}
    for path, inner in _walk(space, ""):
        if path in found:
            raise UnsupportedSpaceError(f"the observation space {space} has two parts named '{path}': rename one")
        found[path] = inner
    return iter(found.items())


def _walk(space: Space[Any], prefix: str) -> Iterator[tuple[str, Space[Any]]]:
    if isinstance(space, Dict | Tuple):
        inner = space.spaces.items() if isinstance(space, Dict) else enumerate(space.spaces)
        for key, part in inner:
            yield from _walk(part, f"{prefix}/{key}" if prefix else str(key))
    else:
        yield prefix, space


def _stored_type(space: Space[Any]) -> np.dtype[Any]:
    """Type of a part in a packed row."""
    if isinstance(space, MultiBinary) or (isinstance(space, Box) and space.dtype == np.uint8):
        return np.dtype(np.uint8)
    return np.dtype(np.float32 if isinstance(space, Box) else np.int64)


def _inner(space: Dict | Tuple[Any], value: Any, where: str) -> list[tuple[Space[Any], Any, str]]:
    """Space, value and name of each part of an observation."""
    if isinstance(space, Dict):
        if not isinstance(value, Mapping):
            raise ValueError(f"{where} is a {type(value).__name__}; expected a dictionary of {list(space.spaces)}")
        if missing := [key for key in space.spaces if key not in value]:
            raise ValueError(f"{where} has no {missing[0]!r}; expected keys {list(space.spaces)}, got {list(value)}")
        return [(inner, value[key], f"{where}[{key!r}]") for key, inner in space.spaces.items()]
    if not isinstance(value, tuple | list) or len(value) != len(space.spaces):
        raise ValueError(f"{where} is {value!r:.100}; expected a tuple of {len(space.spaces)}")
    return [(inner, value[i], f"{where}[{i}]") for i, inner in enumerate(space.spaces)]


def _leaf_values(space: Space[Any], value: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Name and value of each leaf of an observation, in the order of `leaf_spaces`."""
    if isinstance(space, Dict | Tuple):
        for inner, one, name in _inner(space, value, where):
            yield from _leaf_values(inner, one, name)
    else:
        yield where, value


def _as_array(space: Space[Any], value: Any, where: str) -> tuple[Array, bool]:
    """A leaf of an observation as an array, and whether it is a batch."""
    array, shape = np.asarray(value), space.shape or ()
    batched = array.ndim == len(shape) + 1
    if array.shape[batched:] != shape:
        raise ValueError(
            f"{where} has shape {list(array.shape)}; expected {list(shape)}, or [B, …] with a batch axis first"
        )
    return array, batched


def _checked_part(part: Part, value: Any, where: str) -> Array:
    """Bytes `[size]` or `[B, size]` of a leaf of an observation."""
    array, _ = _as_array(part.space, value, where)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{where} holds {array.dtype}; expected real numbers")
    if part.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise ValueError(f"{where} is not finite: {array[~np.isfinite(array)].flat[0]}")
    elif array.dtype != part.dtype and array.dtype.kind != "b":
        limits = np.iinfo(part.dtype)
        if array.dtype.kind == "f" or (array.size and (array.min() < limits.min or array.max() > limits.max)):
            raise ValueError(f"{where} holds {array.dtype}; {part.space} needs {part.dtype}")
    return part.to_bytes(array)


_EQUAL = "they must be equal"


def _flatten(space: Space[Any], value: Any, where: str) -> Array:
    """Flatten `value` to a vector `[d]` or `[B, d]`, in the order of `gymnasium.spaces.flatten`."""
    if isinstance(space, Dict | Tuple):
        parts = [_flatten(inner, one, name) for inner, one, name in _inner(space, value, where)]
    else:
        array, batched = _as_array(space, value, where)
        if isinstance(space, Box):
            return array.reshape(*array.shape[:batched], -1)
        rows = [gymnasium.spaces.flatten(space, one) for one in (array if batched else array[None])]
        flat = np.asarray(rows).reshape(len(array) if batched else 1, gymnasium.spaces.flatdim(space))
        return flat if batched else flat[0]
    if len({part.shape[:-1] for part in parts}) > 1:
        raise ValueError(f"{where} has parts with {[list(part.shape[:-1]) for part in parts]} rows; {_EQUAL}")
    return np.concatenate(parts, -1)


def _unflatten(space: Space[Any], flat: Array) -> Any:
    """A batch of `space` from `[B, d]`, the inverse of `_flatten`."""
    if isinstance(space, Dict | Tuple):
        spaces = list(space.spaces.values()) if isinstance(space, Dict) else list(space.spaces)
        ends = np.cumsum([gymnasium.spaces.flatdim(inner) for inner in spaces])[:-1]
        parts = [_unflatten(inner, part) for inner, part in zip(spaces, np.split(flat, ends, axis=1), strict=True)]
        return dict(zip(space.spaces, parts, strict=True)) if isinstance(space, Dict) else tuple(parts)
    if isinstance(space, Discrete):
        return (flat.argmax(axis=1) + space.start).astype(space.dtype)
    if isinstance(space, MultiDiscrete):
        codes = np.split(flat, np.cumsum(space.nvec.reshape(-1))[:-1], axis=1)
        values = np.stack([code.argmax(axis=1) for code in codes], axis=1).reshape(len(flat), *space.shape)
        return (values + space.start).astype(space.dtype)
    return flat.reshape(len(flat), *(space.shape or ())).astype(space.dtype)


def is_flattenable(space: Space[Any]) -> bool:
    """Whether a Dict or Tuple holds only Box, Discrete, MultiDiscrete and MultiBinary parts, at any depth."""
    if isinstance(space, Dict):
        return bool(space.spaces) and all(is_flattenable(inner) for inner in space.spaces.values())
    if isinstance(space, Tuple):
        return bool(space.spaces) and all(is_flattenable(inner) for inner in space.spaces)
    return isinstance(space, Box | Discrete | MultiDiscrete | MultiBinary)


def check_spaces(observation_space: Space[Any], action_space: Space[Any], env_id: str) -> None:
    """Check that a policy can read the observations and write the actions.

    Supported observations are Box (vectors or images), Discrete, MultiDiscrete and MultiBinary; `make` has already
    flattened Dict and Tuple. Supported actions are Box, Discrete and flat MultiDiscrete.

    Raises:
        UnsupportedSpaceError: A space is not supported.
    """
    if not isinstance(observation_space, Box | Discrete | MultiDiscrete | MultiBinary):
        raise UnsupportedSpaceError(
            f"{env_id}: the observation space {observation_space} is not supported. Supported are {OBSERVATIONS}; wrap "
            "the environment so that it gives one of them."
        )
    if not isinstance(action_space, Box | Discrete | MultiDiscrete):
        raise UnsupportedSpaceError(
            f"{env_id}: the action space {action_space} is not supported. Supported are Box, Discrete and "
            "MultiDiscrete; wrap the environment so that it takes one of them."
        )
    for what, space, wrapper in (
        ("observation", observation_space, "gymnasium.wrappers.ReshapeObservation"),
        ("action", action_space, "gymnasium.wrappers.TransformAction"),
    ):
        if isinstance(space, Box | MultiDiscrete | MultiBinary) and not (space.shape and np.prod(space.shape)):
            holds = "no numbers" if space.shape else "a single number without an axis"
            raise UnsupportedSpaceError(
                f"{env_id}: the {what} space {space} has shape {list(space.shape)}, {holds}; an axis of at least one "
                f"number is needed. Wrap the environment ({wrapper}) so that it has shape [1]."
            )
    if isinstance(action_space, MultiDiscrete) and len(action_space.shape) != 1:
        raise UnsupportedSpaceError(
            f"{env_id}: the action space {action_space} has shape {list(action_space.shape)}; a MultiDiscrete has to "
            "be flat. Wrap the environment so that it takes a vector."
        )
    if isinstance(action_space, Box) and action_space.dtype is not None and action_space.dtype.kind != "f":
        raise UnsupportedSpaceError(
            f"{env_id}: the action space {action_space} is a Box of {action_space.dtype}, which is not supported. Wrap "
            "the environment so that it takes a Box of floats, a Discrete or a MultiDiscrete."
        )


def float32_bounds(space: Box) -> tuple[Array, Array]:
    """Lowest and highest float32 values `[*shape]` inside the box.

    Rounding a float64 bound to float32 may leave the box: `float32(0.1) > 0.1`.
    """
    with np.errstate(over="ignore"):
        low, high = space.low.astype(np.float32), space.high.astype(np.float32)
        low = np.where(low < space.low, np.nextafter(low, np.float32(np.inf)), low)
        high = np.where(high > space.high, np.nextafter(high, np.float32(-np.inf)), high)
    return low, high


def example_element(space: Space[Any]) -> Array:
    """`[*shape]` example element of a Discrete, MultiDiscrete or MultiBinary space; zeros for a Box."""
    if isinstance(space, PackedBox):
        row = np.zeros(space.shape, np.uint8)
        for part in space.parts:
            row[part.start : part.stop] = part.to_bytes(example_element(part.space))
        return row
    if isinstance(space, Box):
        return np.zeros(space.shape, np.uint8 if space.dtype == np.uint8 else np.float32)
    return np.asarray(0 if isinstance(space, MultiBinary) else space.start) + np.zeros(space.shape or (), np.int64)  # type: ignore[attr-defined]


def space_to_dict(space: Space[Any]) -> dict[str, Any]:
    """Convert a space to primitives, so that a checkpoint loads with `weights_only=True`."""
    if isinstance(space, FlatBox):
        return {"type": type(space).__name__, "original": space_to_dict(space.original)}
    if isinstance(space, Dict):
        return {"type": "Dict", "spaces": [[key, space_to_dict(inner)] for key, inner in space.spaces.items()]}
    if isinstance(space, Tuple):
        return {"type": "Tuple", "spaces": [space_to_dict(inner) for inner in space.spaces]}
    if isinstance(space, Discrete):
        return {"type": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, Box):
        return {
            "type": "Box",
            "low": space.low.tolist(),
            "high": space.high.tolist(),
            "shape": list(space.shape),
            "dtype": str(space.dtype),
        }
    if isinstance(space, MultiDiscrete):
        return {"type": "MultiDiscrete", "nvec": space.nvec.tolist(), "start": space.start.tolist()}
    if isinstance(space, MultiBinary):
        return {"type": "MultiBinary", "n": int(space.n) if isinstance(space.n, int) else list(space.shape)}
    raise UnsupportedSpaceError(f"the space {space} cannot be written into a checkpoint; supported are {OBSERVATIONS}")


def space_from_dict(data: dict[str, Any]) -> Space[Any]:
    """Inverse of `space_to_dict`."""
    if data["type"] in ("FlatBox", "PackedBox"):
        return (FlatBox if data["type"] == "FlatBox" else PackedBox)(space_from_dict(data["original"]))  # type: ignore[arg-type]
    if data["type"] == "Dict":
        return Dict([(key, space_from_dict(inner)) for key, inner in data["spaces"]])
    if data["type"] == "Tuple":
        return Tuple([space_from_dict(inner) for inner in data["spaces"]])
    if data["type"] == "Discrete":
        return Discrete(data["n"], start=data["start"])
    if data["type"] == "MultiDiscrete":
        return MultiDiscrete(data["nvec"], start=data["start"])
    if data["type"] == "MultiBinary":
        return MultiBinary(data["n"])
    dtype = np.dtype(data["dtype"])
    low, high = (np.asarray(data[name], dtype=dtype).reshape(data["shape"]) for name in ("low", "high"))
    return Box(low, high, dtype=dtype.type)
