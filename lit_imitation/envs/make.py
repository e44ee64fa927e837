"""`make`: an id, a number of copies and a seed become a Gymnasium `VectorEnv`."""

from __future__ import annotations

import difflib
import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, Literal, get_args

import gymnasium
import numpy as np
from gymnasium import Env, Space
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Dict, Discrete, Tuple
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import FlattenObservation
from gymnasium.wrappers.vector import FlattenObservation as FlattenVectorObservation

from lit_imitation.envs.failures import blaming
from lit_imitation.envs.probe import probe, probe_vector
from lit_imitation.envs.workers import WorkerVectorEnv
from lit_imitation.errors import ConfigError, LitImitationError, MissingExtraError, require
from lit_imitation.utils.spaces import FlatBox, check_spaces, is_flattenable

Backend = Literal["auto", "vector", "envpool", "sync", "async"]

_EXTRAS = {"box2d": ("Box2D", "box2d"), "mujoco": ("mujoco", "mujoco")}  # room of Gymnasium -> (module, our extra)


def make(
    env_id: str, num_envs: int, seed: int, backend: Backend = "auto", **env_kwargs: Any
) -> VectorEnv[Any, Any, Any]:
    """`num_envs` seeded copies of an environment that step together.

    Args:
        env_id: a registered id, `module:Id-v0` to import the module that registers it first.
        num_envs: number of copies.
        seed: seeds the copies; the same seed gives the same rollouts on the same backend, whatever ran before.
        backend: `vector` is Gymnasium's own NumPy-batched version, `envpool` steps in C++ threads, `sync` in this
            process one after the other, `async` in one process each. `auto` takes the first of `vector`, `envpool`
            (where installed) and `sync` that has the id with these arguments.
        **env_kwargs: passed to the environment.

    Returns:
        A `VectorEnv` whose observations are `[num_envs, *obs]`; dictionaries and tuples of observations arrive
        flattened to vectors.

    Raises:
        ConfigError: unknown id, a backend that does not have it, or arguments that the environment does not take.
        MissingExtraError: the environment needs an extra that is not installed.
        UnsupportedSpaceError: no policy can read its observations or write its actions.
    """
    if num_envs < 1:
        raise ConfigError(f"num_envs is {num_envs}; at least 1 environment is needed")
    if seed < 0:
        raise ConfigError(f"seed is {seed}; it must be at least 0")
    if backend not in get_args(Backend):
        raise ConfigError(f"backend is {backend!r}; choose one of {', '.join(get_args(Backend))}")
    spec = _spec(env_id)
    if backend == "auto":
        backend = _fastest(env_id, spec, env_kwargs)
    elif backend != "envpool" and _only_envpool(spec):
        raise ConfigError(f"only EnvPool has {env_id}, so backend {backend} cannot make it; choose envpool or auto")
    envs: VectorEnv[Any, Any, Any]
    if backend == "vector":
        if spec.vector_entry_point is None:
            raise ConfigError(f"{env_id} has no batched version of Gymnasium's own; choose another backend than vector")
        with _arguments_named(env_id, env_kwargs):
            envs = gymnasium.make_vec(env_id, num_envs=num_envs, vectorization_mode="vector_entry_point", **env_kwargs)
        probe_vector(envs, env_id, num_envs)
        original = envs.single_observation_space
        if isinstance(original, Dict | Tuple) and is_flattenable(original):
            if envs.metadata.get("autoreset_mode") != AutoresetMode.NEXT_STEP:  # all that Gymnasium's wrapper can do
                raise ConfigError(
                    f"{env_id}: the observations {original} of its batched version cannot be "
                    "flattened, since it starts episodes on the step that ends one; choose backend sync"
                )
            envs = FlattenVectorObservation(envs)
            envs.single_observation_space = FlatBox(original)
    elif backend == "envpool":
        from lit_imitation.envs.envpool import EnvPoolVectorEnv

        if env_kwargs:
            raise ConfigError(f"{env_id}: the arguments {sorted(env_kwargs)} cannot be given to EnvPool; use sync")
        envs = EnvPoolVectorEnv(spec.id, num_envs, seed)
        own, other = _observations(env_id), envs.single_observation_space
        if own is not None and (_kind(own) != _kind(other) or isinstance(own, FlatBox)):  # the order may be another
            envs.close()
            raise ConfigError(
                f"{env_id}: EnvPool's observations are {other}, Gymnasium's {own}, and a policy of one could not be "
                "used in the other; use backend sync"
            )
    else:
        if backend == "async":  # which breaks on odd spaces before they can be checked
            _check_single(env_id, env_kwargs)
        factory = partial(_scalar_single, env_id, **env_kwargs)
        try:
            if backend == "async":
                envs = WorkerVectorEnv(factory, num_envs)
            else:
                envs = SyncVectorEnv([factory] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP)
        except (TypeError, ValueError, NotImplementedError, AssertionError, gymnasium.error.Error):
            _check_single(env_id, env_kwargs)  # an odd space is the likely reason
            raise
        envs.spec = spec
    check_spaces(envs.single_observation_space, envs.single_action_space, env_id)
    try:
        with blaming(envs, "at its first reset"):
            envs.reset(seed=seed)
    except BaseException:
        envs.close()
        raise
    return envs


