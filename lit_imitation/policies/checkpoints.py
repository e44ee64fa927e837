"""Loading and validation of policies in checkpoints."""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from gymnasium import Space
from gymnasium.spaces import Discrete, MultiDiscrete
from torch import Tensor, nn

from lit_imitation.errors import ConfigError
from lit_imitation.policies.base import Policy
from lit_imitation.policies.categorical import CategoricalPolicy, MultiCategoricalPolicy
from lit_imitation.policies.continuous import GaussianPolicy
from lit_imitation.utils.descriptions import Describable, build, describe
from lit_imitation.utils.files import expand_user
from lit_imitation.utils.integrity import check_file, verify_archive
from lit_imitation.utils.trust import refuse_url, trust_scope

__all__ = ["build", "describe"]  # re-exported
Part = TypeVar("Part", bound=Describable)

LOADING_ERRORS = (KeyError, TypeError, ValueError, AttributeError, RuntimeError, MemoryError, OverflowError, IndexError)
"""Errors that building from an invalid description may raise."""


def default_policy_class(
    action_space: Space[Any],
) -> type[CategoricalPolicy] | type[MultiCategoricalPolicy] | type[GaussianPolicy]:
    """Default policy class: categorical for Discrete actions, multi-categorical for MultiDiscrete, Gaussian for Box."""
    if isinstance(action_space, Discrete):
        return CategoricalPolicy
    return MultiCategoricalPolicy if isinstance(action_space, MultiDiscrete) else GaussianPolicy


def default_policy(observation_space: Space[Any], action_space: Space[Any]) -> Policy:
    """Policy of the `default_policy_class` with default hyper-parameters."""
    return default_policy_class(action_space)(observation_space, action_space)


def describe_checkpoint(checkpoint: dict[str, Any]) -> str:
    """Describe a checkpoint: `GAIL with CategoricalPolicy on CartPole-v1`."""
    try:
        method, policy = checkpoint["method"], checkpoint["policy"]["class"].rpartition(".")[2]
        name, learner = method["class"].rpartition(".")[2], method["arguments"].get("learner")
        by = f" by {learner['class'].rpartition('.')[2]}" if name == "RL" and learner else ""
        where = f"on {checkpoint['env_id']}" if checkpoint["env_id"] else "without an environment"
        return f"{name}{by} with {policy} {where}"
    except (KeyError, TypeError, AttributeError):
        return "no method of this package"


