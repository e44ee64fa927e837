"""`Method`: a policy that learns by blocks of gradient steps, and its evaluation by rollouts."""

from __future__ import annotations

from typing import ClassVar, TypeVar

from lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_imitation.data.module import EnvironmentDataModule
from lit_imitation.errors import TrainingError
from lit_imitation.methods.evaluation import Evaluation, describe_columns
from lit_imitation.methods.resumable import Resumable
from lit_imitation.optim.descent import Descent
from lit_imitation.optim.optimization import Optimization
from lit_imitation.policies import Policy, PolicyFactory, default_policy
from lit_imitation.rollout import Actor, Episode
from lit_imitation.transitions import Transitions
from lit_imitation.utils.descriptions import Describable

Self = TypeVar("Self", bound="Method")


class Method(Resumable, Describable, LightningModule):
    """A policy, trained by gradient steps on blocks and judged by rollouts in the environment.

    A method defines `training_step`, which turns a block of work into optimizer steps by `descend`, and
    `configure_optimizers`, which builds the `Descent`s. Validation batches are held-out `Transitions` or finished
    `Episode`s of the current policy.

    Args:
        policy: Builds the policy from observation and action space; by default categorical for discrete and Gaussian
            for continuous actions.
    """

    argument_owner = "model"
    shown: ClassVar[tuple[str, ...]] = ("loss", "return_mean")
    """Figures of an evaluation that the progress bar shows."""

    policy: Policy
    descent: Descent

    def __init__(self, policy: PolicyFactory | None = None) -> None:
        super().__init__()
        self.automatic_optimization = False
        self._policy_factory = policy or default_policy
        self.optimization = Optimization()
        self.metrics = Evaluation()

    @property
    def datamodule(self) -> EnvironmentDataModule:
        """DataModule of the running Trainer."""
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(datamodule, EnvironmentDataModule):
            raise TypeError(f"{type(self).__name__} needs an EnvironmentDataModule, not {type(datamodule).__name__}")
        return datamodule

    @property
    def method(self) -> str:
        """Name of the method in summaries and run directories."""
        return type(self).__name__.lower()

    def configure_model(self) -> None:
        """Build the policy once the spaces are known; callbacks that copy the model may ask for it early."""
        if not hasattr(self, "policy") and self.attached:
            self.policy = self._policy_factory(self.datamodule.observation_space, self.datamodule.action_space)

    def actor(self, deterministic: bool = True) -> Actor:
        """What acts in evaluation: the mode of the policy, or draws from it."""
        return self.policy.actor(deterministic)

    # Blocks of gradient steps

    def build_optimizer(self, parameters: list[nn.Parameter]) -> Optimizer | None:
        """Another optimizer of torch, for a subclass that wants one; None for Adam with the method's settings."""
        return None

    @property
    def accumulate_batches(self) -> int:
        """Minibatches of one optimizer step."""
        return self.optimization.accumulate_batches

    def descend(self, **columns: Tensor) -> Tensor:
        """Take the optimizer steps of a block `[K, B, …]` by `self.descent`.

        Args:
            columns: Arguments of the loss in their order, `[K, B, …]` each.

        Returns:
            `[steps, 1 + K + 1]`: loss, statistics and norm of the gradient of each step.

        Raises:
            TrainingError: a loss is not finite; names the step, its minibatch and the last good checkpoint.
        """
        descent, first = self.descent, self.global_step
        rates = None
        if descent.optimization.varies:
            total = max(self._total_steps(), 1)
            count = -(-len(next(iter(columns.values()))) // self.accumulate_batches)
            steps = range(first, first + count)
            rates = [descent.learning_rate * descent.optimization.rate(min(i / total, 1.0), i) for i in steps]
        with self.signals.after_block():
            statistics = descent.steps(*columns.values(), rates=rates)
        if not bool(statistics[:, 0].isfinite().all()):
            wrong = int((~statistics[:, 0].isfinite()).nonzero()[0])
            every = self.accumulate_batches
            minibatch = {
                name: column[wrong * every : (wrong + 1) * every].flatten(0, 1) for name, column in columns.items()
            }
            raise TrainingError(
                f"the loss is {float(statistics[wrong, 0])} at step {first + wrong} (epoch {self.current_epoch}); the "
                f"batch:\n{describe_columns(minibatch)}\n{self.last_good()}"
            )
        self.count_steps(len(statistics))
        return statistics

    def count_steps(self, steps: int) -> None:
        """Add optimizer steps to the Trainer's `global_step`, which counts those of its own wrapper only."""
        progress = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        for tracker in (progress.total, progress.current):
            tracker.ready += steps
            tracker.completed += steps

    def count_gradient_steps(self) -> int:
        """Optimizer steps behind the policy by now."""
        return self.trainer.global_step

    def log_steps(self, figures: dict[str, Tensor], last: bool = False) -> None:
        """Log figures of the last optimizer steps, `[steps]` each, every `trainer.log_every_n_steps` of them.

        Args:
            figures: Values by name.
            last: Log the last step in any case.
        """
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if not every:
            return
        count = len(next(iter(figures.values())))
        first = self.global_step - count
        chosen = [i for i in range(count) if (first + i + 1) % every == 0 or (last and i == count - 1)]
        for i in chosen:
            row = {name: float(values[i]) for name, values in figures.items()}
            for logger in self.trainer.loggers:
                logger.log_metrics(row | {"epoch": self.current_epoch}, step=first + i)
        if chosen:
            self.log_dict({name: values[chosen[-1]].float() for name, values in figures.items()}, logger=False)

    def _total_steps(self) -> int:
        """Optimizer steps of the whole training."""
        trainer = self.trainer
        epoch = -(-trainer.train_dataloader.minibatches // self.accumulate_batches)  # type: ignore[union-attr]
        limits = (epoch * (trainer.max_epochs or -1), trainer.max_steps)
        return min((limit for limit in limits if limit > 0), default=0)

    def last_good(self) -> str:
        """Where a run that stopped itself can be resumed."""
        callback = self.trainer.checkpoint_callback
        path = getattr(callback, "last_model_path", "") or getattr(callback, "best_model_path", "")
        return f"last good checkpoint: {path or 'none yet'}; a lower learning rate often helps"

    # Evaluation

    def on_validation_epoch_start(self) -> None:
        """Start an evaluation."""
        self.metrics.reset()

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: Transitions | Episode, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Measure held-out transitions, or count a finished episode."""
        if isinstance(batch, Episode):
            self.metrics.add_episode(batch)
        else:
            self.metrics.add_held_out(self.policy, batch)

    def test_step(self, batch: Transitions | Episode, batch_idx: int, dataloader_idx: int = 0) -> None:
        """As in validation."""
        self.validation_step(batch, batch_idx, dataloader_idx)

    def predict_step(self, batch: Transitions, batch_idx: int) -> Transitions:
        """Trajectories of the policy, as the DataModule rolled them out."""
        return batch

    def on_validation_epoch_end(self) -> None:
        """Log the figures under `val/`."""
        self.log_evaluation("val")

    def on_test_epoch_end(self) -> None:
        """Log the figures under `test/`."""
        self.log_evaluation("test")

    def log_evaluation(self, prefix: str) -> None:
        """Log what was measured.

        Raises:
            TrainingError: the loss on held-out demonstrations is not finite.
        """
        figures = self.metrics.held_out_figures(self.policy)
        if prefix == "val" and "loss" in figures and not figures["loss"].isfinite():
            raise TrainingError(  # which early stopping would take for a success
                f"the loss on held-out demonstrations is {figures['loss']} at step {self.global_step} (epoch "
                f"{self.current_epoch})\n{self.last_good()}"
            )
        statistics: dict[str, Tensor] = {}
        if self.metrics.episodes.update_called:
            self.metrics.episodes.set_references(self.datamodule.expert_reference, self.datamodule.random_reference)
            statistics = self.metrics.episodes.compute()
            self.evaluation = {name: float(value) for name, value in statistics.items()}
        self.log_figures(prefix, figures | self.more_figures(prefix) | statistics)

    def more_figures(self, prefix: str) -> dict[str, Tensor]:
        """Figures that only this method has, to be logged with an evaluation."""
        return {}

    def log_figures(self, prefix: str, figures: dict[str, Tensor]) -> None:
        """Log the figures of an evaluation, at the last optimizer step of a method that trains on blocks."""
        within_fit = self.trainer.state.fn == "fit" and not self.trainer.testing
        by_hand = self.saves_between_blocks and within_fit  # Lightning would count blocks
        for name, value in figures.items():
            # The figures are the same on every process; `sync_dist` only tells Lightning so.
            self.log(f"{prefix}/{name}", value.float(), prog_bar=name in self.shown, logger=not by_hand, sync_dist=True)
        if by_hand and figures:
            row = {f"{prefix}/{name}": float(value) for name, value in figures.items()}
            for logger in self.trainer.loggers:
                logger.log_metrics(row | {"epoch": self.current_epoch}, step=self.global_step - 1)
