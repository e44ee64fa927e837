"""`RecoveryEvaluated`: likelihoods and the recovered reward of a method in finite worlds."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lit_imitation.data.tabular_module import EvaluationWorld, TabularDataModule
from lit_imitation.errors import ConfigError
from lit_imitation.methods.method import Method
from lit_imitation.methods.recovery import (
    BASELINES,
    RewardRecovery,
    mean_log_likelihood,
    select_likelihoods,
    warn_if_worse_than_uniform,
)
from lit_imitation.methods.worlds import WorldCache
from lit_imitation.rewards.tabular import TabularReward
from lit_imitation.rollout import Actor, Episode
from lit_imitation.tabular.mdp import TabularMDP
from lit_imitation.tabular.planning import Planning, first_policy
from lit_imitation.tabular.trajectories import Trajectories
from lit_imitation.transitions import Transitions
from lit_imitation.windows import Windows

MIN_LOG_PROBABILITY = -100.0
"""Lower bound of the log-probabilities in the policy's table, which must be finite."""

if TYPE_CHECKING:
    Base = Method
else:
    Base = object


class RecoveryEvaluated(Base):
    """Mixin of a method whose policy follows from its reward, by planning in the first world."""

    reward: TabularReward
    planning: Planning
    discounted: bool
    demonstrations: Sequence[Trajectories]
    held_out: Sequence[Trajectories | None]
    recovery_metrics: RewardRecovery

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fitted: dict[str, float] = {}
        """Log-likelihood and gap of the features' expectations in the last step."""
        self.likelihoods: dict[str, float] = {}
        """Log-likelihoods per step of the baselines and on held-out trajectories."""
        self.recovery: dict[str, float] = {}
        """Figures of the recovered reward in the last validation or test."""
        self._copies = WorldCache()

    @property
    def worlds(self) -> TabularDataModule:
        """DataModule of the running Trainer."""
        data = self.datamodule
        if not isinstance(data, TabularDataModule):
            raise ConfigError(f"MaxEntIRL needs known transitions: use TabularDataModule, not {type(data).__name__}")
        return data

    def on_device(self, mdp: TabularMDP) -> TabularMDP:
        """The world on the module's device, in the precision of its parameters."""
        return self._copies.get(mdp, self.device, next(self.reward.parameters()).dtype)

    def log_fit(self, likelihood: Tensor, gap: Tensor) -> None:
        """Log the log-likelihoods and gaps `[steps]` of the last optimizer steps, with those of the baselines."""
        name = "discounted_log_likelihood" if self.discounted else "log_likelihood"
        figures = {name: likelihood, "feature_gap": gap}
        self.fitted = {name: float(values[-1]) for name, values in figures.items()}
        for baseline in BASELINES:
            if baseline in self.likelihoods:
                figures[baseline] = torch.full_like(likelihood, self.likelihoods[baseline])
        self.log_steps({f"train/{name}": values for name, values in figures.items()}, self.trainer.should_stop)

    def actor(self, deterministic: bool = True) -> Actor:
        """The policy as an actor for evaluation, in float32 at any precision of planning."""
        return deepcopy(self.policy).float().actor(deterministic)

    @torch.no_grad()
    def update_policy(self) -> None:
        """Set the policy's table to π of the first world under the current reward."""
        mdp = self.on_device(self.worlds.worlds[0])
        policy = first_policy(mdp, self.reward.table(mdp), self.planning)
        table: Any = self.policy.network.layers[0]  # type: ignore[index]
        table.weight.copy_(policy.T.log().clamp(min=MIN_LOG_PROBABILITY))
        table.bias.zero_()

    def measure_likelihoods(self) -> None:
        """Measure the log-likelihoods under the current reward that the training step does not compute."""
        groups = {"held_out_": self.held_out} | ({"": self.demonstrations} if self.discounted else {})
        for prefix, group in groups.items():
            if f"{prefix}uniform_log_likelihood" in self.likelihoods:
                worlds = [self.on_device(mdp) for mdp in self.worlds.worlds]
                likelihood = mean_log_likelihood(worlds, group, self.reward, self.planning)
                self.likelihoods[f"{prefix}log_likelihood"] = likelihood

    def on_train_epoch_end(self) -> None:
        """Update the policy, so that a checkpoint holds that of its reward."""
        self.update_policy()

    def on_train_end(self) -> None:
        """Warn if the reward explains the demonstrations worse than a uniform policy does."""
        self.measure_likelihoods()
        warn_if_worse_than_uniform(self.summary_figures())

    def on_validation_epoch_start(self) -> None:
        """Start an evaluation with the policy of the current reward."""
        super().on_validation_epoch_start()
        self.update_policy()
        if self.trainer.state.fn == "fit" and not self.trainer.testing:
            self.measure_likelihoods()
        self.recovery_metrics.reset()

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(
        self, batch: Transitions | Windows | Episode | EvaluationWorld, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Compare the recovered reward with that of a world; other batches as in every method."""
        if not isinstance(batch, EvaluationWorld):
            super().validation_step(batch, batch_idx, dataloader_idx)
            return
        mdp = self.on_device(batch.mdp)
        self.recovery_metrics.update(mdp, self.reward.table(mdp), batch.fresh)

    def more_figures(self, prefix: str) -> dict[str, Tensor]:
        """Figures of the recovered reward, and likelihoods of held-out trajectories."""
        if figures := self.recovery_metrics.compute():
            self.recovery = {name: float(value) for name, value in figures.items()}
        if prefix == "val":
            if self.discounted:
                self.log_figures("train", select_likelihoods(self.likelihoods, ""))
            figures |= select_likelihoods(self.likelihoods, "held_out_")
        return figures

    def summary_figures(self) -> dict[str, float]:
        """Entries of `summary.json`."""
        return self.fitted | self.likelihoods | self.recovery
