"""What an expert is, and the check on what one answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from gymnasium import Space, spaces

from lit_imitation.errors import ExpertError, LitImitationError, UnsupportedSpaceError
from lit_imitation.utils.spaces import float32_bounds

Array: TypeAlias = np.ndarray[Any, Any]

Expert: TypeAlias = Callable[[Array], Array]
"""Anything that can be asked, at any state, what it would do there.

`observation: [B, *obs]` to actions: `[B]` int64 for a Discrete space, `[B, components]` int64 for a MultiDiscrete, or
`[B, *act]` float32 inside a Box.
"""


def checked(expert: Expert, action_space: Space[Any], name: str) -> Expert:
    """`expert` with every answer verified and given its dtype: int64 or, in a Box, float32; all in the space.

    For experts whose code is not ours. Answers may be arrays, lists or tensors, and `(actions, None)` as Stable-
    Baselines3's `predict` gives them. Nothing but rounding is clipped: an action outside the space is a fault of the
    expert or a mix-up of environments, and a demonstration that hid it would be wrong. A float64 bound is compared as
    the float32 next to it, and the answer is the nearest float32 inside the box.

    Raises:
        UnsupportedSpaceError: `action_space` is none of Discrete, MultiDiscrete, Box.
        ExpertError: `expert` cannot be called; or on a call, when it fails or its answer is not one action for each
            observation; names `name`, row and value.
    """
    if not callable(expert) or isinstance(expert, type):
        what = "a class: name an instance of it" if isinstance(expert, type) else f"a {type(expert).__name__}"
        raise ExpertError(
            f"expert {name} is {what}, not a function of observations [B, *obs] that returns actions [B, *act]"
        )
    dtype: type[np.generic]
    if isinstance(action_space, spaces.Discrete):
        dtype, kinds, kind_name = np.int64, "iu", "integers"
        low, high = action_space.start, action_space.start + action_space.n - 1
    elif isinstance(action_space, spaces.MultiDiscrete):
        dtype, kinds, kind_name = np.int64, "iu", "integers"
        low, high = action_space.start, action_space.start + action_space.nvec - 1
    elif isinstance(action_space, spaces.Box):
        dtype, kinds, kind_name = np.float32, "fiu", "numbers"
        # In float32, as the answer is: a float64 bound may lie between two of them.
        with np.errstate(over="ignore"):
            low, high = action_space.low.astype(dtype), action_space.high.astype(dtype)
    else:
        raise UnsupportedSpaceError(
            f"expert {name}: action space {action_space} is not supported; Discrete, MultiDiscrete and Box are"
        )
    shape = action_space.shape or ()
    bounds = float32_bounds(action_space) if isinstance(action_space, spaces.Box) else None

    def answer(observation: Array) -> Array:
        try:
            given: Any = expert(observation)  # whatever foreign code answers with
        except LitImitationError:
            raise
        except (Exception, SystemExit) as error:  # somebody else's code
            raise ExpertError(
                f"expert {name} failed at observations {list(np.shape(observation))}: {type(error).__name__}: {error}"
            ) from error
        wanted = (len(observation), *shape)
        action = _array(given, name)
        if isinstance(given, tuple) and len(given) == 2 and action.shape != wanted:  # (actions, state)
            if given[1] is not None:
                raise ExpertError(
                    f"expert {name} answered with a pair; where the second part is a state that it wants back at the "
                    "next step, keep it inside the function, and return the actions alone"
                )
            action = _array(given[0], name)
        if action.shape != wanted:
            got = "None" if given is None else f"shape {action.shape}"
            raise ExpertError(f"expert {name} answered with {got} where {wanted} was wanted")
        if action.dtype.kind not in kinds:
            raise ExpertError(f"expert {name} answered with dtype {action.dtype} where {kind_name} were wanted")
        action = action.astype(dtype, copy=False)
        inside = (action >= low) & (action <= high)  # NaN is inside nothing
        if not inside.all():
            row = int(np.argmin(inside.reshape(len(action), -1).all(axis=1)))
            raise ExpertError(f"expert {name}: row {row}, action {action[row].tolist()} is not in {action_space}")
        return action if bounds is None else np.clip(action, *bounds)

    return answer


def _array(answer: Any, name: str) -> Array:
    """An answer as an array; one of object dtype where its parts do not fit together."""
    if isinstance(answer, torch.Tensor):
        answer = answer.detach().cpu()
        return np.asarray(answer.float() if answer.dtype == torch.bfloat16 else answer)
    if isinstance(answer, list | tuple) and any(isinstance(part, torch.Tensor) for part in answer):
        answer = type(answer)([_array(part, name) if isinstance(part, torch.Tensor) else part for part in answer])
    try:
        return np.asarray(answer)
    except (TypeError, ValueError, RuntimeError) as error:  # rows of several lengths
        if isinstance(answer, tuple) and len(answer) == 2:  # perhaps (actions, state)
            return np.empty(0, dtype=object)
        raise ExpertError(f"expert {name} answered with what is no array: {error}") from error


def space_mismatch(made_for: Space[Any], given: Space[Any], *, bounds: bool) -> bool:
    """Whether a model made for one space cannot serve another; `bounds` counts those of a Box as well."""
    if isinstance(made_for, spaces.Discrete) and isinstance(given, spaces.Discrete):
        return bool(made_for.n != given.n or made_for.start != given.start)
    if isinstance(made_for, spaces.MultiDiscrete) and isinstance(given, spaces.MultiDiscrete):
        return not (np.array_equal(made_for.nvec, given.nvec) and np.array_equal(made_for.start, given.start))
    if isinstance(made_for, spaces.MultiBinary) and isinstance(given, spaces.MultiBinary):
        return made_for.shape != given.shape
    if isinstance(made_for, spaces.Box) and isinstance(given, spaces.Box):
        return made_for.shape != given.shape or (
            bounds and not (np.allclose(made_for.low, given.low) and np.allclose(made_for.high, given.high))
        )
    return True
