"""Experts: who demonstrates. `load_expert` turns the name of one into a function from observations to actions."""

from __future__ import annotations

import importlib
import os
import re
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import Space
from gymnasium.spaces import Box

from lit_imitation.errors import ExpertError
from lit_imitation.experts import scripted
from lit_imitation.experts.arrays import load_arrays
from lit_imitation.experts.base import Expert, checked, space_mismatch
from lit_imitation.experts.sb3 import load_sb3
from lit_imitation.experts.scripted import CONTROLLERS
from lit_imitation.utils.cache import Key, record_opened_files
from lit_imitation.utils.files import expand_user
from lit_imitation.utils.trust import refuse_url

__all__ = ["CONTROLLERS", "Expert", "add_expert", "checked", "load_expert", "shipped_file"]

SHIPPED = Path(__file__).parent / "shipped"
"""Policies that were trained here, as arrays: `ENV_ID.npz`, or `ENV_ID-continuous.npz` where an id has both kinds."""

FILE_FORMS = ("npz", "checkpoint", "sb3")
"""Experts that are files; what else stands before a colon is a module."""

PUBLIC_FUNCTIONS = ("lit_imitation.experts.search:mountain_car",)
"""Functions of this package that serve as experts by name."""

FORMS = ("scripted", "shipped", "npz:PATH", "checkpoint:PATH", "sb3:PATH.zip", "package.module:function")
"""A hand-written controller; a policy that comes with this package; an MLP as arrays; a run or checkpoint; a
Stable-Baselines3 model; and one's own function, from observations `[B, *obs]` to actions `[B, *act]`."""

IMPORTED = r"[^\W\d][\w.]*:[^\W\d]\w*"
"""How `package.module:function` is told from other names."""


def shipped_file(env_id: str, action_space: Space[Any]) -> Path:
    """Where the policy that is shipped for an environment is, if there is one."""
    continuous = SHIPPED / f"{env_id}-continuous.npz"
    return continuous if isinstance(action_space, Box) and continuous.is_file() else SHIPPED / f"{env_id}.npz"


def add_expert(key: Key, expert: str | Expert, env_id: str, action_space: Space[Any], *, trust: bool = False) -> None:
    """Put into a cache's key what decides what an expert does: its files, its source, and its own `cache_key`.

    Args:
        key: of what the expert did.
        expert: as for `load_expert`, or a function.
        env_id: which controller `scripted` means, which policy `shipped`.
        action_space: of a single environment.
        trust: let a checkpoint name a policy class that is not of this package.

    Raises:
        ExpertError: a function that cannot be imported, or whose `cache_key` fails.
    """
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
    elif re.fullmatch(IMPORTED, expert):
        with record_opened_files(key.opened):
            function = _imported(expert)
        before = key.unreadable
        key.add_module(form)
        _add_function(key, function, named=True)
        if hasattr(function, "cache_key"):  # its author knows what it depends on
            key.unreadable = before


def _add_function(key: Key, function: Any, *, named: bool = False) -> None:
    """The source of a function, and what it says itself; one that is not `named` in a module can be anything."""
    declared = getattr(function, "cache_key", None)
    if declared is None:
        if not named and getattr(function, "__closure__", None) is not None:
            key.refuse(f"what {function.__qualname__} refers to cannot be compared with that of another run")
        elif not named and not isinstance(function, types.FunctionType):
            key.refuse(f"a {type(function).__qualname__} cannot be compared with that of another run")
        key.add_code(function)
        return
    try:
        key.add("cache_key", declared() if callable(declared) else declared)
    except Exception as error:  # somebody else's code may fail in any way
        raise ExpertError(f"the expert's cache_key failed: {type(error).__name__}: {error}") from error


def load_expert(
    spec: str,
    env_id: str,
    observation_space: Space[Any],
    action_space: Space[Any],
    *,
    deterministic: bool = True,
    trust: bool = False,
) -> Expert:
    """The expert that `spec` names, for one environment.

    Args:
        spec: `scripted`, `shipped`, `npz:PATH`, `checkpoint:PATH`, `sb3:PATH.zip` or `package.module:function`.
        env_id: which controller `scripted` means, which policy `shipped`.
        observation_space: of a single environment.
        action_space: of a single environment.
        deterministic: the mode of the expert's distribution, else a draw from it, by the global random streams of
            NumPy and torch. `scripted` has no distribution; a function of your own decides for itself.
        trust: allow files that can execute code (`sb3:`), or that name a policy class of others (`checkpoint:`).

    Raises:
        ExpertError: no such expert, one that cannot be loaded, or one made for other spaces.
        MissingExtraError: it needs a package that is not installed.
    """
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
    if re.fullmatch(IMPORTED, spec):
        return checked(_imported(spec), action_space, spec)
    named = {".npz": "npz", ".zip": "sb3", ".ckpt": "checkpoint"}.get(expand_user(spec).suffix)
    if named is None and expand_user(spec).is_dir():
        named = "checkpoint"
    near = f"did you mean {named}:{spec}? " if named and spec and ":" not in spec else ""
    raise ExpertError(
        f"there is no expert {spec!r}; {near}{'An' if near else 'an'} expert is one of {', '.join(FORMS)}"
    )


def _scripted(env_id: str, observation_space: Space[Any], action_space: Space[Any]) -> Expert:
    if env_id not in CONTROLLERS:
        raise ExpertError(f"no scripted expert for {env_id}; there is one for {', '.join(sorted(CONTROLLERS))}")
    controller = CONTROLLERS[env_id]
    zero = np.zeros((1, *(observation_space.shape or ())), np.float32)
    try:  # an environment made with other options can have other spaces under the same id
        controller(zero)
    except (ValueError, IndexError) as error:
        raise ExpertError(f"the scripted expert for {env_id} does not read observations {observation_space}") from error
    checked(controller, action_space, "scripted")(zero)
    return controller


def _checkpoint(
    path: str, observation_space: Space[Any], action_space: Space[Any], *, deterministic: bool, trust: bool
) -> Expert:
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


def _imported(spec: str) -> Expert:
    """The function at `package.module:function`; modules beside the person who types count as importable."""
    module, _, name = spec.partition(":")
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        function = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # the module is somebody else's code and may fail in any way
        raise ExpertError(f"expert {spec} cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(here)
    expert: Expert = function
    return expert
