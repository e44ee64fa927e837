"""Experts, which demonstrate and label. `load_expert` turns the name of one into an actor."""

from __future__ import annotations

import re
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import Space
from gymnasium.spaces import Box

from lit_imitation.errors import ExpertError
from lit_imitation.experts import scripted
from lit_imitation.experts.arrays import load_arrays
from lit_imitation.experts.base import Expert, ExpertClass, checked, space_mismatch
from lit_imitation.experts.sb3 import load_sb3
from lit_imitation.experts.scripted import CONTROLLERS
from lit_imitation.experts.user_code import FUNCTION, built, imported_class, imported_function
from lit_imitation.rollout import Actor, FunctionActor
from lit_imitation.utils.cache import Key, record_opened_files
from lit_imitation.utils.files import expand_user
from lit_imitation.utils.trust import refuse_url

__all__ = [
    "CONTROLLERS",
    "Expert",
    "ExpertClass",
    "add_expert",
    "checked",
    "expert_name",
    "load_expert",
    "shipped_file",
]

SHIPPED = Path(__file__).parent / "shipped"
"""Policies that this package ships as arrays: `ENV_ID.npz`, or `ENV_ID-continuous.npz` where an id has both kinds."""

FILE_FORMS = ("npz", "checkpoint", "sb3")
"""Prefixes of experts that are files. Any other prefix before a colon is a module."""

PUBLIC_FUNCTIONS = ("lit_imitation.experts.search:mountain_car",)
"""Functions of this package that are experts."""

FORMS = (
    "scripted",
    "shipped",
    "npz:PATH",
    "checkpoint:PATH",
    "sb3:PATH.zip",
    "package.module:function",
    "{class_path: package.module.ClassName, init_args: {...}}",
)
"""A hand-written controller; a policy that this package ships; an MLP as arrays; a run or checkpoint; a
Stable-Baselines3 model; a function of the user; a class of the user with its arguments."""


def expert_name(expert: Any) -> str:
    """Name of an expert for messages and metadata.

    Args:
        expert: The name or mapping that `load_expert` takes, or a function or object.
    """
    if isinstance(expert, str):
        return expert
    if isinstance(expert, Mapping):
        arguments = ", ".join(f"{name}={value!r}" for name, value in (expert.get("init_args") or {}).items())
        return f"{expert.get('class_path')}({arguments})"
    return str(getattr(expert, "__name__", type(expert).__name__))


def shipped_file(env_id: str, action_space: Space[Any]) -> Path:
    """Path of the shipped policy for an environment, which may not exist."""
    continuous = SHIPPED / f"{env_id}-continuous.npz"
    return continuous if isinstance(action_space, Box) and continuous.is_file() else SHIPPED / f"{env_id}.npz"


def add_expert(
    key: Key, expert: str | ExpertClass | Expert, env_id: str, action_space: Space[Any], *, trust: bool = False
) -> None:
    """Add to a cache key everything that decides how an expert acts: files, source code, arguments and `cache_key`.

    Args:
        key: Key of a result that depends on the expert.
        expert: The name or mapping that `load_expert` takes, or a function or object.
        env_id: Environment of a `scripted` or `shipped` expert.
        action_space: Space of a single environment.
        trust: Whether a checkpoint may name a policy class that is not part of this package.

    Raises:
        ExpertError: A function or class cannot be imported, or its `cache_key` failed.
    """
    if isinstance(expert, dict):
        _add_class(key, expert)
        return
    if not isinstance(expert, str):
        key.add("expert", getattr(expert, "__qualname__", type(expert).__qualname__))
        _add_function(key, expert)
        return
    key.add("expert", expert)
    form, _, rest = expert.partition(":")
    if expert == "scripted":
        key.add_module(scripted.__name__)
    elif expert == "shipped":
        key.add_file(shipped_file(env_id, action_space))
    elif form == "checkpoint":
        from lit_imitation.policies.checkpoints import find_checkpoint, load_policy

        key.add_file(find_checkpoint(rest))
        for module in load_policy(rest, trust=trust).modules():
            if not type(module).__module__.startswith("torch."):
                key.add_code(type(module))
    elif form in ("npz", "sb3"):
        key.add_file(expand_user(rest))
    elif re.fullmatch(FUNCTION, expert):
        with record_opened_files(key.opened):
            function = imported_function(expert)
        before = key.unreadable
        key.add_module(form)
        _add_function(key, function, named=True)
        if hasattr(function, "cache_key"):  # its author declares what it depends on
            key.unreadable = before


def _add_class(key: Key, expert: Mapping[str, Any]) -> None:
    """Add a class of the user: its path, its arguments, its source code, and the `cache_key` of the object."""
    with record_opened_files(key.opened):
        cls = imported_class(expert)
        declares = hasattr(cls, "cache_key")
        declared = built(expert) if declares else None
    key.add("expert", str(expert["class_path"]))
    key.add("expert.init_args", dict(expert.get("init_args") or {}))
    before = key.unreadable
    key.add_code(cls)
    if declares:
        _add_declared(key, declared)
        key.unreadable = before  # its author declares what it depends on


