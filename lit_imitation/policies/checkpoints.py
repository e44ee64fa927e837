"""A policy as it stands in a checkpoint, and back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
import yaml
from gymnasium import Space
from gymnasium.spaces import Discrete, MultiDiscrete

from lit_imitation.envs.spaces import space_from_dict, space_to_dict
from lit_imitation.errors import ConfigError
from lit_imitation.files import expanded
from lit_imitation.policies.base import Policy
from lit_imitation.policies.categorical import CategoricalPolicy, MultiCategoricalPolicy
from lit_imitation.policies.continuous import GaussianPolicy

Built = TypeVar("Built")


def default_policy_class(
    action_space: Space[Any],
) -> type[CategoricalPolicy] | type[MultiCategoricalPolicy] | type[GaussianPolicy]:
    """Categorical for discrete actions, one categorical a component for several at once, Gaussian for continuous."""
    if isinstance(action_space, Discrete):
        return CategoricalPolicy
    return MultiCategoricalPolicy if isinstance(action_space, MultiDiscrete) else GaussianPolicy


def default_policy(observation_space: Space[Any], action_space: Space[Any]) -> Policy:
    """One of `default_policy_class` with default hyper-parameters."""
    return default_policy_class(action_space)(observation_space, action_space)


class Describable(Protocol):
    """What is built from two spaces and hyper-parameters, and remembers them."""

    observation_space: Space[Any]
    action_space: Space[Any]
    arguments: dict[str, Any]


def describe(module: Describable) -> dict[str, Any]:
    """A policy's (or reward's) class, spaces and hyper-parameters as primitives; with its `state_dict` all of it."""
    cls = type(module)
    return {
        "class": f"{cls.__module__}.{cls.__qualname__}",
        "arguments": dict(module.arguments),
        "observation_space": space_to_dict(module.observation_space),
        "action_space": space_to_dict(module.action_space),
    }


def build(description: dict[str, Any], base: type[Built]) -> Built:
    """The inverse of `describe`, with fresh weights.

    The class is looked up among those already imported: a file names a class, it does not get to import one.

    Raises:
        ConfigError: no imported subclass of `base` has that name.
    """
    name = description["class"]
    for cls in _subclasses(base):
        if f"{cls.__module__}.{cls.__qualname__}" == name:
            spaces = [space_from_dict(description[key]) for key in ("observation_space", "action_space")]
            return cls(*spaces, **description["arguments"])
    raise ConfigError(
        f"the checkpoint holds a {base.__name__.lower()} of class {name}; import the module that defines it first"
    )


def _subclasses(cls: type[Built]) -> Iterator[type[Built]]:
    for subclass in cls.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint that a path means: a file itself; of a run's directory the best one, else the last.

    Raises:
        ConfigError: there is none.
    """
    path = expanded(path)
    if path.is_file():
        return path
    for candidate in (path / "checkpoints" / "best.ckpt", path / "checkpoints" / "last.ckpt"):
        if candidate.is_file():
            return candidate
    others = sorted(path.glob("checkpoints/*.ckpt"), key=lambda file: file.stat().st_mtime)
    if not others:
        what = "holds no checkpoints/*.ckpt" if path.is_dir() else "does not exist"
        raise ConfigError(f"{path} {what}; give a checkpoint file or the directory of a finished run")
    return others[-1]


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Load a checkpoint onto the CPU without executing anything from it (`weights_only=True`).

    Raises:
        ConfigError: the file is not a checkpoint, or holds more than tensors and primitives.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a different one for each way a file can be bad
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError(f"{path} cannot be read as a checkpoint of tensors and primitives: {reason}") from error
    if not isinstance(checkpoint, dict):
        raise ConfigError(f"{path} holds a {type(checkpoint).__name__}, not a checkpoint")
    return checkpoint


def trained_on(path: str | Path) -> str:
    """The `env_id` of the run that wrote a checkpoint, where its configuration says so; else empty."""
    try:
        config = yaml.safe_load(read_checkpoint(find_checkpoint(path))["config"])
        return str(config["data"]["init_args"]["env_id"])
    except (ConfigError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        return ""


def load_policy(path: str | Path, device: str | torch.device = "cpu") -> Policy:
    """The trained policy of a run, ready for use: `action = load_policy("runs/…")(observation)`.

    Args:
        path: a checkpoint file, or the directory of a run (its best checkpoint is taken).
        device: where its parameters shall be.

    Raises:
        ConfigError: no checkpoint there, or not one of a policy.
    """
    file = find_checkpoint(path)
    checkpoint = read_checkpoint(file)
    if "policy" not in checkpoint:
        raise ConfigError(f"{file} holds no policy of this package (no key 'policy')")
    prefix = "policy."
    try:
        policy = build(checkpoint["policy"], Policy)  # type: ignore[type-abstract]
        state = {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}
        policy.load_state_dict(state)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ConfigError(f"{file} holds a damaged or foreign policy: {type(error).__name__}: {error}") from error
    policy.trained = True
    return policy.to(device).eval()