def find_checkpoint(path: str | Path) -> Path:
    """Find the checkpoint for a path: the file itself, or the best checkpoint of a run's directory, else the last.

    Raises:
        ConfigError: There is none.
    """
    refuse_url(str(path), "a checkpoint")
    path = expand_user(path)
    if path.exists() and not path.is_dir():
        return check_file(path)
    for candidate in (path / "checkpoints" / "best.ckpt", path / "checkpoints" / "last.ckpt"):
        if candidate.is_file():
            return candidate
    others = sorted(path.glob("checkpoints/*.ckpt"), key=lambda file: file.stat().st_mtime)
    if not others:
        what = "contains no checkpoints/*.ckpt" if path.is_dir() else "does not exist"
        raise ConfigError(f"{path} {what}; give a checkpoint file or the directory of a finished run")
    return others[-1]


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Load a checkpoint to the CPU without executing code from it (`weights_only=True`).

    Raises:
        ConfigError: The file is not a checkpoint, is damaged, or contains more than tensors and primitives.
    """
    path = check_file(path)
    verify_archive(path, "checkpoint of tensors and primitives")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many different errors for invalid files
        reason = (str(error) or type(error).__name__).splitlines()[0]
        if isinstance(error, pickle.UnpicklingError):  # torch's text explains how to load it unsafely
            reason = "it contains other objects, which are not loaded because they could run code"
        raise ConfigError(f"{path} cannot be read as a checkpoint of tensors and primitives: {reason}") from error
    if not isinstance(checkpoint, dict):
        raise ConfigError(f"{path} contains a {type(checkpoint).__name__}, not a checkpoint")
    return checkpoint


REQUIRED_FIELDS: dict[str, type] = {
    "state_dict": dict,
    "method": dict,
    "policy": dict,
    "env_id": str,
    "epoch": int,
    "global_step": int,
    "env_steps": int,
    "evaluation": dict,
    "random_states": dict,
}
"""Fields of every checkpoint of a method, and their types."""


def check_fields(checkpoint: Mapping[str, Any], file: object) -> None:
    """Raise `ConfigError` unless the checkpoint was written by a method of this package."""
    for key, kind in REQUIRED_FIELDS.items():
        if key not in checkpoint:
            raise ConfigError(f"{file} is not a checkpoint of a method of this package: it lacks '{key}'")
        value = checkpoint[key]
        if not isinstance(value, kind) or (isinstance(value, int) and not 0 <= value < 2**63):
            raise ConfigError(f"{file} is damaged: its '{key}' is {value!r:.80}, not a valid {kind.__name__}")
    for name, value in checkpoint["evaluation"].items():
        if not isinstance(value, int | float | None):
            raise ConfigError(f"{file} is damaged: its evaluation has {name} {value!r:.80}, not a number")


def check_weights(state: Mapping[str, Any], module: nn.Module, where: object) -> None:
    """Compare weights with those of the module they will be loaded into.

    Space bounds may be infinite where the module's are; all other values have to be finite.

    Args:
        state: Weights to load; `load_state_dict` reports missing keys.
        module: Module for the weights.
        where: File, for messages.

    Raises:
        ConfigError: A value is not a tensor of the module's shape and dtype, or is NaN or infinite; the text names the
            key.
    """
    for key, own in module.state_dict().items():
        if key in state:
            check_tensor(state[key], own, f"{where}: {key}")


def check_tensor(given: Any, own: Tensor, what: str) -> None:
    """Raise `ConfigError` unless `given` can replace `own`."""
    if not isinstance(given, Tensor):
        raise ConfigError(f"{what} is a {type(given).__name__}, not a tensor")
    if given.shape != own.shape:
        raise ConfigError(f"{what} has shape {list(given.shape)}; expected {list(own.shape)}")
    if given.is_sparse or given.layout != own.layout or given.is_quantized or given.is_meta:
        raise ConfigError(f"{what} is not a plain tensor ({given.layout}, {given.dtype}, {given.device})")
    if given.is_complex() or given.is_floating_point() != own.is_floating_point():
        raise ConfigError(f"{what} has dtype {given.dtype}; expected {own.dtype}")
    if given.is_floating_point():
        wrong = ~given.isfinite() & (given != own.to(given.device))
        if wrong.any():
            value = given[wrong].flatten()[0].item()
            raise ConfigError(f"{what} contains {value}; the file is damaged, or training diverged")


def load_policy(path: str | Path, device: str | torch.device = "cpu", trust: bool = False) -> Policy:
    """Load the trained policy of a run, ready for use: `action = load_policy("runs/…")(observation)`.

    Args:
        path: Checkpoint file, or directory of a run, which stands for its best checkpoint.
        device: Device of the parameters.
        trust: Let the file name a policy class from outside this package, and import its module.

    Returns:
        The policy, in evaluation mode.

    Raises:
        ConfigError: There is no checkpoint, or it contains no policy.
    """
    policy = load_part(path, "policy", Policy, trust)  # type: ignore[type-abstract]
    policy.trained = True
    return policy.to(device).eval()


CHUNK_COUNTS = ("n_obs_steps", "horizon", "components", "codes", "levels", "latent_size")
"""Arguments of sequence policies of which a policy has more weights than their product."""


def _check_sizes(description: dict[str, Any], file: Path) -> None:
    """Raise `ConfigError` for layers or spaces too large for the file, before memory is allocated."""
    arguments = description["arguments"]
    hidden = arguments.get("hidden_sizes") or ()
    if isinstance(hidden, dict):  # description of an array
        hidden = np.ravel(hidden.get("values", ())).tolist()
    counts = [arguments[name] for name in CHUNK_COUNTS if isinstance(arguments.get(name), int)]
    sizes = [*hidden, *(a * b for a, b in pairwise(hidden)), math.prod(counts), arguments.get("noise_levels") or 0]
    sizes += _encoder_sizes(arguments.get("encoder"))
    for space in (description["observation_space"], description["action_space"]):
        sizes += _space_sizes(space)
    if max(sizes) > file.stat().st_size:
        raise ConfigError(
            f"{file} describes layers with {max(sizes)} numbers, more than the file has bytes; it is damaged"
        )


def _space_sizes(space: Any) -> list[int]:
    """Numbers of choices of a described space and of its parts."""
    if isinstance(space, dict):
        own = [n for key in ("n", "nvec") for n in np.ravel(space.get(key, 0)).tolist()]
        return own + [n for key in ("original", "spaces") for n in _space_sizes(space.get(key))]
    return [n for inner in space for n in _space_sizes(inner)] if isinstance(space, list) else []


def _encoder_sizes(options: Any) -> list[int]:
    """Sizes of the layers that an encoder's options, or those of several encoders, ask for."""
    if not isinstance(options, dict):
        return []
    hidden = options.get("hidden_sizes") if isinstance(options.get("hidden_sizes"), list | tuple) else ()
    layers = [options.get("keypoints", 1), *(hidden or ()), options.get("features", 1)]
    found = [n for one in options.values() for n in _encoder_sizes(one)]
    return found + ([*layers, *(a * b for a, b in pairwise(layers))] if all(type(n) is int for n in layers) else [])


def load_part(path: str | Path, part: str, base: type[Part], trust: bool) -> Part:
    """Load the part `policy` or `reward` of a checkpoint.

    Raises:
        ConfigError: There is no checkpoint, or it does not contain this part.
    """
    file = find_checkpoint(path)
    checkpoint = read_checkpoint(file)
    if part not in checkpoint:
        if part == "reward":
            raise ConfigError(
                f"{file} is of {describe_checkpoint(checkpoint)} and contains no learned reward; GAIL, AIRL, GCL and "
                "MaxEntIRL learn one"
            )
        raise ConfigError(f"{file} contains no policy of this package (no key 'policy')")
    prefix = f"{part}."
    try:
        _check_sizes(checkpoint[part], file)
        with trust_scope(trust):
            module: Any = build(checkpoint[part], base, file)
        state = {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}
        check_weights(state, module, file)
        module.load_state_dict(state)
    except ConfigError as error:
        if str(file) in str(error) or "the checkpoint" in str(error):
            raise
        raise ConfigError(f"{file} contains a damaged or incompatible {part}: {error}") from error
    except LOADING_ERRORS as error:
        reason = (str(error) or "no text").splitlines()[0]
        raise ConfigError(
            f"{file} contains a damaged or incompatible {part}: {type(error).__name__}: {reason:.300}"
        ) from error
    module.source = f"{file} is of {describe_checkpoint(checkpoint)}"
    built: Part = module
    return built
