"""What every method shares: a policy, its evaluation by rollouts, and a state from which training goes on exactly."""

from __future__ import annotations

import inspect
import math
import time
from typing import TYPE_CHECKING, Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerStatus
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor
from torch.optim import Optimizer
from torchmetrics import MeanMetric

from lit_imitation.data.module import EnvironmentDataModule
from lit_imitation.errors import ConfigError, TrainingError
from lit_imitation.methods.checkpoints import CheckpointedModule, spaces_of
from lit_imitation.metrics.episodes import EpisodeStatistics
from lit_imitation.networks.mlp import Standardize
from lit_imitation.policies import PolicyFactory, default_policy
from lit_imitation.policies.checkpoints import check_fields, check_weights
from lit_imitation.rl.normalization import RunningMoments
from lit_imitation.rollout import Actor, Episode, Round
from lit_imitation.transitions import Transitions
from lit_imitation.utils import interruption
from lit_imitation.utils.seeding import get_states, set_states

if TYPE_CHECKING:
    pass

BATCH_HOOKS = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)
"""What Lightning calls on the module and on each callback in every training step."""


SIGTERM_PATIENCE = 10.0
"""Seconds that a validation has to end after SIGTERM, before it is given up with the epoch that it judges."""


class Interrupted(SIGTERMException):
    """SIGTERM in the middle of a round, a rollout or a validation, whose half is not worth a checkpoint."""


