"""Checkpoints of methods: descriptions, checks and loading, and the settings of a resumed run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import torch
from gymnasium import Space
from lightning import Trainer
from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer

from lit_imitation.data.blocks import Blocks
from lit_imitation.errors import ConfigError, TrainingError
from lit_imitation.experts.base import space_mismatch
from lit_imitation.networks.mlp import Standardize
from lit_imitation.policies.checkpoints import (
    LOADING_ERRORS,
    check_fields,
    check_weights,
    describe_checkpoint,
    find_checkpoint,
    read_checkpoint,
)
from lit_imitation.rl.normalization import RunningMoments
from lit_imitation.utils.descriptions import (
    KIND,
    class_name,
    class_names,
    decode,
    describe,
    differences,
    encode,
    find_class,
    find_undescribed,
    subclasses,
    to_plain,
)
from lit_imitation.utils.spaces import space_from_dict
from lit_imitation.utils.trust import trust_scope

Method: TypeAlias = Any
"""A `Method`, whose module imports this one."""


class Memory:
    """State of a method between loading a checkpoint and resuming from it."""

    def __init__(self) -> None:
        self.resumed_from: dict[str, Any] | None = None
        """The checkpoint, until the settings of its optimizers are replaced."""
        self.optimizer_settings: list[list[dict[str, Any]]] = []
        """Settings of each optimizer's parameter groups at the start of the run."""
        self.random_states: dict[str, Any] | None = None
        """States of the random streams when the checkpoint was written."""


def spaces_of(checkpoint: dict[str, Any]) -> tuple[Space[Any], Space[Any]]:
    """Observation and action space of the policy in a checkpoint."""
    policy = checkpoint["policy"]
    return space_from_dict(policy["observation_space"]), space_from_dict(policy["action_space"])


def describe_method(method: Method) -> dict[str, Any]:
    """Describe class and arguments of a method and its parts as plain data."""
    parts = {name: part for name, part in method.parts().items() if name in method.arguments}
    arguments = {name: encode(value) for name, value in method.arguments.items() if name not in parts}
    for name, part in parts.items():
        arguments[name] = None if part is None else _factory(describe(part))
    return {"class": class_name(type(method)), "arguments": arguments}


# Loading


def load_method(
    cls: type[Any],
    base: type[Any],
    path: str | Path,
    device: str | torch.device,
    strict: bool | None,
    trust: bool,
    arguments: dict[str, Any],
) -> Method:
    """Load the method of a checkpoint with its weights; see `Method.load_from_checkpoint`."""
    file = find_checkpoint(path)
    checkpoint = read_checkpoint(file)
    check_fields(checkpoint, file)
    with trust_scope(trust, class_names([cls, *arguments.values()])):
        try:
            method = _rebuild(cls, base, checkpoint, file, arguments)
            strictly = method.strict_loading if strict is None else strict
            if misfit := _misfit(method, checkpoint["state_dict"], strictly):
                raise ConfigError(
                    f"{file} is of {describe_checkpoint(checkpoint)}, which does not fit what it is loaded with: "
                    f"{misfit}"
                )
            method.on_load_checkpoint(checkpoint)
            method.load_state_dict(checkpoint["state_dict"], strictly)
        except LOADING_ERRORS as error:
            raise ConfigError(f"{file} holds a damaged or foreign method: {type(error).__name__}: {error}") from error
    return method.to(device)


def _rebuild(
    cls: type[Any], base: type[Any], checkpoint: dict[str, Any], file: Path, arguments: dict[str, Any]
) -> Method:
    """Build the method of a checkpoint with new weights."""
    described = checkpoint["method"]
    trained = find_class(described["class"], base, file)
    if not issubclass(trained, cls) and not issubclass(cls, trained):
        raise ConfigError(
            f"{file} is of {describe_checkpoint(checkpoint)}; {trained.__name__}.load_from_checkpoint loads it, not "
            f"{cls.__name__}'s"
        )
    given = {name: decode(value) for name, value in described["arguments"].items() if name not in arguments}
    chosen: Any = trained if issubclass(trained, cls) else cls
    method: Method = chosen(**given, **arguments)
    method.rebuild(checkpoint)
    return method


def load(method: Method, checkpoint: dict[str, Any]) -> None:
    """Check that a checkpoint is undamaged and has the method, policy and environment of this run.

    Raises:
        ConfigError: It is not or has not; the message describes the checkpoint and this run.
    """
    file = (method.attached and method.trainer.ckpt_path) or "the checkpoint"
    check_fields(checkpoint, file)
    if method.attached:
        try:
            _check_match(method, checkpoint)
        except LOADING_ERRORS as error:
            raise ConfigError(f"{file} is damaged: {type(error).__name__}: {error}") from error
        method.memory.resumed_from = checkpoint if method.trainer.state.fn == "fit" else None
    check_weights(checkpoint["state_dict"], method, file)


