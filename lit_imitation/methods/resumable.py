"""`Resumable`: checkpoints of a method, from which it is rebuilt and resumed exactly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from lightning import LightningModule

from lit_imitation.methods import checkpoints
from lit_imitation.optim.descent import Descent
from lit_imitation.policies import Policy, PolicyFactory
from lit_imitation.utils.descriptions import Describable
from lit_imitation.utils.seeding import get_states, set_states

Self = TypeVar("Self", bound="Resumable")


if TYPE_CHECKING:
    Base = LightningModule
else:
    Base = object


class Resumable(Base):
    """Mixin of a module that is rebuilt from its checkpoints and goes on exactly where it was cut."""

    policy: Policy
    descent: Descent
    arguments: dict[str, Any]
    evaluation: dict[str, float]
    _policy_factory: PolicyFactory

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.env_steps = 0
        """Environment steps that training has taken, without demonstrations and evaluation."""
        self.gradient_steps = 0
        """Optimizer steps behind the policy."""
        self.memory = checkpoints.Memory()

    @property
    def descents(self) -> Sequence[Descent]:
        """Everything that takes gradient steps, in the order of `configure_optimizers`."""
        return [self.descent] if hasattr(self, "descent") else []

    def count_gradient_steps(self) -> int:
        """Optimizer steps behind the policy by now."""
        return self.trainer.global_step

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the state for exact resumption, and the description for using the policy alone.

        Raises:
            TrainingError: A weight is not finite; the previous checkpoint remains the last good one.
        """
        checkpoints.check_finite(self, checkpoint)
        checkpoint["env_steps"] = self.env_steps
        checkpoint["gradient_steps"] = self.count_gradient_steps()
        checkpoint["evaluation"] = self.evaluation  # between a validation and the end of its epoch
        checkpoint["random_states"] = get_states()
        checkpoints.save(self, checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the state, if the checkpoint is undamaged and has this method, policy and environment.

        Raises:
            ConfigError: It is damaged or has another one, or its weights are not finite.
        """
        checkpoints.load(self, checkpoint)
        self.env_steps = checkpoint["env_steps"]
        self.evaluation = checkpoint["evaluation"]
        self.gradient_steps = checkpoint.get("gradient_steps", checkpoint["global_step"])
        self.memory.random_states = checkpoint["random_states"]

    def parts(self) -> dict[str, Describable | None]:
        """Objects built by the factories among the arguments, by argument; None for arguments that were not given."""
        return {"policy": self.policy if self.arguments.get("policy") is not None else None}

    def description(self) -> dict[str, Any]:
        """Class and arguments of the method and of its parts as plain data: everything that shapes results."""
        return checkpoints.describe_method(self)

    def rebuild(self, checkpoint: dict[str, Any]) -> None:
        """Build for the spaces of a checkpoint what `configure_model` builds for those of the environment."""
        self.policy = self._policy_factory(*checkpoints.spaces_of(checkpoint))

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls: type[Self],
        checkpoint_path: str | Path,
        map_location: str | torch.device = "cpu",
        hparams_file: None = None,
        strict: bool | None = None,
        weights_only: bool | None = None,
        trust: bool = False,
        **arguments: Any,
    ) -> Self:
        """Load the method as it was trained: its settings, networks and weights.

        To continue training, pass the same file to `Trainer.fit` as `ckpt_path`.

        Args:
            checkpoint_path: Checkpoint file, or directory of a run (its best checkpoint is taken).
            map_location: Device of the parameters.
            hparams_file: Unused; the checkpoint holds the settings.
            strict: Whether all weights must be there; by default as `strict_loading` says.
            weights_only: Unused; a checkpoint is never read in another way.
            trust: Let the file name classes that are not of this package.
            arguments: Arguments of the constructor in place of those in the checkpoint.

        Raises:
            ConfigError: there is no checkpoint, it is of another method, or its weights do not fit these arguments.
        """
        loaded: Self = checkpoints.load_method(cls, Resumable, checkpoint_path, map_location, strict, trust, arguments)
        return loaded

    def on_fit_start(self) -> None:
        """Put the run's optimizer settings in place of the checkpoint's."""
        checkpoints.settle_settings(self)

    def on_train_start(self) -> None:
        """Put random streams and position where the checkpoint left them."""
        super().on_train_start()
        checkpoints.align_progress(self.trainer)
        for descent in self.descents:
            descent.resume()
        if self.memory.random_states is not None:
            set_states(self.memory.random_states)
            self.memory.random_states = None
