"""`make`: an id, a number of copies and a seed become a Gymnasium `VectorEnv`."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, get_args

import gymnasium
from gymnasium import Env
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Dict, Tuple
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import FlattenObservation
from gymnasium.wrappers.vector import FlattenObservation as FlattenVectorObservation

from lit_imitation.envs.spaces import check_spaces
from lit_imitation.envs.workers import WorkerVectorEnv
from lit_imitation.errors import ConfigError, LitImitationError, MissingExtraError, require
from lit_imitation.rollout import blaming

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
        backend = _fastest(spec, env_kwargs)
    envs: VectorEnv[Any, Any, Any]
    if backend == "vector":
        if spec.vector_entry_point is None:
            raise ConfigError(f"{env_id} has no batched version of Gymnasium's own; choose another backend than vector")
        with _arguments_named(env_id, env_kwargs):
            envs = gymnasium.make_vec(env_id, num_envs=num_envs, vectorization_mode="vector_entry_point", **env_kwargs)
        if isinstance(envs.single_observation_space, Dict | Tuple) and envs.single_observation_space.is_np_flattenable:
            if envs.metadata.get("autoreset_mode") != AutoresetMode.NEXT_STEP:  # all that Gymnasium's wrapper can do
                raise ConfigError(
                    f"{env_id}: the observations {envs.single_observation_space} of its batched version cannot be "
                    "flattened, since it starts episodes on the step that ends one; choose backend sync"
                )
            envs = FlattenVectorObservation(envs)
    elif backend == "envpool":
        from lit_imitation.envs.envpool import EnvPoolVectorEnv

        if env_kwargs:
            raise ConfigError(f"{env_id}: the arguments {sorted(env_kwargs)} cannot be given to EnvPool; use sync")
        envs = EnvPoolVectorEnv(spec.id, num_envs, seed)
    else:
        if backend == "async":  # which breaks on odd spaces before they can be checked
            single = make_single(env_id, **env_kwargs)
            check_spaces(single.observation_space, single.action_space, env_id)
            single.close()
        factory = partial(make_single, env_id, **env_kwargs)
        if backend == "async":
            envs = WorkerVectorEnv(factory, num_envs)
        else:
            envs = SyncVectorEnv([factory] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP)
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
    _spec(env_id)  # first, for its error messages
    try:
        with _arguments_named(env_id, env_kwargs):
            env: Env[Any, Any] = gymnasium.make(env_id, disable_env_checker=True, **env_kwargs)
    except ImportError as error:  # ids that Gymnasium still lists but has moved elsewhere
        raise ConfigError(f"env_id: {error}") from error
    return FlattenObservation(env) if isinstance(env.observation_space, Dict | Tuple) else env


@contextmanager
def _arguments_named(env_id: str, env_kwargs: dict[str, Any]) -> Iterator[None]:
    """Say which environment it was, and with which arguments, where it cannot be made."""
    try:
        yield
    except (LitImitationError, ImportError, KeyboardInterrupt):
        raise
    except BaseException as error:  # its code is somebody else's, and a `SystemExit` of it is no end of ours
        arguments = f" with the arguments {env_kwargs}" if env_kwargs else ""
        cause = str(error) if isinstance(error, TypeError) and env_kwargs else f"{type(error).__name__}: {error}"
        raise ConfigError(f"{env_id} cannot be made{arguments}: {cause}") from error


def shares_stream(env_id: str, backend: Backend, **env_kwargs: Any) -> bool:
    """Whether the copies that `make` gives draw from one random stream, so that each depends on all the others."""
    return backend == "vector" or (backend == "auto" and _fastest(_spec(env_id), env_kwargs) == "vector")


def episode_limit(env_id: str, **env_kwargs: Any) -> int | None:
    """Steps after which an environment's episodes are cut, where it says."""
    limit: int | None = env_kwargs.get("max_episode_steps", _spec(env_id).max_episode_steps)
    return limit


def _spec(env_id: str) -> EnvSpec:
    """The registered specification, after making sure that what the environment needs is installed."""
    try:
        module, _, name = env_id.rpartition(":")
        if module:
            importlib.import_module(module)
        spec = gymnasium.spec(name)
    except (gymnasium.error.Error, ImportError) as error:
        raise ConfigError(f"env_id: {error}") from error
    except (Exception, SystemExit) as error:  # a module is anybody's code
        raise ConfigError(f"env_id {env_id} cannot be imported: {type(error).__name__}: {error}") from error
    room = str(spec.entry_point).removeprefix("gymnasium.envs.").split(".")[0]
    if room in _EXTRAS:
        require(*_EXTRAS[room], purpose=f"environment {env_id}")
    return spec


def _fastest(spec: EnvSpec, env_kwargs: dict[str, Any]) -> Backend:
    # Gymnasium's phys2d batches are JAX programs, another dependency with other numbers.
    if spec.vector_entry_point is not None and "phys2d" not in str(spec.vector_entry_point):
        return "vector"
    if not env_kwargs and importlib.util.find_spec("envpool") is not None:
        try:
            from lit_imitation.envs.envpool import has_env
        except MissingExtraError:
            return "sync"
        if has_env(spec.id):
            return "envpool"
    return "sync"
