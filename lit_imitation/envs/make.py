"""`make`: seeded Gymnasium vector environments by id."""

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
from gymnasium.wrappers import FlattenObservation, TransformObservation
from gymnasium.wrappers.vector import FlattenObservation as FlattenVectorObservation
from gymnasium.wrappers.vector import TransformObservation as TransformVectorObservation

from lit_imitation.envs.failures import report_failures
from lit_imitation.envs.probe import probe, probe_vector
from lit_imitation.envs.workers import WorkerVectorEnv
from lit_imitation.errors import ConfigError, LitImitationError, MissingExtraError, require
from lit_imitation.utils.spaces import FlatBox, PackedBox, check_spaces, flat_space, is_flattenable

Backend = Literal["auto", "vector", "envpool", "sync", "async"]

_EXTRAS = {"box2d": ("Box2D", "box2d"), "mujoco": ("mujoco", "mujoco")}  # Gymnasium package: (module, our extra)


def make(
    env_id: str, num_envs: int, seed: int, backend: Backend = "auto", **env_kwargs: Any
) -> VectorEnv[Any, Any, Any]:
    """Make `num_envs` seeded copies of an environment that step together.

    Args:
        env_id: Registered Gymnasium id; `module:Id-v0` first imports the module that registers it.
        num_envs: Number of copies.
        seed: Seed of the copies. On the same backend, the same seed always gives the same rollouts.
        backend: `vector` uses the environment's own NumPy-batched version, `envpool` steps in C++ threads, `sync` steps
            the copies one after another, and `async` runs each copy in a process. `auto` takes the first of `vector`,
            `envpool` (if installed) and `sync` that supports the id with these arguments.
        **env_kwargs: Arguments of the environment.

    Returns:
        A `VectorEnv` with observations `[num_envs, *obs]`; Dict and Tuple observations are flattened to
        vectors, or packed into bytes if a part is an image, see `lit_imitation.utils.spaces.PackedBox`.

    Raises:
        ConfigError: The id is unknown, the backend does not provide it, or the environment rejects the arguments.
        MissingExtraError: The environment needs an extra that is not installed.
        UnsupportedSpaceError: No policy supports its observation or action space.
    """
    if num_envs < 1:
        raise ConfigError(f"num_envs is {num_envs}; it must be at least 1")
    if seed < 0:
        raise ConfigError(f"seed is {seed}; it must be at least 0")
    if backend not in get_args(Backend):
        raise ConfigError(f"backend is {backend!r}; choose one of {', '.join(get_args(Backend))}")
    spec = _find_spec(env_id)
    if backend == "auto":
        backend = _choose_backend(env_id, spec, env_kwargs)
    elif backend != "envpool" and _only_envpool(spec):
        raise ConfigError(f"only EnvPool provides {env_id}, so backend {backend} cannot; choose envpool or auto")
    envs: VectorEnv[Any, Any, Any]
    if backend == "vector":
        if spec.vector_entry_point is None:
            raise ConfigError(f"{env_id} has no batched version for backend vector; choose another backend")
        with _report_creation_errors(env_id, env_kwargs):
            envs = gymnasium.make_vec(env_id, num_envs=num_envs, vectorization_mode="vector_entry_point", **env_kwargs)
        probe_vector(envs, env_id, num_envs)
        original = envs.single_observation_space
        if isinstance(original, Dict | Tuple) and is_flattenable(original):
            if envs.metadata.get("autoreset_mode") != AutoresetMode.NEXT_STEP:  # Gymnasium's wrapper supports no other
                raise ConfigError(
                    f"{env_id}: the observations {original} of its batched version cannot be flattened because it "
                    "does not reset with AutoresetMode.NEXT_STEP; choose backend sync"
                )
            space = flat_space(original)
            if isinstance(space, PackedBox):
                envs = TransformVectorObservation(envs, space.flatten, single_observation_space=space)
            else:
                envs = FlattenVectorObservation(envs)
            envs.single_observation_space = space
    elif backend == "envpool":
        from lit_imitation.envs.envpool import EnvPoolVectorEnv

        if env_kwargs:
            raise ConfigError(f"{env_id}: EnvPool does not accept the arguments {sorted(env_kwargs)}; use backend sync")
        envs = EnvPoolVectorEnv(spec.id, num_envs, seed)
        own, other = _gymnasium_observation_space(env_id), envs.single_observation_space
        if own is not None and (
            _shape_key(own) != _shape_key(other) or isinstance(own, FlatBox)
        ):  # the order may differ
            envs.close()
            raise ConfigError(
                f"{env_id}: EnvPool's observations are {other}, but Gymnasium's are {own}; a policy for one does not "
                "work with the other; use backend sync"
            )
    else:
        if backend == "async":  # it fails on unsupported spaces before they can be checked
            _check_single(env_id, env_kwargs)
        factory = partial(_make_with_scalars, env_id, **env_kwargs)
        try:
            if backend == "async":
                envs = WorkerVectorEnv(factory, num_envs)
            else:
                envs = SyncVectorEnv([factory] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP)
        except (TypeError, ValueError, NotImplementedError, AssertionError, gymnasium.error.Error):
            _check_single(env_id, env_kwargs)  # an unsupported space is the likely cause
            raise
        envs.spec = spec
    check_spaces(envs.single_observation_space, envs.single_action_space, env_id)
    try:
        with report_failures(envs, "at its first reset"):
            envs.reset(seed=seed)
    except BaseException:
        envs.close()
        raise
    return envs