def _add_function(key: Key, function: Any, *, named: bool = False) -> None:
    """Add the source code of a function and its `cache_key`; without a module and name it may not be comparable."""
    if getattr(function, "cache_key", None) is None:
        if not named and getattr(function, "__closure__", None) is not None:
            key.refuse(f"what {function.__qualname__} refers to cannot be compared with that of another run")
        elif not named and not isinstance(function, types.FunctionType):
            key.refuse(f"a {type(function).__qualname__} cannot be compared with that of another run")
        key.add_code(function)
        return
    _add_declared(key, function)


def _add_declared(key: Key, expert: Any) -> None:
    """Add the `cache_key` of an expert, a value or a function that returns one."""
    declared = expert.cache_key
    try:
        key.add("cache_key", declared() if callable(declared) else declared)
    except Exception as error:  # the user's code may raise anything
        raise ExpertError(f"the expert's cache_key failed: {type(error).__name__}: {error}") from error


def load_expert(
    spec: str | ExpertClass,
    env_id: str,
    observation_space: Space[Any],
    action_space: Space[Any],
    *,
    deterministic: bool = True,
    trust: bool = False,
) -> Actor:
    """The expert that `spec` names, as an actor for one environment.

    Args:
        spec: `scripted`, `shipped`, `npz:PATH`, `checkpoint:PATH`, `sb3:PATH.zip` or `package.module:function`; or
            `{"class_path": "package.module.ClassName", "init_args": {…}}` for a class of the user.
        env_id: Environment of a `scripted` or `shipped` expert.
        observation_space: Space of a single environment, as `make` gives it.
        action_space: Space of a single environment.
        deterministic: Whether to take the mode of the expert's distribution instead of drawing from it by the global
            random streams of NumPy and torch. `scripted` experts have no distribution; the user's code decides for
            itself.
        trust: Whether to open files that can execute code (`sb3:`) or name a policy class that is not part of this
            package (`checkpoint:`).

    Raises:
        ExpertError: There is no such expert, it cannot be loaded, or it was made for other spaces.
        MissingExtraError: It needs a package that is not installed.
    """
    if isinstance(spec, Mapping):
        return checked(built(spec), observation_space, action_space, str(spec["class_path"]))
    refuse_url(spec, "expert", ExpertError)
    form, _, rest = spec.partition(":")
    if spec == "scripted":
        return _scripted(env_id, observation_space, action_space)
    if spec == "shipped":
        file = shipped_file(env_id, action_space)
        if not file.is_file():
            there = ", ".join(sorted(path.stem for path in SHIPPED.glob("*.npz")))
            raise ExpertError(f"no expert for {env_id} is shipped; there is one for {there}")
        return load_arrays(file, observation_space, action_space, deterministic=deterministic)
    if form == "npz" and rest:
        return load_arrays(rest, observation_space, action_space, deterministic=deterministic)
    if form == "checkpoint" and rest:
        return _checkpoint(rest, observation_space, action_space, deterministic=deterministic, trust=trust)
    if form == "sb3" and rest:
        return load_sb3(rest, observation_space, action_space, deterministic=deterministic, trust=trust)
    if re.fullmatch(FUNCTION, spec):
        return checked(imported_function(spec), observation_space, action_space, spec)
    named = {".npz": "npz", ".zip": "sb3", ".ckpt": "checkpoint"}.get(expand_user(spec).suffix)
    if named is None and expand_user(spec).is_dir():
        named = "checkpoint"
    near = f"did you mean {named}:{spec}? " if named and spec and ":" not in spec else ""
    raise ExpertError(
        f"there is no expert {spec!r}; {near}{'An' if near else 'an'} expert is one of {', '.join(FORMS)}"
    )


def _scripted(env_id: str, observation_space: Space[Any], action_space: Space[Any]) -> Actor:
    if env_id not in CONTROLLERS:
        raise ExpertError(f"no scripted expert for {env_id}; there is one for {', '.join(sorted(CONTROLLERS))}")
    controller = CONTROLLERS[env_id]
    zero = np.zeros((1, *(observation_space.shape or ())), np.float32)
    try:  # an environment made with other options can have other spaces under the same id
        controller(zero)
    except (ValueError, IndexError) as error:
        raise ExpertError(f"the scripted expert for {env_id} does not read observations {observation_space}") from error
    checked(controller, observation_space, action_space, "scripted").act(zero)
    return FunctionActor(controller)


def _checkpoint(
    path: str, observation_space: Space[Any], action_space: Space[Any], *, deterministic: bool, trust: bool
) -> Actor:
    from lit_imitation.policies import load_policy

    policy = load_policy(path, trust=trust)
    reads = space_mismatch(policy.observation_space, observation_space, bounds=False)
    if reads or space_mismatch(policy.action_space, action_space, bounds=True):
        what = (
            f"reads {policy.observation_space}, the environment gives {observation_space}"
            if reads
            else f"acts in {policy.action_space}, the environment in {action_space}"
        )
        raise ExpertError(f"expert checkpoint:{path} {what}; {policy.source}")
    return policy.actor(deterministic)
