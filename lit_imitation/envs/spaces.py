"""Which spaces are supported, and how a space is written into a checkpoint."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import Space
from gymnasium.spaces import Box, Discrete, MultiDiscrete

from lit_imitation.errors import UnsupportedSpaceError


def check_spaces(observation_space: Space[Any], action_space: Space[Any], env_id: str) -> None:
    """Raise `UnsupportedSpaceError` unless a policy can read the observations and write the actions.

    Observations: `Box` (vectors, or uint8 images `[H, W, C]` or `[C, H, W]`) and `Discrete`; dictionaries and tuples
    have been flattened by `make`. Actions: `Box`, `Discrete` and flat `MultiDiscrete`.
    """
    if not isinstance(observation_space, Box | Discrete):
        raise UnsupportedSpaceError(
            f"{env_id}: the observation space {observation_space} is not supported. Supported are Box, Discrete, and "
            "Dict or Tuple of these (flattened); wrap the environment so that it gives one of them."
        )
    if not isinstance(action_space, Box | Discrete | MultiDiscrete):
        raise UnsupportedSpaceError(
            f"{env_id}: the action space {action_space} is not supported. Supported are Box, Discrete and "
            "MultiDiscrete; wrap the environment so that it takes one of them."
        )
    if isinstance(action_space, MultiDiscrete) and len(action_space.shape) != 1:
        raise UnsupportedSpaceError(
            f"{env_id}: the action space {action_space} has shape {list(action_space.shape)}; a MultiDiscrete has to "
            "be flat. Wrap the environment so that it takes a vector."
        )
    if isinstance(action_space, Box) and action_space.dtype is not None and action_space.dtype.kind != "f":
        raise UnsupportedSpaceError(f"{env_id}: a Box of {action_space.dtype} as action space is not supported.")


def space_to_dict(space: Space[Any]) -> dict[str, Any]:
    """The space as primitives, so that a checkpoint holding it loads with `weights_only=True`."""
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
    raise UnsupportedSpaceError(
        f"the space {space} cannot be written into a checkpoint; supported are Box, Discrete and MultiDiscrete"
    )


def space_from_dict(data: dict[str, Any]) -> Space[Any]:
    """The inverse of `space_to_dict`."""
    if data["type"] == "Discrete":
        return Discrete(data["n"], start=data["start"])
    if data["type"] == "MultiDiscrete":
        return MultiDiscrete(data["nvec"], start=data["start"])
    dtype = np.dtype(data["dtype"])
    low, high = (np.asarray(data[name], dtype=dtype).reshape(data["shape"]) for name in ("low", "high"))
    return Box(low, high, dtype=dtype.type)