def make_single(env_id: str, **env_kwargs: Any) -> Env[Any, Any]:
    """Make one environment with the observations that `make` would give.

    Raises:
        ConfigError: As `make`, or EnvPool alone provides the id.
    """
    if _only_envpool(_find_spec(env_id)):
        raise ConfigError(f"only EnvPool provides {env_id}, and only as a batch; a single environment is needed here")
    with _report_creation_errors(env_id, env_kwargs):
        env: Env[Any, Any] = gymnasium.make(env_id, disable_env_checker=True, **env_kwargs)
    probe(env, env_id)
    original = env.observation_space
    if isinstance(original, Dict | Tuple) and is_flattenable(original):
        space = flat_space(original)
        if isinstance(space, PackedBox):
            env = TransformObservation(env, space.flatten, space)
        else:
            env = FlattenObservation(env)
        env.observation_space = space
    return env


class _ScalarOutputs(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Wrapper that unpacks rewards and flags of shape `[1]` into scalars; `SyncVectorEnv` rejects the arrays."""

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Take one step."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, _to_scalar(reward), _to_scalar(terminated), _to_scalar(truncated), info


def _to_scalar(value: Any) -> Any:
    return value.item() if isinstance(value, np.ndarray) and value.size == 1 else value


def _make_with_scalars(env_id: str, **env_kwargs: Any) -> Env[Any, Any]:
    return _ScalarOutputs(make_single(env_id, **env_kwargs))


def _check_single(env_id: str, env_kwargs: dict[str, Any]) -> None:
    """Raise `UnsupportedSpaceError` if one copy has unsupported spaces."""
    single = make_single(env_id, **env_kwargs)
    check_spaces(single.observation_space, single.action_space, env_id)
    single.close()


@contextmanager
def _report_creation_errors(env_id: str, env_kwargs: dict[str, Any]) -> Iterator[None]:
    """Convert errors in the block to a `ConfigError` that names the environment and its arguments."""
    try:
        yield
    except (LitImitationError, KeyboardInterrupt):
        raise
    except ImportError as error:  # Gymnasium still lists ids that have moved to other packages
        raise ConfigError(f"env_id: {error}") from error
    except BaseException as error:  # third-party code; its `SystemExit` must not end this program
        arguments = f" with the arguments {env_kwargs}" if env_kwargs else ""
        cause = str(error) if isinstance(error, TypeError) and env_kwargs else f"{type(error).__name__}: {error}"
        raise ConfigError(f"{env_id} cannot be made{arguments}: {cause}") from error


def shares_generator(env_id: str, backend: Backend, **env_kwargs: Any) -> bool:
    """Whether the copies that `make` returns share one random generator, so that each depends on all others."""
    return backend == "vector" or (
        backend == "auto" and _choose_backend(env_id, _find_spec(env_id), env_kwargs) == "vector"
    )


def episode_limit(env_id: str, **env_kwargs: Any) -> int | None:
    """Declared step limit of an environment's episodes, or None."""
    limit: int | None = env_kwargs.get("max_episode_steps", _find_spec(env_id).max_episode_steps)
    return limit


def _find_spec(env_id: str) -> EnvSpec:
    """Find the registered specification, and check that the environment's extra is installed."""
    if not isinstance(env_id, str):
        raise ConfigError(f"env_id is {env_id!r}; it must be a registered id or module:Id-v0")
    module, colon, name = env_id.rpartition(":")
    if colon:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ConfigError(f"env_id: {error}") from error
        except (Exception, SystemExit) as error:  # third-party code
            what = f"{type(error).__name__}: {error}"
            raise ConfigError(f"env_id {env_id}: the module {module} cannot be imported: {what}") from error
    try:
        spec = gymnasium.spec(name)
    except (gymnasium.error.Error, ImportError) as error:
        if (limit := _envpool_limit(name)) is not None:
            return EnvSpec(name, max_episode_steps=limit or None)
        reason = str(error).partition(" Did you mean")[0].rstrip(". ")
        raise ConfigError(f"env_id {env_id!r}: {reason}{_suggest_ids(name)}") from error
    package = str(spec.entry_point).removeprefix("gymnasium.envs.").split(".")[0]
    if package in _EXTRAS:
        require(*_EXTRAS[package], purpose=f"environment {env_id}")
    return spec


def _only_envpool(spec: EnvSpec) -> bool:
    """Whether Gymnasium does not provide this environment."""
    return spec.entry_point is None and spec.vector_entry_point is None


def _envpool_ids() -> list[str]:
    """All ids that EnvPool provides; empty if it is not installed."""
    try:
        from lit_imitation.envs.envpool import all_ids
    except MissingExtraError:
        return []
    return all_ids()


def _envpool_limit(name: str) -> int | None:
    """EnvPool's step limit for this id, 0 for no limit; None if EnvPool does not provide the id."""
    if name not in _envpool_ids():
        return None
    from lit_imitation.envs.envpool import episode_limit

    return episode_limit(name)


def _suggest_ids(name: str) -> str:
    """Suggestion of up to three similar ids, for messages."""
    known = [one for one in gymnasium.registry if "/" in name or "/" not in one] + _envpool_ids()
    stem = name.rpartition("/")[2].rpartition("-v")[0] or name.rpartition("/")[2]
    same = [one for one in known if one.rpartition("/")[2].rpartition("-v")[0].lower() == stem.lower()]
    near = list(dict.fromkeys([*reversed(same), *difflib.get_close_matches(name, known, 3, 0.7)]))[:3]
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _choose_backend(env_id: str, spec: EnvSpec, env_kwargs: dict[str, Any]) -> Backend:
    if _only_envpool(spec):
        return "envpool"
    # Gymnasium's phys2d batches need JAX and give different numbers.
    if spec.vector_entry_point is not None and "phys2d" not in str(spec.vector_entry_point):
        return "vector"
    if not env_kwargs and importlib.util.find_spec("envpool") is not None:
        try:
            from lit_imitation.envs.envpool import observation_space
        except MissingExtraError:
            return "sync"
        if (envpool_space := observation_space(spec.id)) is not None:
            own = _gymnasium_observation_space(env_id)
            if own is None or _shape_key(own) == _shape_key(envpool_space):
                return "envpool"
    return "sync"


def _shape_key(space: Space[Any]) -> tuple[int, ...]:
    """Comparison key of a space; a policy can move between environments whose keys are equal."""
    return (int(space.n),) if isinstance(space, Discrete) else (-1, *(space.shape or ()))


@cache
def _gymnasium_observation_space(env_id: str) -> Space[Any] | None:
    """Observation space of one copy made by Gymnasium; None if a dependency is missing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            single = make_single(env_id)
    except (ConfigError, gymnasium.error.Error):
        return None
    single.close()
    return single.observation_space