def make_single(env_id: str, **env_kwargs: Any) -> Env[Any, Any]:
    """One environment, with the observations that `make` would give."""
    if _only_envpool(_spec(env_id)):
        raise ConfigError(
            f"only EnvPool has {env_id}, and only as a batch; what needs a single environment cannot use it"
        )
    with _arguments_named(env_id, env_kwargs):
        env: Env[Any, Any] = gymnasium.make(env_id, disable_env_checker=True, **env_kwargs)
    probe(env, env_id)
    original = env.observation_space
    if isinstance(original, Dict | Tuple) and is_flattenable(original):
        env = FlattenObservation(env)
        env.observation_space = FlatBox(original)
    return env


class _Scalars(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Rewards and flags of one copy as single values where they come as arrays `[1]`, which `SyncVectorEnv` refuses."""

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """One step."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, _single(reward), _single(terminated), _single(truncated), info


def _single(value: Any) -> Any:
    return value.item() if isinstance(value, np.ndarray) and value.size == 1 else value


def _scalar_single(env_id: str, **env_kwargs: Any) -> Env[Any, Any]:
    return _Scalars(make_single(env_id, **env_kwargs))


def _check_single(env_id: str, env_kwargs: dict[str, Any]) -> None:
    """Raise `UnsupportedSpaceError` for the spaces of one copy."""
    single = make_single(env_id, **env_kwargs)
    check_spaces(single.observation_space, single.action_space, env_id)
    single.close()


@contextmanager
def _arguments_named(env_id: str, env_kwargs: dict[str, Any]) -> Iterator[None]:
    """Say which environment it was, and with which arguments, where it cannot be made."""
    try:
        yield
    except (LitImitationError, KeyboardInterrupt):
        raise
    except ImportError as error:  # ids that Gymnasium still lists but has moved elsewhere
        raise ConfigError(f"env_id: {error}") from error
    except BaseException as error:  # its code is somebody else's, and a `SystemExit` of it is no end of ours
        arguments = f" with the arguments {env_kwargs}" if env_kwargs else ""
        cause = str(error) if isinstance(error, TypeError) and env_kwargs else f"{type(error).__name__}: {error}"
        raise ConfigError(f"{env_id} cannot be made{arguments}: {cause}") from error


def shares_stream(env_id: str, backend: Backend, **env_kwargs: Any) -> bool:
    """Whether the copies that `make` gives draw from one random stream, so that each depends on all the others."""
    return backend == "vector" or (backend == "auto" and _fastest(env_id, _spec(env_id), env_kwargs) == "vector")


def episode_limit(env_id: str, **env_kwargs: Any) -> int | None:
    """Steps after which an environment's episodes are cut, where it says."""
    limit: int | None = env_kwargs.get("max_episode_steps", _spec(env_id).max_episode_steps)
    return limit


def _spec(env_id: str) -> EnvSpec:
    """The registered specification, after making sure that what the environment needs is installed."""
    if not isinstance(env_id, str):
        raise ConfigError(f"env_id is {env_id!r}; it must be text, a registered id or module:Id-v0")
    module, colon, name = env_id.rpartition(":")
    if colon:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ConfigError(f"env_id: {error}") from error
        except (Exception, SystemExit) as error:  # somebody else's code
            what = f"{type(error).__name__}: {error}"
            raise ConfigError(f"env_id {env_id}: the module {module} cannot be imported: {what}") from error
    try:
        spec = gymnasium.spec(name)
    except (gymnasium.error.Error, ImportError) as error:
        if (limit := _envpool_limit(name)) is not None:
            return EnvSpec(name, max_episode_steps=limit or None)
        reason = str(error).partition(" Did you mean")[0].rstrip(". ")
        raise ConfigError(f"env_id {env_id!r}: {reason}{_similar(name)}") from error
    room = str(spec.entry_point).removeprefix("gymnasium.envs.").split(".")[0]
    if room in _EXTRAS:
        require(*_EXTRAS[room], purpose=f"environment {env_id}")
    return spec


def _only_envpool(spec: EnvSpec) -> bool:
    """Whether Gymnasium does not have this environment."""
    return spec.entry_point is None and spec.vector_entry_point is None


def _envpool_ids() -> list[str]:
    """Every id that EnvPool has, where it is installed."""
    try:
        from lit_imitation.envs.envpool import all_ids
    except MissingExtraError:
        return []
    return all_ids()


def _envpool_limit(name: str) -> int | None:
    """The limit of an environment's episodes where EnvPool has it, 0 for none; else None."""
    if name not in _envpool_ids():
        return None
    from lit_imitation.envs.envpool import episode_limit

    return episode_limit(name)


def _similar(name: str) -> str:
    """The ids that somebody may have meant."""
    known = [one for one in gymnasium.registry if "/" in name or "/" not in one] + _envpool_ids()
    stem = name.rpartition("/")[2].rpartition("-v")[0] or name.rpartition("/")[2]
    same = [one for one in known if one.rpartition("/")[2].rpartition("-v")[0].lower() == stem.lower()]
    near = list(dict.fromkeys([*reversed(same), *difflib.get_close_matches(name, known, 3, 0.7)]))[:3]
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _fastest(env_id: str, spec: EnvSpec, env_kwargs: dict[str, Any]) -> Backend:
    if _only_envpool(spec):
        return "envpool"
    # Gymnasium's phys2d batches are JAX programs, another dependency with other numbers.
    if spec.vector_entry_point is not None and "phys2d" not in str(spec.vector_entry_point):
        return "vector"
    if not env_kwargs and importlib.util.find_spec("envpool") is not None:
        try:
            from lit_imitation.envs.envpool import observations
        except MissingExtraError:
            return "sync"
        if (theirs := observations(spec.id)) is not None:
            own = _observations(env_id)
            if own is None or _kind(own) == _kind(theirs):
                return "envpool"
    return "sync"


def _kind(space: Space[Any]) -> tuple[int, ...]:
    """What two spaces share between which a policy can be moved."""
    return (int(space.n),) if isinstance(space, Discrete) else (-1, *(space.shape or ()))


@cache
def _observations(env_id: str) -> Space[Any] | None:
    """The observation space of one copy as Gymnasium makes it; None where it cannot, for lack of a dependency."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            single = make_single(env_id)
    except (ConfigError, gymnasium.error.Error):
        return None
    single.close()
    return single.observation_space