def _check_match(method: Method, checkpoint: dict[str, Any]) -> None:
    """Check that a checkpoint has the method, policy and environment of this run; report different settings."""
    trainer = method.trainer
    path, training = trainer.ckpt_path, trainer.state.fn == "fit"
    env_id = str(method.datamodule.env_id)
    then, now = checkpoint["method"], method.description()
    policy = describe(method.policy)
    changed = differences(_settings(then, checkpoint["policy"]), _settings(now, policy))
    settings = ", ".join(f"{name} {old} -> {new}" for name, old, new in changed)
    mine = describe_checkpoint({"method": now, "policy": policy, "env_id": env_id})
    pairs = zip(spaces_of(checkpoint), (method.policy.observation_space, method.policy.action_space), strict=True)
    other_spaces = [pair for i, pair in enumerate(pairs) if space_mismatch(*pair, bounds=i == 1)]
    elsewhere = training and checkpoint["env_id"].rpartition("-v")[0] != env_id.rpartition("-v")[0]
    detail = ""
    if _is_related(method, then["class"]) and checkpoint["policy"]["class"] == policy["class"]:
        if not other_spaces and not elsewhere:
            if not (misfit := _misfit(method, checkpoint["state_dict"], method.strict_loading)):
                if training and settings:
                    rank_zero_info(f"resumed with settings that differ from the checkpoint's: {settings}")
                if checkpoint["env_id"] != env_id:
                    rank_zero_warn(f"{path} is of {describe_checkpoint(checkpoint)}; this run is on {env_id}")
                return
            detail = f" ({settings or misfit})"
        elif describe_checkpoint(checkpoint) == mine:
            detail = " with other observations or actions"
        elif other_spaces and not checkpoint["env_id"]:
            one, other = other_spaces[0]
            cure = "; train it with these bounds as data.action_space" if one.shape == other.shape else ""
            detail = f". It was trained for {one}, and the environment has {other}{cure}"
    raise ConfigError(f"{path} is of {describe_checkpoint(checkpoint)}; this run is {mine}{detail}")


def _is_related(method: Method, name: str) -> bool:
    """Whether a class is the method's, or one is a subclass of the other and at least one is a user's own."""
    mine = type(method)
    related = {class_name(cls) for cls in (*mine.__mro__, *subclasses(mine))}
    own = not all(one.startswith("lit_imitation.") for one in (name, class_name(mine)))
    return name == class_name(mine) or (own and name in related)


def _misfit(method: Method, state: dict[str, Tensor], strict: bool) -> str:
    """Name the first weight that checkpoint and method do not share; empty if there is none."""
    mine = method.state_dict()
    for name in {**mine, **state}:
        if name in state and name in mine:
            if isinstance(state[name], Tensor) and state[name].shape != mine[name].shape:
                return f"{name} {list(state[name].shape)} -> {list(mine[name].shape)}"
        elif strict:
            return f"{name} is only {'in the checkpoint' if name in state else 'here'}"
    return ""


# Saving


def save(method: Method, checkpoint: dict[str, Any]) -> None:
    """Add the description of the method and its optimizers' settings, and make the checkpoint safe to load."""
    checkpoint["method"] = method.description()
    checkpoint["policy"] = describe(method.policy)
    checkpoint["env_id"] = method.datamodule.env_id
    checkpoint["optimizer_settings"] = method.memory.optimizer_settings
    _save_averages(method, checkpoint)
    for key in checkpoint.keys() - {"state_dict"}:
        checkpoint[key] = to_plain(checkpoint[key])


def _save_averages(method: Method, checkpoint: dict[str, Any]) -> None:
    """Save averaged weights, if there are any, as the weights, and the last weights in the optimizer's state."""
    names = {id(parameter): name for name, parameter in method.named_parameters()}
    for number, descent in enumerate(method.descents):
        if (found := descent.average()) is None:
            continue
        for parameter, average in zip(descent.parameters, found, strict=True):
            checkpoint["state_dict"][names[id(parameter)]] = average
        if states := checkpoint.get("optimizer_states"):
            state = states[number]["state"]
            states[number]["state"] = {0: state[0] | {"average": descent.last().clone()}}


def check_finite(method: Method, checkpoint: dict[str, Any]) -> None:
    """Check that weights, statistics and optimizer states are finite before they are saved.

    Other buffers may be infinite, such as the bounds of an action space.

    Raises:
        TrainingError: One of them is not; the message names the first one and the last good checkpoint.
    """
    learned = {name for name, _ in method.named_parameters()}
    for name, module in method.named_modules():
        if isinstance(module, Standardize | RunningMoments):
            learned |= {f"{name}.{buffer}" for buffer, _ in module.named_buffers()}
    found = [(name, value) for name, value in checkpoint["state_dict"].items() if name in learned]
    for i, state in enumerate(checkpoint.get("optimizer_states", [])):
        for moments in state["state"].values():
            found += [(f"{name} of optimizer {i}", x) for name, x in moments.items() if isinstance(x, Tensor)]
    for name, value in found:
        if value.is_floating_point() and not value.isfinite().all():
            raise TrainingError(
                f"{name} is no longer finite after step {method.global_step} (epoch {method.current_epoch}), so it is "
                f"not saved\n{last_good(method.trainer)}"
            )


