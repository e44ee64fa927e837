"""`Resumable`: checkpoints of a method, and the start and end of its runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch
from lightning import LightningModule

from lit_imitation.methods import checkpoints
from lit_imitation.methods.signals import StopSignal, is_attached
from lit_imitation.methods.trainer_options import check_trainer, lower_log_interval
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

    saves_between_blocks: ClassVar[bool] = True
    """Whether a checkpoint after any block is exact; that of a round is exact at the end of an epoch only."""
    precisions: ClassVar[tuple[str, ...]] = ("32-true", "bf16-mixed")
    """Values of `trainer.precision` that the method can compute in."""
    optimization_option: ClassVar[str] = "model.optimization"
    """Where the settings of the optimizer are given."""
    policy: Policy
    descent: Descent
    arguments: dict[str, Any]
    count_gradient_steps: Callable[[], int]
    _policy_factory: PolicyFactory

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.env_steps = 0
        """Environment steps that training has taken, without demonstrations and evaluation."""
        self.gradient_steps = 0
        """Optimizer steps behind the policy."""
        self.evaluation: dict[str, float] = {}
        """Figures of the last validation or test over episodes, as `EpisodeStatistics` names them."""
        self.signals = StopSignal(self, self.saves_between_blocks)
        self.memory = checkpoints.Memory()

    @property
    def attached(self) -> bool:
        """Whether a Trainer runs the method; without one a checkpoint is being loaded."""
        return is_attached(self)

    @property
    def descents(self) -> Sequence[Descent]:
        """Everything that takes gradient steps, in the order of `configure_optimizers`."""
        return [self.descent] if hasattr(self, "descent") else []

    def configure_callbacks(self) -> list[Any]:
        """Refuse options of the Trainer that the method cannot honor, before anything is computed."""
        check_trainer(
            self.trainer,
            type(self).__name__,
            self.optimization_option,
            self.precisions,
            self.saves_between_blocks,
        )
        return []

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

    # Start and end of a run

    def on_fit_start(self) -> None:
        """Put the run's optimizer settings in place of the checkpoint's."""
        checkpoints.settle_settings(self)

    def on_train_start(self) -> None:
        """Put random streams and position where the checkpoint left them."""
        self.signals.listen()  # Lightning has set its own handler after `on_fit_start`
        lower_log_interval(self.trainer)
        checkpoints.align_progress(self.trainer)
        for descent in self.descents:
            descent.resume()
        if self.memory.random_states is not None:
            set_states(self.memory.random_states)
            self.memory.random_states = None

    def on_train_epoch_start(self) -> None:
        """Stop here if SIGTERM came during the last validation."""
        self.signals.stop_between_epochs()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Stop here if SIGTERM came during the block."""
        if self.saves_between_blocks:
            self.signals.stop_between_blocks()

    def on_validation_start(self) -> None:
        """Listen to SIGTERM, and evaluate the moving average of the weights if there is one."""
        self.signals.listen()
        self._swap_averages()

    def on_validation_end(self) -> None:
        """Go on with the last weights."""
        self._swap_averages()

    def on_fit_end(self) -> None:
        """Keep the moving average of the weights, if there is one."""
        for descent in self.descents:
            descent.swap_average()

    def on_test_start(self) -> None:
        """Listen to SIGTERM."""
        self.signals.listen()

    on_predict_start = on_test_start

    def _swap_averages(self) -> None:
        if self.trainer.state.fn == "fit" and not self.trainer.testing:
            for descent in self.descents:
                descent.swap_average()

    def teardown(self, stage: str) -> None:
        """Stop listening."""
        self.signals.forget()

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Leave batches where they are: the DataModule puts them where they are needed."""
        return batch
