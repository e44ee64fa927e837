"""What a method's checkpoint says of the method, what is rebuilt from it, and what a resumed run changes."""

from __future__ import annotations

import warnings
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeVar

import torch
from gymnasium import Space
from lightning import LightningModule
from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lit_imitation.errors import ConfigError
from lit_imitation.experts.base import space_mismatch
from lit_imitation.policies import Policy
from lit_imitation.policies.checkpoints import (
    LOADING_ERRORS,
    check_fields,
    describe_checkpoint,
    find_checkpoint,
    read_checkpoint,
)
from lit_imitation.utils.descriptions import (
    KIND,
    Describable,
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

Module = TypeVar("Module", bound="CheckpointedModule")


def spaces_of(checkpoint: dict[str, Any]) -> tuple[Space[Any], Space[Any]]:
    """Observation and action space of the policy in a checkpoint."""
    policy = checkpoint["policy"]
    return space_from_dict(policy["observation_space"]), space_from_dict(policy["action_space"])


class CheckpointedModule(Describable, LightningModule):
    """A method that describes itself in its checkpoints and is rebuilt from them.

    What a checkpoint says of optimizers is their state; their settings (learning rate, betas, weight decay) and those
    of schedulers are always the ones that the run was started with.
    """

    policy: Policy

    def __init__(self) -> None:
        super().__init__()
        self._resumed_from: dict[str, Any] | None = None
        self._optimizer_settings: list[list[dict[str, Any]]] = []
        self._scheduler_settings: list[dict[str, Any]] = []

    # Description

    def parts(self) -> dict[str, Describable | None]:
        """What the factories among the arguments have built, by the argument's name; None where none was given."""
        return {"policy": self.policy if self.arguments.get("policy") is not None else None}

    def description(self) -> dict[str, Any]:
        """Class and arguments of the method and of its parts as plain data: everything that shapes results."""
        parts = {name: part for name, part in self.parts().items() if name in self.arguments}
        arguments = {name: encode(value) for name, value in self.arguments.items() if name not in parts}
        for name, part in parts.items():
            arguments[name] = None if part is None else _factory(describe(part))
        return {"class": class_name(type(self)), "arguments": arguments}

    def rebuild(self, checkpoint: dict[str, Any]) -> None:
        """Build for the spaces of a checkpoint what `configure_model` builds for those of the environment."""
        raise NotImplementedError

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls: type[Module],
        checkpoint_path: str | Path,
        map_location: str | torch.device = "cpu",
        hparams_file: None = None,
        strict: bool | None = None,
        weights_only: bool | None = None,
        trust: bool = False,
        **arguments: Any,
    ) -> Module:
        """The method as it was trained: its settings, networks and weights.

        To go on training, give the same file to `Trainer.fit` as `ckpt_path`.

        Args:
            checkpoint_path: a checkpoint file, or the directory of a run (its best checkpoint is taken).
            map_location: device of the parameters.
            hparams_file: unused; the checkpoint holds the settings.
            strict: whether all weights must be there; by default as `strict_loading` says.
            weights_only: unused; a checkpoint is never read in another way.
            trust: let the file name classes that are not of this package.
            arguments: the constructor's, in place of those in the checkpoint.

        Raises:
            ConfigError: there is no checkpoint, it is of another method, or its weights do not fit these arguments.
        """
        file = find_checkpoint(checkpoint_path)
        checkpoint = read_checkpoint(file)
        check_fields(checkpoint, file)
        with trust_scope(trust, class_names([cls, *arguments.values()])):
            try:
                module = cls._rebuilt(checkpoint, file, arguments)
                strictly = module.strict_loading if strict is None else strict
                if misfit := module._misfit(checkpoint["state_dict"], strictly):
                    raise ConfigError(
                        f"{file} is of {describe_checkpoint(checkpoint)}, which does not fit what it is loaded with: "
                        f"{misfit}"
                    )
                module.on_load_checkpoint(checkpoint)
                module.load_state_dict(checkpoint["state_dict"], strictly)
            except LOADING_ERRORS as error:
                raise ConfigError(
                    f"{file} holds a damaged or foreign method: {type(error).__name__}: {error}"
                ) from error
        return module.to(map_location)

    @classmethod
    def _rebuilt(cls: type[Module], checkpoint: dict[str, Any], file: Path, arguments: dict[str, Any]) -> Module:
        """The method with its networks, which have fresh weights."""
        described = checkpoint["method"]
        trained = find_class(described["class"], CheckpointedModule, file)
        if not issubclass(trained, cls) and not issubclass(cls, trained):
            raise ConfigError(
                f"{file} is of {describe_checkpoint(checkpoint)}; {trained.__name__}.load_from_checkpoint loads it, "
                f"not {cls.__name__}'s"
            )
        given = {name: decode(value) for name, value in described["arguments"].items() if name not in arguments}
        chosen: Any = trained if issubclass(trained, cls) else cls
        module: Module = chosen(**given, **arguments)
        module.rebuild(checkpoint)
        return module

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the description, and the settings of the optimizers; the rest into what can be loaded again."""
        checkpoint["method"] = self.description()
        checkpoint["policy"] = describe(self.policy)
        checkpoint["env_id"] = self.trainer.datamodule.env_id  # type: ignore[attr-defined]
        checkpoint["optimizer_settings"] = self._optimizer_settings
        checkpoint["scheduler_settings"] = self._scheduler_settings
        for key in checkpoint.keys() - {"state_dict"}:
            checkpoint[key] = to_plain(checkpoint[key])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse what is of another method, policy or environment.

        Raises:
            ConfigError: names what the checkpoint is of and what this run is.
        """
        if self._trainer is None:
            return
        try:
            self._check_kin(checkpoint)
        except LOADING_ERRORS as error:
            raise ConfigError(f"{self.trainer.ckpt_path} is damaged: {type(error).__name__}: {error}") from error
        self._resumed_from = checkpoint if self.trainer.state.fn == "fit" else None

    def _check_kin(self, checkpoint: dict[str, Any]) -> None:
        path, training = self.trainer.ckpt_path, self.trainer.state.fn == "fit"
        env_id = str(self.trainer.datamodule.env_id)  # type: ignore[attr-defined]
        then, now = checkpoint["method"], self.description()
        policy = describe(self.policy)
        changed = differences(_settings(then, checkpoint["policy"]), _settings(now, policy))
        settings = ", ".join(f"{name} {old} -> {new}" for name, old, new in changed)
        mine = describe_checkpoint({"method": now, "policy": policy, "env_id": env_id})
        pairs = zip(spaces_of(checkpoint), (self.policy.observation_space, self.policy.action_space), strict=True)
        other_spaces = any(space_mismatch(one, other, bounds=i == 1) for i, (one, other) in enumerate(pairs))
        elsewhere = training and checkpoint["env_id"].rpartition("-v")[0] != env_id.rpartition("-v")[0]
        detail = ""
        if self._is_kin(then["class"]) and checkpoint["policy"]["class"] == policy["class"]:
            if not other_spaces and not elsewhere:
                if not (misfit := self._misfit(checkpoint["state_dict"], self.strict_loading)):
                    if training and settings:
                        rank_zero_info(f"resumed with other settings than the checkpoint's: {settings}")
                    if checkpoint["env_id"] != env_id:
                        rank_zero_warn(f"{path} is of {describe_checkpoint(checkpoint)}; this run is on {env_id}")
                    return
                detail = f" ({settings or misfit})"
            elif describe_checkpoint(checkpoint) == mine:
                detail = " with other observations or actions"
        raise ConfigError(f"{path} is of {describe_checkpoint(checkpoint)}; this run is {mine}{detail}")

    def _is_kin(self, name: str) -> bool:
        """Whether the class is this method's, or a user's own and one of the two a subclass of the other."""
        mine = type(self)
        related = {class_name(cls) for cls in (*mine.__mro__, *subclasses(mine))}
        own = not all(one.startswith("lit_imitation.") for one in (name, class_name(mine)))
        return name == class_name(mine) or (own and name in related)

    def _misfit(self, state: dict[str, Tensor], strict: bool) -> str:
        """Which weight of a checkpoint has no place here, if any."""
        mine = self.state_dict()
        for name in {**mine, **state}:
            if name in state and name in mine:
                if isinstance(state[name], Tensor) and state[name].shape != mine[name].shape:
                    return f"{name} {list(state[name].shape)} -> {list(mine[name].shape)}"
            elif strict:
                return f"{name} is only {'in the checkpoint' if name in state else 'here'}"
        return ""

    # What a resumed run sets

    def on_fit_start(self) -> None:
        """Note the settings of the optimizers; of a resumed run, put them in place of the checkpoint's."""
        trainer = self.trainer
        self._optimizer_settings = [
            [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
            for optimizer in trainer.optimizers
        ]
        self._scheduler_settings = [deepcopy(config.scheduler.state_dict()) for config in trainer.lr_scheduler_configs]
        checkpoint, self._resumed_from = self._resumed_from, None
        if checkpoint is None:
            if missing := find_undescribed(_settings(self.description(), describe(self.policy))):
                rank_zero_warn(
                    f"a checkpoint cannot hold {', '.join(missing)}: to load it, give it once more by keyword"
                )
            return
        if "optimizer_states" in checkpoint:  # not of weights alone, about which Lightning has its own message
            try:
                self._put_settings_into(checkpoint)
            except LOADING_ERRORS as error:
                reason = f"{type(error).__name__}: {error}"
                raise ConfigError(f"--ckpt_path {trainer.ckpt_path} is damaged: optimizer states: {reason}") from error

    def _put_settings_into(self, checkpoint: dict[str, Any]) -> None:
        """Replace the settings of optimizers and schedulers in a checkpoint, before Lightning hands its states out."""
        for optimizer, state in zip(self.trainer.optimizers, checkpoint["optimizer_states"], strict=False):
            _check_moments(optimizer, state, self.trainer.ckpt_path)
        states = [state["param_groups"] for state in checkpoint["optimizer_states"]]
        schedules = str(to_plain(self._scheduler_settings)) != str(checkpoint["scheduler_settings"])
        for groups, then, now in zip(states, checkpoint["optimizer_settings"], self._optimizer_settings, strict=True):
            for group, old, new in zip(groups, then, now, strict=True):
                for name in new.keys() & old.keys():
                    if to_plain(new[name]) == old[name]:
                        continue
                    schedules = True
                    if name == "lr" and group["lr"] != old["lr"] and old["lr"]:  # somebody has changed it on the way
                        group["lr"] = group["lr"] * (new["lr"] / old["lr"])
                    else:
                        group[name] = new[name]
        if schedules and self._scheduler_settings:
            self._replay_schedules(checkpoint)

    def _replay_schedules(self, checkpoint: dict[str, Any]) -> None:
        """Take the schedulers as they are set now to where the checkpoint's were."""
        for i, config in enumerate(self.trainer.lr_scheduler_configs):
            scheduler, state = config.scheduler, checkpoint["lr_schedulers"][i]
            if isinstance(scheduler, ReduceLROnPlateau):  # goes by what was measured
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of steps before those of the optimizer
                for _ in range(state["last_epoch"]):
                    scheduler.step()
            checkpoint["lr_schedulers"][i] = scheduler.state_dict()
            index = self.trainer.optimizers.index(scheduler.optimizer)
            groups = checkpoint["optimizer_states"][index]["param_groups"]
            for group, moved in zip(groups, scheduler.optimizer.param_groups, strict=True):
                group |= {name: value for name, value in moved.items() if name != "params"}


def _check_moments(optimizer: Optimizer, state: dict[str, Any], path: object) -> None:
    """See that what a fused optimizer remembers of a parameter has its shape: the kernel would read past the end.

    Raises:
        ConfigError: it has not.
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
                    f"--ckpt_path {path} is damaged: of parameter {index} its optimizer remembers {name} as {what}, "
                    f"and {list(shape)} is needed"
                )


def _factory(description: dict[str, Any]) -> dict[str, Any]:
    """Of what builds such an object for any spaces."""
    return {KIND: "factory", "class": description["class"], "arguments": description["arguments"]}


def _settings(method: dict[str, Any], policy: dict[str, Any]) -> dict[str, Any]:
    """What can differ between two runs of a method."""
    arguments = {name: value for name, value in method["arguments"].items() if name not in ("policy", "start")}
    return {"class": method["class"], "arguments": arguments, "policy": _factory(policy)}