class ImitationModule(CheckpointedModule):
    """A policy that learns in some way and is judged by rollouts in the environment.

    A method defines `training_step` and `configure_optimizers`. Validation and testing are here: batches are either
    held-out `Transitions`, on which loss and error are measured, or finished `Episode`s of the current policy.

    Args:
        policy: builds the policy from the two spaces; by default categorical for discrete and Gaussian for continuous
            actions.
    """

    argument_owner = "model"
    precisions: tuple[str, ...] = ("32-true", "bf16-mixed", "16-mixed")
    """The values of `trainer.precision` that the method can compute in."""
    shown: tuple[str, ...] = ("loss", "return_mean")
    """The figures of an evaluation that the progress bar shows."""

    def __init__(self, policy: PolicyFactory | None = None) -> None:
        super().__init__()
        self._policy_factory = policy or default_policy
        self.env_steps = 0
        """Environment steps that training has taken; demonstrations and evaluation are not counted."""
        self.gradient_steps = 0
        """Optimizer steps that the policy has behind it."""
        self.evaluation: dict[str, float] = {}
        """The figures of the last validation or test over episodes, as `EpisodeStatistics` names them."""
        self.episode_statistics = EpisodeStatistics()
        self.held_out_loss = MeanMetric()
        self.held_out_error = MeanMetric()
        self._random_states: dict[str, Any] | None = None
        self._asked: float | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Lightning asks for the signature of `training_step` before each step; one that is noted is found at once.
        if "training_step" in vars(cls):
            cls.training_step.__signature__ = inspect.signature(cls.training_step)  # type: ignore[attr-defined]

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes the running hook here some forty times a training step, and `Module.__setattr__` takes
        # microseconds to find out that a string is neither parameter, buffer nor module.
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    @property
    def datamodule(self) -> EnvironmentDataModule:
        """The DataModule of the running Trainer."""
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(datamodule, EnvironmentDataModule):
            raise TypeError(f"{type(self).__name__} needs an EnvironmentDataModule, not {type(datamodule).__name__}")
        return datamodule

    def setup(self, stage: str) -> None:
        """Check the precision before anything is computed.

        Raises:
            ConfigError: the method cannot compute in it.
        """
        if (precision := str(self.trainer.precision)) not in self.precisions:
            raise ConfigError(
                f"{type(self).__name__} does not run in trainer.precision {precision}; use one of "
                f"{', '.join(self.precisions)}"
            )

    def configure_model(self) -> None:
        """Build the policy, once the spaces are known; callbacks that copy the model may ask for it early.

        Without a Trainer there is nobody to ask for the spaces, and a checkpoint that is being loaded names them.
        """
        if not hasattr(self, "policy") and self._trainer is not None:
            self.policy = self._policy_factory(self.datamodule.observation_space, self.datamodule.action_space)

    @property
    def method(self) -> str:
        """What the summary calls it."""
        return type(self).__name__.lower()

    @property
    def logs_step(self) -> bool:
        """Whether `trainer.log_every_n_steps`, which is 0 for never, asks for the metrics of the running step."""
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        return bool(every) and (self.global_step + 1) % every == 0

    def count_gradient_steps(self) -> int:
        """Optimizer steps that the policy has behind it by now."""
        return self.trainer.global_step

    def actor(self, deterministic: bool = True) -> Actor:
        """What acts in rollouts: the policy's mode, or draws from it."""
        return self.policy.actor(deterministic)

    def check_finite(self, loss: Tensor, batch: Transitions) -> None:
        """Stop training before a loss that is not finite reaches the weights.

        Raises:
            TrainingError: names the step, the batch's statistics and the last good checkpoint.
        """
        if math.isfinite(loss.item()):
            return
        lines = [f"the loss is {loss.item()} at step {self.global_step} (epoch {self.current_epoch}); the batch:"]
        for name, values in batch.items():
            if isinstance(values, Tensor):
                x = values.double()
                bad = int((~x.isfinite()).sum())
                lines.append(
                    f"  {name} {list(values.shape)}: min {x.min():.4g}, mean {x.mean():.4g}, max {x.max():.4g}, "
                    f"{bad} not finite"
                )
        raise TrainingError("\n".join([*lines, self._last_good()]))

    def _last_good(self) -> str:
        """Where a run that stopped itself can be taken up again."""
        callback = self.trainer.checkpoint_callback
        path = getattr(callback, "last_model_path", "") or getattr(callback, "best_model_path", "")
        return f"last good checkpoint: {path or 'none yet'}; a lower learning rate often helps"

    # Evaluation

    def on_validation_epoch_start(self) -> None:
        """Forget the last evaluation."""
        self.episode_statistics.reset()
        self.held_out_loss.reset()
        self.held_out_error.reset()

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: Transitions | Episode, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Held-out transitions go into loss and error, a finished episode into the statistics of episodes."""
        if isinstance(batch, Episode):
            values = (batch.episode_return, float(batch.length), batch.success)
            self.episode_statistics.update(*(torch.tensor([value], dtype=torch.float64) for value in values))
            return
        loss = self.policy.loss(batch.observation, batch.action)
        self.held_out_loss.update(loss, batch.weight if batch.weight is not None else 1.0)
        self.held_out_error.update(self._error(batch))

    def test_step(self, batch: Transitions | Episode, batch_idx: int, dataloader_idx: int = 0) -> None:
        """As in validation."""
        self.validation_step(batch, batch_idx, dataloader_idx)

    def predict_step(self, batch: Transitions, batch_idx: int) -> Transitions:
        """Trajectories of the policy, as the DataModule rolled them out."""
        return batch

    def _error(self, batch: Transitions) -> Tensor:
        """`[B]`: wrong or right for discrete actions (1 or 0), mean absolute error over dimensions for continuous."""
        action = self.policy.act(batch.observation)
        if action.dtype == torch.int64:
            return (action == batch.action).reshape(len(action), -1).all(1).float()
        return (action - batch.action).abs().flatten(1).mean(1)

    def on_validation_epoch_end(self) -> None:
        """Log what was measured under `val/`."""
        self._log_evaluation("val")

    def on_test_epoch_end(self) -> None:
        """Log what was measured under `test/`."""
        self._log_evaluation("test")

    def _log_evaluation(self, prefix: str) -> None:
        figures: dict[str, Tensor] = {}
        if self.held_out_loss.update_called:
            discrete = self.policy.action_space.dtype is not None and self.policy.action_space.dtype.kind in "iu"
            figures["loss"] = self.held_out_loss.compute()
            if prefix == "val" and not figures["loss"].isfinite():  # before it ends as an early stop, with success
                raise TrainingError(
                    f"the loss on held-out demonstrations is {figures['loss']} at step {self.global_step} (epoch "
                    f"{self.current_epoch})\n{self._last_good()}"
                )
            figures["accuracy" if discrete else "action_error"] = self.held_out_error.compute()
        if self.episode_statistics.update_called:
            self.episode_statistics.set_references(self.datamodule.expert_reference, self.datamodule.random_reference)
            statistics = self.episode_statistics.compute()
            figures |= statistics
            self.evaluation = {name: float(value) for name, value in statistics.items()}
        for name, value in figures.items():
            # float32 is what loggers and Lightning's own bookkeeping hold; summaries take `evaluation` instead.
            # The figures are the same on every process; `sync_dist` only tells Lightning so.
            self.log(f"{prefix}/{name}", value.float(), prog_bar=name in self.shown, sync_dist=True)

    # Checkpoints

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Batches are already where they are needed."""
        return batch

    def _apply_batch_transfer_handler(self, batch: Any, device: Any = None, dataloader_idx: int = 0) -> Any:
        """So Lightning need not look, in every step, which of its three transfer hooks somebody has overridden."""
        if isinstance(batch, Transitions | Episode | Round):
            return batch
        return super()._apply_batch_transfer_handler(batch, device, dataloader_idx)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what it takes to use the policy alone, and to go on as if nothing had happened.

        Raises:
            TrainingError: a weight is not finite; the checkpoint before stays the last good one.
        """
        self._check_learned(checkpoint)
        checkpoint["env_steps"] = self.env_steps
        checkpoint["gradient_steps"] = self.count_gradient_steps()
        checkpoint["evaluation"] = self.evaluation  # between a validation and the end of its epoch
        checkpoint["random_states"] = get_states()
        super().on_save_checkpoint(checkpoint)

    def rebuild(self, checkpoint: dict[str, Any]) -> None:
        """Build the policy for the checkpoint's spaces."""
        self.policy = self._policy_factory(*spaces_of(checkpoint))

    def _check_learned(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to save what is no longer finite of that which is learned: weights, statistics, optimizer states.

        Other buffers may be infinite, as the bounds of an action space are.
        """
        learned = {name for name, _ in self.named_parameters()}
        for name, module in self.named_modules():
            if isinstance(module, Standardize | RunningMoments):
                learned |= {f"{name}.{buffer}" for buffer, _ in module.named_buffers()}
        found = [(name, value) for name, value in checkpoint["state_dict"].items() if name in learned]
        for i, state in enumerate(checkpoint.get("optimizer_states", [])):
            for moments in state["state"].values():
                found += [(f"{name} of optimizer {i}", x) for name, x in moments.items() if isinstance(x, Tensor)]
        for name, value in found:
            if value.is_floating_point() and not value.isfinite().all():
                raise TrainingError(
                    f"{name} is no longer finite after step {self.global_step} (epoch {self.current_epoch}), so it is "
                    f"not saved\n{self._last_good()}"
                )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take it back, if it is whole, and of this method, policy and environment.

        Raises:
            ConfigError: it is not; or it holds weights that are no finite numbers.
        """
        file = (self._trainer and self._trainer.ckpt_path) or "the checkpoint"
        check_fields(checkpoint, file)
        super().on_load_checkpoint(checkpoint)
        check_weights(checkpoint["state_dict"], self, file)
        self.env_steps = checkpoint["env_steps"]
        self.evaluation = checkpoint["evaluation"]
        self.gradient_steps = checkpoint.get("gradient_steps", checkpoint["global_step"])
        self._random_states = checkpoint["random_states"]

    # Signals

    def on_fit_start(self) -> None:
        """Let rollouts and gradient steps see that SIGTERM came, without waiting for the end of a round."""
        super().on_fit_start()
        self.on_validation_start()

    def on_validation_start(self) -> None:
        """As for `fit`; a validation within `fit` goes on with what that has seen."""
        if self.trainer.state.fn != "fit" or not self.trainer.validating:
            self._asked = None
        interruption.raise_if_stopped, interruption.is_requested = self.stop_if_asked, self._was_told

    on_test_start = on_predict_start = on_validation_start

    def teardown(self, stage: str) -> None:
        """Nothing runs any more that could be stopped."""
        interruption.raise_if_stopped = interruption.is_requested = None

    def _was_told(self) -> bool:
        """Whether SIGTERM came to this process; of several, those of a Trainer other than ours heed Lightning alone."""
        trainer = self.trainer
        return trainer.received_sigterm if trainer.world_size == 1 else getattr(trainer, "told_to_stop", False)

    def stop_if_asked(self, agreed: bool = False) -> None:
        """Raise `Interrupted` once SIGTERM came; while a method without rounds is validated only after some time.

        Args:
            agreed: it came to one of several processes, and all of them stop here.
        """
        trainer = self._trainer
        if trainer is None or trainer.state.status != TrainerStatus.RUNNING:
            return
        if agreed:
            raise Interrupted
        if self._asked is None and self._was_told():
            self._asked = time.monotonic()
        if self._asked is None:
            return
        waits = trainer.state.fn == "fit" and trainer.validating and self.automatic_optimization
        if not waits or time.monotonic() - self._asked > SIGTERM_PATIENCE:
            raise Interrupted

    # The loop around a training step

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip if `trainer.gradient_clip_val` says so; Lightning would look for more before it does nothing."""
        if gradient_clip_val is not None:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Optimizer) -> None:
        """As `optimizer.zero_grad()`, without the profiler's bookkeeping around it."""
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def on_train_start(self) -> None:
        """Put the random streams where the checkpoint left them."""
        skip_empty_hooks(self.trainer)
        self._log_short_runs()
        if self._random_states is not None:
            set_states(self._random_states)
            self._random_states = None

    def _log_short_runs(self) -> None:
        """Lower `log_every_n_steps` to the length of the run: a shorter one would log nothing of its training."""
        batches, every = _total_batches(self.trainer), self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if 1 <= batches < every:
            self.trainer.log_every_n_steps = int(batches)  # type: ignore[attr-defined]


def _total_batches(trainer: Trainer) -> float:
    """Training batches of the whole run, as far as the Trainer's limits say."""
    epochs = trainer.max_epochs if trainer.max_epochs is not None and trainer.max_epochs >= 0 else math.inf
    steps = trainer.max_steps if trainer.max_steps >= 0 else math.inf
    return min(trainer.num_training_batches * epochs, steps)


def skip_empty_hooks(trainer: Trainer) -> None:
    """Hide the hooks that nobody defined from the training loop, which otherwise spends a tenth of a step on them.

    Lightning passes over a hook that is not callable before it names, times and registers the call.
    """
    bases: list[tuple[Any, type]] = [(trainer.lightning_module, LightningModule)]
    bases += [(callback, Callback) for callback in trainer.callbacks]  # type: ignore[attr-defined]
    for owner, base in bases:
        for hook in BATCH_HOOKS:
            if hook not in vars(owner) and getattr(type(owner), hook) is getattr(base, hook):
                setattr(owner, hook, None)
