"""Evaluation of methods: loss and error on held-out demonstrations, and statistics of episodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from lit_imitation.errors import TrainingError
from lit_imitation.methods.checkpoints import last_good
from lit_imitation.methods.steps import log_row
from lit_imitation.metrics.action_errors import ActionErrors
from lit_imitation.metrics.episodes import EpisodeStatistics
from lit_imitation.policies import Policy
from lit_imitation.policies.sequence import SequencePolicy
from lit_imitation.rollout import Episode
from lit_imitation.transitions import Transitions
from lit_imitation.windows import Windows

if TYPE_CHECKING:
    from lit_imitation.methods.run_hooks import RunHooks as Base
else:
    Base = object


class Evaluation(nn.Module):
    """Metrics of one validation or test, summed over its batches and processes."""

    def __init__(self) -> None:
        super().__init__()
        self.episodes, self.loss, self.error = EpisodeStatistics(), MeanMetric(), MeanMetric()
        self.errors = ActionErrors()

    def reset(self) -> None:
        """Forget the last evaluation."""
        for metric in (self.episodes, self.loss, self.error, self.errors):
            metric.reset()

    def add_episode(self, episode: Episode) -> None:
        """Count a finished episode of the policy."""
        values = (episode.episode_return, float(episode.length), episode.success)
        self.episodes.update(*(torch.tensor([value], dtype=torch.float64) for value in values))

    def add_held_out(self, policy: Policy, batch: Transitions | Windows) -> None:
        """Measure the policy's loss and error on held-out transitions or windows `[B]`."""
        weight = batch.weight if batch.weight is not None else 1.0
        if isinstance(batch, Windows):
            assert isinstance(policy, SequencePolicy)
            self.loss.update(policy.loss(batch.observation, batch.action, batch.mask), weight)
            planned = policy.plan(batch.observation)[:, policy.executed]
            errors = (planned - batch.action[:, policy.executed]).abs().flatten(2)
            errors = errors[batch.mask[:, policy.executed]]
            self.error.update(errors.mean(1))
            self.errors.update(errors)
            return
        self.loss.update(policy.loss(batch.observation, batch.action), weight)
        action = policy.act(batch.observation)
        if action.dtype == torch.int64:
            self.error.update((action == batch.action).reshape(len(action), -1).all(1).float())
        else:
            errors = (action - batch.action).abs().flatten(1)
            self.error.update(errors.mean(1))
            self.errors.update(errors)

    def held_out_figures(self, policy: Policy) -> dict[str, Tensor]:
        """Loss, and error of the mode, on held-out transitions; empty without them.

        `loss` is the policy's own. `accuracy` is the share of right discrete actions, `action_error` the mean over
        dimensions of the absolute error of continuous actions, in their own units.
        """
        if not self.loss.update_called:
            return {}
        kind = policy.action_space.dtype.kind if policy.action_space.dtype is not None else "f"
        return {"loss": self.loss.compute(), "accuracy" if kind in "iu" else "action_error": self.error.compute()}

    def action_errors(self) -> list[float] | None:
        """Mean absolute error of each dimension of continuous actions; None for other actions and without data."""
        return self.errors.compute().reshape(-1).tolist() if self.errors.update_called else None


class Evaluated(Base):
    """Mixin of a module that is judged by held-out transitions and by episodes of its policy.

    Within a fit, the moving average of the weights is evaluated and kept at the end, if there is one.
    """

    progress_bar_metrics: ClassVar[tuple[str, ...]] = ("loss", "return_mean")
    """Figures of an evaluation that the progress bar shows."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.metrics = Evaluation()
        self.evaluation: dict[str, float] = {}
        """Figures of the last validation or test: `loss` and error on held-out transitions, and those of episodes as
        `EpisodeStatistics` names them."""
        self.action_errors: list[float] | None = None
        """Mean absolute error of each dimension of continuous actions on held-out transitions."""

    def on_validation_start(self) -> None:
        """Evaluate the moving average of the weights."""
        super().on_validation_start()
        self._swap_averages()

    def on_validation_end(self) -> None:
        """Go on with the last weights."""
        self._swap_averages()

    def on_fit_end(self) -> None:
        """Keep the moving average of the weights."""
        for descent in self.descents:
            descent.swap_average()

    def _swap_averages(self) -> None:
        if self.trainer.state.fn == "fit" and not self.trainer.testing:
            for descent in self.descents:
                descent.swap_average()

    def on_validation_epoch_start(self) -> None:
        """Start an evaluation."""
        self.metrics.reset()

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: Transitions | Windows | Episode, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Measure held-out transitions, or count a finished episode."""
        if isinstance(batch, Episode):
            self.metrics.add_episode(batch)
        else:
            self.metrics.add_held_out(self.policy, batch)

    def test_step(self, batch: Transitions | Windows | Episode, batch_idx: int, dataloader_idx: int = 0) -> None:
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
                f"{self.current_epoch})\n{last_good(self.trainer)}"
            )
        statistics: dict[str, Tensor] = {}
        if self.metrics.episodes.update_called:
            self.metrics.episodes.set_references(self.datamodule.expert_reference, self.datamodule.random_reference)
            statistics = self.metrics.episodes.compute()
        if figures or statistics:
            self.evaluation = {name: float(value) for name, value in (figures | statistics).items()}
            self.action_errors = self.metrics.action_errors()
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
            self.log(
                f"{prefix}/{name}",
                value.float(),
                prog_bar=name in self.progress_bar_metrics,
                logger=not by_hand,
                sync_dist=True,
            )
        if by_hand and figures:
            row = {f"{prefix}/{name}": value for name, value in figures.items()}
            log_row(self.trainer, row, self.global_step - 1)
