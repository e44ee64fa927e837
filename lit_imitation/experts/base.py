"""The type of an expert, and the checks on the actions that it returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from gymnasium import Space, spaces
from gymnasium.vector import VectorEnv

from lit_imitation.errors import ConfigError, ExpertError, LitImitationError, UnsupportedSpaceError
from lit_imitation.rollout import Actor, ActorLike, as_actor, keeps_state
from lit_imitation.rollout.actor import Mask, bind_environments
from lit_imitation.utils.spaces import PackedBox, float32_bounds

Array: TypeAlias = np.ndarray[Any, Any]

Expert: TypeAlias = ActorLike
"""A function from observations to actions, or an object with a method `act` that is one and perhaps a `reset(mask)`.

Actions at `observation: [B, *obs]` are `[B]` int64 for a Discrete space, `[B, components]` int64 for a MultiDiscrete
space, or `[B, *act]` float32 inside a Box.
"""

ExpertClass: TypeAlias = dict[str, str | dict[str, str | bool | int | float | list | dict | None]]  # type: ignore[type-arg]
"""A class of the user as an expert: `{"class_path": "my_module.MyExpert", "init_args": {"horizon": 10}}`.

The types of its values keep the parser of the command line from importing the class by itself.
"""


def checked(expert: Expert, observation_space: Space[Any], action_space: Space[Any], name: str) -> Actor:
    """`expert` as an actor whose actions are verified and converted to int64 or, in a Box, float32.

    Actions may be arrays, lists or tensors, or `(actions, None)` as Stable-Baselines3's `predict` returns them. Only
    rounding is clipped: an action outside the space means that the expert is wrong or made for another environment, and
    clipping it would hide that. A float64 bound is compared as the nearest float32, and the result is the nearest
    float32 inside the Box.

    Args:
        expert: The expert, whose code is not part of this package.
        observation_space: Space of a single environment, as `make` gives it.
        action_space: Space of a single environment.
        name: Name of the expert in errors.

    Raises:
        UnsupportedSpaceError: `action_space` is not a Discrete, MultiDiscrete or Box space.
        ExpertError: `expert` cannot act. Later calls raise it if the expert fails, or does not return one valid action
            for each observation; the message has `name`, row and value.
    """
    if isinstance(expert, type):
        raise ExpertError(
            f"expert {name} is a class, not an instance; in a recipe write data.expert: {{class_path: "
            f"{name.replace(':', '.')}, init_args: {{...}}}}"
        )
    try:
        return _Checked(as_actor(expert, observation_space), action_space, name)
    except ConfigError as error:
        raise ExpertError(f"expert {name}: {error}") from error


class _Checked:
    """The actor that `checked` returns."""

    def __init__(self, expert: Actor, action_space: Space[Any], name: str) -> None:
        self.expert, self.name = expert, name
        self.act = _checked_act(expert, action_space, name)
        self.memoryless = not keeps_state(expert)
        self.needs_env: bool = getattr(expert, "needs_env", False)

    def __call__(self, observation: Array, /) -> Array:
        """As `act`: actions `[B, *act]` at `observation: [B, *obs]`."""
        return self.act(observation)

    def reset(self, mask: Mask, /) -> None:
        """Pass the start of episodes on."""
        self._call("reset", lambda: self.expert.reset(mask))

    def bind(self, envs: VectorEnv[Any, Any, Any]) -> None:
        """Pass the vector environment on."""
        self._call("bind", lambda: bind_environments(self.expert, envs))

    def _call(self, method: str, call: Callable[[], object]) -> None:
        try:
            call()
        except LitImitationError:
            raise
        except (Exception, SystemExit) as error:  # the expert's code may raise anything
            raise ExpertError(f"expert {self.name} failed in {method}: {type(error).__name__}: {error}") from error


def _checked_act(expert: Actor, action_space: Space[Any], name: str) -> Callable[[Array], Array]:
    """`expert.act` with its actions verified and converted."""
    dtype: type[np.generic]
    if isinstance(action_space, spaces.Discrete):
        dtype, kinds, kind_name = np.int64, "iu", "integers"
        low, high = action_space.start, action_space.start + action_space.n - 1
    elif isinstance(action_space, spaces.MultiDiscrete):
        dtype, kinds, kind_name = np.int64, "iu", "integers"
        low, high = action_space.start, action_space.start + action_space.nvec - 1
    elif isinstance(action_space, spaces.Box):
        dtype, kinds, kind_name = np.float32, "fiu", "numbers"
        # In float32, like the actions: a float64 bound may lie between two of them.
        with np.errstate(over="ignore"):
            low, high = action_space.low.astype(dtype), action_space.high.astype(dtype)
    else:
        raise UnsupportedSpaceError(
            f"expert {name}: action space {action_space} is not supported; Discrete, MultiDiscrete and Box are"
        )
    shape = action_space.shape or ()
    bounds = float32_bounds(action_space) if isinstance(action_space, spaces.Box) else None

    def act(observation: Array) -> Array:
        try:
            given: Any = expert.act(observation)  # the expert's code may return anything
        except LitImitationError:
            raise
        except (Exception, SystemExit) as error:  # the expert's code may raise anything
            raise ExpertError(
                f"expert {name} failed at observations {list(np.shape(observation))}: {type(error).__name__}: {error}"
            ) from error
        wanted = (len(observation), *shape)
        action = _array(given, name)
        if isinstance(given, tuple) and len(given) == 2 and action.shape != wanted:  # (actions, state)
            if given[1] is not None:
                raise ExpertError(
                    f"expert {name} returned a pair; if the second part is a state that it needs at the next step, "
                    "write a class that keeps the state, clears it in reset(mask), and returns only the actions"
                )
            action = _array(given[0], name)
        if action.shape != wanted:
            got = "None" if given is None else f"shape {action.shape}"
            raise ExpertError(f"expert {name} returned {got} instead of shape {wanted}")
        if action.dtype.kind not in kinds:
            raise ExpertError(f"expert {name} returned dtype {action.dtype} instead of {kind_name}")
        action = action.astype(dtype, copy=False)
        inside = (action >= low) & (action <= high)  # false for NaN
        if not inside.all():
            row = int(np.argmin(inside.reshape(len(action), -1).all(axis=1)))
            raise ExpertError(f"expert {name}: row {row}, action {action[row].tolist()} is not in {action_space}")
        return action if bounds is None else np.clip(action, *bounds)

    return act


def _array(given: Any, name: str) -> Array:
    """What an expert returned, as an array; an empty object array if it is a pair of different shapes."""
    if isinstance(given, torch.Tensor):
        given = given.detach().cpu()
        return np.asarray(given.float() if given.dtype == torch.bfloat16 else given)
    if isinstance(given, list | tuple) and any(isinstance(part, torch.Tensor) for part in given):
        given = type(given)([_array(part, name) if isinstance(part, torch.Tensor) else part for part in given])
    try:
        return np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:  # rows of several lengths
        if isinstance(given, tuple) and len(given) == 2:  # perhaps (actions, state)
            return np.empty(0, dtype=object)
        raise ExpertError(f"expert {name} returned a value that cannot become an array: {error}") from error


def space_mismatch(made_for: Space[Any], given: Space[Any], *, bounds: bool) -> bool:
    """Whether a model made for one space does not fit another; with `bounds`, those of a Box must agree too."""
    if isinstance(made_for, PackedBox) and isinstance(given, PackedBox):
        return len(made_for.parts) != len(given.parts) or any(
            (one.path, one.start) != (other.path, other.start) or space_mismatch(one.space, other.space, bounds=bounds)
            for one, other in zip(made_for.parts, given.parts, strict=True)
        )
    if isinstance(made_for, PackedBox) or isinstance(given, PackedBox):
        return True
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
