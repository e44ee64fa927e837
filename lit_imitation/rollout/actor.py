"""Actors: what chooses the actions in a rollout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from gymnasium import Space
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from lit_imitation.errors import ConfigError
from lit_imitation.utils.spaces import FlatBox

Array: TypeAlias = NDArray[Any]
Mask: TypeAlias = NDArray[np.bool_]


@runtime_checkable
class Acts(Protocol):
    """An object with the method `act` of an actor; a `reset` is optional."""

    def act(self, observation: Array, /) -> Array:
        """Actions `[B, *act]`, in the environment's own values, at `observation: [B, *obs]`."""


class Actor(Acts, Protocol):
    """Chooses the actions of B environments that step together.

    Row i always belongs to environment i, so an actor may keep a history or a queue of planned actions for each row.
    Observations and actions are NumPy arrays, as the environments give and take them, because on the CPU a small
    network takes less than half the time in NumPy that it takes in torch.

    An actor may also have these attributes:

    - `memoryless`: true if its action depends on the current observation alone. Such an actor can be asked about any
      number of observations, in any order.
    - `raw_observation`: true to receive Dict and Tuple observations as the environment gives them, batched, instead of
      flattened to vectors.
    - `needs_env`: true to have its method `bind(envs)` called with the vector environment when a rollout begins, before
      the first `reset`.
    """

    def reset(self, mask: Mask, /) -> None:
        """Forget the past of the environments in `mask: [B]`: the next `act` sees the first state of an episode there.

        A rollout calls this once with all true before its first `act`, then exactly once for each episode that starts.
        B may change from one rollout to the next.
        """


ActorLike: TypeAlias = Acts | Callable[[Array], Array]
"""An actor, an object with `act` alone, or a function from observations `[B, *obs]` to actions `[B, *act]`."""


class FunctionActor:
    """An actor made of functions.

    Args:
        act: Function from observations `[B, *obs]` to actions `[B, *act]`.
        reset: `Actor.reset`, for an actor that keeps state.
        bind: Receives the vector environment when a rollout begins.
    """

    def __init__(
        self,
        act: Callable[[Array], Array],
        reset: Callable[[Mask], None] | None = None,
        bind: Callable[[VectorEnv[Any, Any, Any]], None] | None = None,
    ) -> None:
        self.act = act  # an attribute, so that a step costs one call and not two
        self.reset = reset or _forget_nothing
        self.bind = bind
        self.needs_env = bind is not None
        self.memoryless = reset is None and bind is None

    def __call__(self, observation: Array, /) -> Array:
        """As `act`: actions `[B, *act]` at `observation: [B, *obs]`."""
        return self.act(observation)


def _forget_nothing(mask: Mask) -> None:
    """The `reset` of an actor without state."""


def as_actor(given: Any, observation_space: Space[Any]) -> Actor:
    """`given` as an actor: the one place where functions and incomplete actors are adapted.

    Args:
        given: An actor; an object with `act` and perhaps `reset`; a function or callable object, perhaps with `reset`;
            or an object whose method `actor()` returns its actor, such as a policy.
        observation_space: Space of a single environment, as the rollout sees it.

    Raises:
        ConfigError: `given` cannot act, or sets `needs_env` without a method `bind`.
    """
    if callable(getattr(type(given), "actor", None)):  # of the type: an object may keep a network named `actor`
        actor: Actor = given.actor()
        return actor
    act, reset = getattr(given, "act", None), getattr(given, "reset", None)
    raw, needs_env = getattr(given, "raw_observation", False), getattr(given, "needs_env", False)
    bind = getattr(given, "bind", None) if needs_env else None
    if isinstance(given, type) or not (callable(act) or callable(given)):
        what = f"the class {given.__name__}" if isinstance(given, type) else f"a {type(given).__name__}"
        raise ConfigError(
            f"{what} cannot act; give a function, or an object with a method `act`, that turns observations [B, *obs] "
            "into actions [B, *act]"
        )
    if needs_env and not callable(bind):
        name = getattr(given, "__name__", type(given).__name__)
        raise ConfigError(f"{name} sets needs_env, but has no method bind(envs) that takes the vector environment")
    if callable(act) and callable(reset) and not raw:
        complete: Actor = given
        return complete
    choose: Callable[[Any], Array] = act if callable(act) else given
    if raw and isinstance(observation_space, FlatBox):
        unflatten, choose_raw = observation_space.unflatten, choose
        choose = lambda observation: choose_raw(unflatten(observation))  # noqa: E731
    return FunctionActor(choose, reset if callable(reset) else None, bind)


def keeps_state(actor: Actor) -> bool:
    """Whether every step of every environment must be shown to the actor, each in its own row."""
    return not getattr(actor, "memoryless", False)


def bind_environments(actor: Actor, envs: VectorEnv[Any, Any, Any]) -> None:
    """Hand the vector environment to an actor that asks for it by `needs_env`."""
    if getattr(actor, "needs_env", False):
        actor.bind(envs)  # type: ignore[attr-defined]
