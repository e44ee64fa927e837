"""Supported spaces and their serialization in checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import gymnasium
import numpy as np
from gymnasium import Space
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from numpy.typing import NDArray

from lit_imitation.errors import UnsupportedSpaceError

Array: TypeAlias = NDArray[Any]

OBSERVATIONS = "Box, Discrete, MultiDiscrete, MultiBinary, and Dict or Tuple of these (flattened)"


class FlatBox(Box):
    """Box of flattened Dict or Tuple observations that remembers the original space.

    Args:
        original: Dict or Tuple space to flatten.
    """

    def __init__(self, original: Dict | Tuple[Any]) -> None:
        flat = gymnasium.spaces.flatten_space(original)
        assert isinstance(flat, Box)
        assert flat.dtype is not None
        super().__init__(flat.low, flat.high, dtype=flat.dtype.type)
        self.original = original

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


def _flatten(space: Space[Any], value: Any, where: str) -> Array:
    """Flatten `value` to a vector `[d]` or `[B, d]`, in the order of `gymnasium.spaces.flatten`."""
    if isinstance(space, Dict):
        if not isinstance(value, Mapping):
            raise ValueError(f"{where} is a {type(value).__name__}; expected a dictionary of {list(space.spaces)}")
        if missing := [key for key in space.spaces if key not in value]:
            raise ValueError(f"{where} has no {missing[0]!r}; expected keys {list(space.spaces)}, got {list(value)}")
        parts = [_flatten(inner, value[key], f"{where}[{key!r}]") for key, inner in space.spaces.items()]
    elif isinstance(space, Tuple):
        if not isinstance(value, tuple | list) or len(value) != len(space.spaces):
            raise ValueError(f"{where} is {value!r:.100}; expected a tuple of {len(space.spaces)}")
        parts = [_flatten(inner, value[i], f"{where}[{i}]") for i, inner in enumerate(space.spaces)]
    else:
        array, shape = np.asarray(value), space.shape or ()
        batched = array.ndim == len(shape) + 1
        if array.shape[batched:] != shape:
            raise ValueError(
                f"{where} has shape {list(array.shape)}; expected {list(shape)}, or [B, …] with a batch axis first"
            )
        if isinstance(space, Box):
            return array.reshape(*array.shape[:batched], -1)
        rows = [gymnasium.spaces.flatten(space, one) for one in (array if batched else array[None])]
        flat = np.asarray(rows).reshape(len(array) if batched else 1, gymnasium.spaces.flatdim(space))
        return flat if batched else flat[0]
    if len({part.shape[:-1] for part in parts}) > 1:
        raise ValueError(f"{where} has parts with {[list(part.shape[:-1]) for part in parts]} rows; they must be equal")
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
    if isinstance(space, Box):
        return np.zeros(space.shape, np.uint8 if space.dtype == np.uint8 else np.float32)
    return np.asarray(0 if isinstance(space, MultiBinary) else space.start) + np.zeros(space.shape or (), np.int64)  # type: ignore[attr-defined]


def space_to_dict(space: Space[Any]) -> dict[str, Any]:
    """Convert a space to primitives, so that a checkpoint loads with `weights_only=True`."""
    if isinstance(space, FlatBox):
        return {"type": "FlatBox", "original": space_to_dict(space.original)}
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
    if data["type"] == "FlatBox":
        return FlatBox(space_from_dict(data["original"]))  # type: ignore[arg-type]
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