def last_good(trainer: Trainer) -> str:
    """Where a run that stopped itself can be resumed."""
    callback = trainer.checkpoint_callback
    path = getattr(callback, "last_model_path", "") or getattr(callback, "best_model_path", "")
    return f"last good checkpoint: {path or 'none yet'}; a lower learning rate often helps"


# Resuming


def settle_settings(method: Method) -> None:
    """Record the settings of the optimizers; in a resumed run, let them replace the checkpoint's.

    The optimizer states are those of the checkpoint. Learning rates, betas and weight decay are those that the run was
    started with.
    """
    trainer, memory = method.trainer, method.memory
    memory.optimizer_settings = [
        [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
        for optimizer in trainer.optimizers
    ]
    checkpoint, memory.resumed_from = memory.resumed_from, None
    if checkpoint is None:
        if missing := find_undescribed(_settings(method.description(), describe(method.policy))):
            rank_zero_warn(
                f"a checkpoint cannot store {', '.join(missing)}: pass it by keyword when you load the checkpoint"
            )
        return
    if "optimizer_states" in checkpoint:  # Lightning has a message of its own about weights alone
        try:
            _replace_settings(method, checkpoint)
        except LOADING_ERRORS as error:
            reason = f"{type(error).__name__}: {error}"
            raise ConfigError(f"--ckpt_path {trainer.ckpt_path} is damaged: optimizer states: {reason}") from error


def _replace_settings(method: Method, checkpoint: dict[str, Any]) -> None:
    """Replace the settings of optimizers in a checkpoint, before Lightning loads its states."""
    for optimizer, state in zip(method.trainer.optimizers, checkpoint["optimizer_states"], strict=False):
        _check_moments(optimizer, state, method.trainer.ckpt_path)
    states = [state["param_groups"] for state in checkpoint["optimizer_states"]]
    for groups, then, now in zip(
        states, checkpoint["optimizer_settings"], method.memory.optimizer_settings, strict=True
    ):
        for group, old, new in zip(groups, then, now, strict=True):
            for name in new.keys() & old.keys():
                if to_plain(new[name]) == old[name]:
                    continue
                if name == "lr" and group["lr"] != old["lr"] and old["lr"]:  # changed during training, as by annealing
                    group["lr"] = group["lr"] * (new["lr"] / old["lr"])
                else:
                    group[name] = new[name]
            if new.get("schedule") != old.get("schedule"):
                group["lr"] = new["lr"]


def align_progress(trainer: Trainer) -> None:
    """Set Lightning's count of completed blocks to the loader's.

    A resumed run may divide the epoch into other blocks, since `trainer.max_steps` may have shortened the last block of
    the run before.
    """
    loader = trainer.train_dataloader
    if not isinstance(loader, Blocks) or not loader.within_epoch:
        return
    current: Any = trainer.fit_loop.epoch_loop.batch_progress.current
    pending = current.processed - current.completed  # 1 if the checkpoint was written after a block, not an epoch
    current.ready = current.started = current.processed = loader.done
    current.completed = loader.done - pending


def _check_moments(optimizer: Optimizer, state: dict[str, Any], path: object) -> None:
    """Check the shapes of a fused optimizer's state: with wrong ones, its kernel would read beyond the tensor.

    Raises:
        ConfigError: A tensor does not have the shape of its parameter.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if not any(group.get("fused") for group in optimizer.param_groups):
        return
    for index, parameter in enumerate(parameters):
        for name, value in dict(state["state"].get(index, {})).items():
            shape = torch.Size() if name == "step" else parameter.shape
            if not isinstance(value, Tensor) or value.shape != shape:
                what = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise ConfigError(
                    f"--ckpt_path {path} is damaged: {name} of parameter {index} in the optimizer state is {what}, not "
                    f"{list(shape)}"
                )


def _factory(description: dict[str, Any]) -> dict[str, Any]:
    """Description of a factory that builds such an object for any spaces."""
    return {KIND: "factory", "class": description["class"], "arguments": description["arguments"]}


def _settings(method: dict[str, Any], policy: dict[str, Any]) -> dict[str, Any]:
    """Settings that two runs of a method can differ in."""
    arguments = {name: value for name, value in method["arguments"].items() if name not in ("policy", "start")}
    return {"class": method["class"], "arguments": arguments, "policy": _factory(policy)}
