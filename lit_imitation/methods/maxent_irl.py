"""Maximum-entropy inverse reinforcement learning in worlds whose transitions are known (Ziebart et al. 2008, 2010)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torchmetrics import PearsonCorrCoef

from lit_imitation.data.tabular_module import EvaluationWorld, TabularDataModule
from lit_imitation.errors import ConfigError, TrainingError
from lit_imitation.methods.base import ImitationModule
from lit_imitation.metrics.epic import EPIC
from lit_imitation.metrics.reward_recovery import (
    ExpectedValueDifference,
    on_transitions,
    reward_function,
    some_transitions,
)
from lit_imitation.policies import CategoricalPolicy
from lit_imitation.policies.checkpoints import build, describe
from lit_imitation.processes import all_reduced, world_size
from lit_imitation.rewards.tabular import LinearReward, TabularReward, TabularRewardFactory
from lit_imitation.rollout import Actor, Episode
from lit_imitation.tabular.mdp import TabularMDP
from lit_imitation.tabular.planning import Entropy, Planning, first_policy, log_partition
from lit_imitation.tabular.trajectories import Trajectories
from lit_imitation.transitions import Transitions

LEAST_LOG_PROBABILITY = -100.0
"""Below it a policy's table does not go: an action that is never taken is as good as one in e¹⁰⁰."""


class MaxEntIRL(ImitationModule):
    """Maximise the log-likelihood of N demonstrated trajectories s_0, a_0, …, s_n,

        L(θ) = 1/N Σ_i [ Σ_{t<n} γᵗ r_θ(s_t, a_t, s_{t+1}) + γⁿ V_n(s_n) − V_0(s_0) ] − c_2 · ½‖θ‖²,

    with V of `Planning` under r_θ. By `entropy: trajectory` (2008) the bracket is log P(ζ | s_0), but for the dynamics'
    own log-probabilities, which do not depend on θ. By `causal` (2010) it is Σ_t γᵗ log π_t(a_t | s_t) with the mean
    over successors in place of the one that was seen, which is the same in expectation, and wherever the dynamics are
    deterministic. V_n(s_n) is 0 at the horizon; elsewhere it stands for what nobody saw of a trajectory that was cut.

    The gradient is the expert's discounted visits less the learner's, through the reward model:

        ∇L = Σ_s,a [ ρ_E(s, a) − ρ_θ(s, a) ] ∇r_θ(s, a) − c_2 θ.

    Training stops where both see the same features: max_j |Σ_s (ρ_E(s) − ρ_θ(s)) φ_j(s)| ≤ `gap_tolerance`; in a world
    without features, the same states.

    The policy that is kept (and played in validation) is π of the first world under r_θ, with a horizon π_0: it acts as
    if all of it were still ahead.

    Args:
        reward: builds the reward model; by default `LinearReward`.
        entropy: `causal` or `trajectory`.
        horizon: T; None for no end.
        gamma: γ.
        tolerance: of planning without end.
        learning_rate: of Adam.
        l2_coefficient: c_2; above 0 the reward stays bounded where demonstrations never do what they could.
        gap_tolerance: of the features' expectations; 0 to train on.

    Raises:
        ConfigError: a setting out of its range.
    """

    reward: TabularReward
    precisions = ("32-true", "64-true")

    def __init__(
        self,
        reward: TabularRewardFactory | None = None,
        entropy: Entropy = "causal",
        horizon: int | None = None,
        gamma: float = 0.95,
        tolerance: float = 1e-4,
        learning_rate: float = 0.05,
        l2_coefficient: float = 0.0,
        gap_tolerance: float = 1e-3,
    ) -> None:
        if not 0.0 < learning_rate < math.inf:
            raise ConfigError(f"model.learning_rate is {learning_rate}; it must be positive")
        for name, value in (("l2_coefficient", l2_coefficient), ("gap_tolerance", gap_tolerance)):
            if not 0.0 <= value < math.inf:
                raise ConfigError(f"model.{name} is {value}; it must be 0 or more")
        if entropy == "none":
            raise ConfigError("model.entropy none gives no likelihood; take causal or trajectory")
        super().__init__(partial(CategoricalPolicy, hidden_sizes=()))
        self.planning = Planning(horizon, gamma, tolerance, entropy)
        self.learning_rate, self.l2_coefficient, self.gap_tolerance = learning_rate, l2_coefficient, gap_tolerance
        self._reward_factory: TabularRewardFactory = reward or LinearReward
        self.fitted: dict[str, Tensor] = {}
        """Log-likelihood and gap of the features' expectations, by the last step."""
        self.recovery: dict[str, float] = {}
        """How good the reward is, by the last validation or test."""
        self.value_difference = ExpectedValueDifference(self.planning)
        self.fresh_value_difference = ExpectedValueDifference(self.planning)
        self.correlation = PearsonCorrCoef()
        self._epic: list[EPIC] = []
        self._moved: dict[tuple[int, torch.device, torch.dtype], tuple[TabularMDP, TabularMDP]] = {}

    @property
    def worlds(self) -> TabularDataModule:
        """The DataModule of the running Trainer."""
        data = self.datamodule
        if not isinstance(data, TabularDataModule):
            raise ConfigError(
                f"MaxEntIRL needs to know the world's transitions; {type(data).__name__} does not tell them: use "
                "lit_imitation.TabularDataModule"
            )
        return data

    def configure_model(self) -> None:
        """Build reward and policy, once the world is known."""
        if hasattr(self, "policy") or self._trainer is None:
            return
        super().configure_model()
        self.policy.requires_grad_(False)  # a table that follows from the reward
        world = self.worlds.worlds[0]
        features = 0 if world.features is None else world.features.shape[1]
        self.reward = self._reward_factory(*self.datamodule.spaces, features, world.grid)

    def setup(self, stage: str) -> None:
        """Check that the worlds can be compared, and the demonstrations against their worlds."""
        super().setup(stage)
        data = self.worlds
        self.configure_model()
        if stage != "fit":
            return
        first, *others = [*data.worlds, *data.fresh]
        shapes = [None if mdp.features is None else mdp.features.shape[1:] for mdp in (first, *others)]
        if others and (None in shapes or len(set(shapes)) > 1):
            raise ConfigError(
                "several worlds share one reward by their features; these have none, or different numbers"
            )
        self.reward.remember(first)
        self.demonstrations = [
            one.checked(mdp, self.reward.inputs, self.planning.horizon).to(self.trainer.strategy.root_device)
            for one, mdp in zip(data.trajectories, data.worlds, strict=True)
        ]
        truths = [mdp.reward for mdp in data.worlds]
        if all(truth is not None for truth in truths):
            returns = [
                one.returns(mdp, truth)  # type: ignore[arg-type]
                for one, mdp, truth in zip(data.trajectories, data.worlds, truths, strict=True)
            ]
            data.expert_return = float(torch.cat(returns).mean())

    def actor(self) -> Actor:
        """What acts in evaluation rollouts, in float32 whatever the precision of planning."""
        return deepcopy(self.policy).float().actor(deterministic=True)

    def here(self, mdp: TabularMDP) -> TabularMDP:
        """A world on the module's device, in the precision of its parameters."""
        dtype = next(self.reward.parameters()).dtype
        key = id(mdp), self.device, dtype
        if key not in self._moved:
            # The original too: the address of a world that is gone may become that of another one.
            self._moved[key] = mdp, mdp.to(self.device, dtype)
        return self._moved[key][1]

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """−L(θ) on the trajectories with the numbers `batch: [B]`."""
        loss = torch.zeros((), device=self.device)
        gap: Tensor | float = 0.0
        for mdp, chosen in self._shares(batch):
            table = self.reward.table(mdp)
            self._check(table.values, "reward")
            inflow = chosen.inflow(mdp, self.planning)
            partition, learner = log_partition(mdp, table, inflow, self.planning)
            visits = chosen.visits(mdp, table.inputs, self.planning.gamma)
            loss = loss + (partition - (visits * table.values).sum()) / len(batch)
            expert = visits if table.inputs == "state" else chosen.visits(mdp, "state", self.planning.gamma)
            difference = expert - learner.sum(1)
            gap = gap + (difference if mdp.features is None else difference @ mdp.features) / len(batch)
        self._check(loss, "loss")
        # Over all processes: they share the demonstrations out.
        summed = all_reduced(torch.cat([loss.detach()[None], gap])) / world_size()  # type: ignore[list-item]
        self.fitted = {"log_likelihood": -summed[0], "feature_gap": summed[1:].abs().max()}
        if self.gap_tolerance and float(self.fitted["feature_gap"]) <= self.gap_tolerance:
            self.trainer.should_stop = True
        if self.trainer.should_stop or self.logs_step:
            self.log_dict({f"train/{name}": value for name, value in self.fitted.items()})
        if self.l2_coefficient:
            squares = torch.stack([parameter.square().sum() for parameter in self.reward.parameters()])
            loss = loss + 0.5 * self.l2_coefficient * squares.sum()
        return loss

    def _shares(self, batch: Tensor) -> Iterator[tuple[TabularMDP, Trajectories]]:
        """The worlds that the trajectories are from, with those from each."""
        offset = 0
        for mdp, demonstrations in zip(self.worlds.worlds, self.demonstrations, strict=True):
            count = len(demonstrations.length)
            mine = batch[(batch >= offset) & (batch < offset + count)] - offset
            offset += count
            if len(mine):
                yield self.here(mdp), demonstrations if len(mine) == count else demonstrations.select(mine)

    def _check(self, values: Tensor, what: str) -> None:
        """Stop before what is not finite reaches the weights."""
        if bool(values.isfinite().all()):
            return
        bad = int((~values.isfinite()).sum())
        raise TrainingError(
            f"the {what} has diverged at step {self.global_step} (epoch {self.current_epoch}): {bad} of "
            f"{values.numel()} values are not finite; model.l2_coefficient above 0 keeps it bounded\n"
            f"{self._last_good()}"
        )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam, fused into one kernel over all parameters."""
        return torch.optim.Adam(self.reward.parameters(), self.learning_rate, fused=True)

    # Evaluation

    @torch.no_grad()
    def refresh_policy(self) -> None:
        """Put π of the first world under the current reward into the policy's table."""
        mdp = self.here(self.worlds.worlds[0])
        policy = first_policy(mdp, self.reward.table(mdp), self.planning)
        table: Any = self.policy.network.layers[0]  # type: ignore[index]
        table.weight.copy_(policy.T.log().clamp(min=LEAST_LOG_PROBABILITY))
        table.bias.zero_()

    def on_train_epoch_end(self) -> None:
        """A checkpoint holds the policy of its reward."""
        self.refresh_policy()

    def on_validation_epoch_start(self) -> None:
        """As every method; and the policy is that of the reward."""
        super().on_validation_epoch_start()
        self.refresh_policy()
        for metric in (self.value_difference, self.fresh_value_difference, self.correlation):
            metric.reset()
        self._epic = []

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(
        self, batch: Transitions | Episode | EvaluationWorld, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """A world goes into what is known of the recovered reward; the rest as in every method."""
        if not isinstance(batch, EvaluationWorld):
            super().validation_step(batch, batch_idx, dataloader_idx)
            return
        mdp = self.here(batch.mdp)
        table = self.reward.table(mdp)
        if batch.fresh:
            self.fresh_value_difference.update(mdp, table)
            return
        self.value_difference.update(mdp, table)
        assert mdp.reward is not None
        self.correlation.update(on_transitions(mdp, table), on_transitions(mdp, mdp.reward))
        one, other = reward_function(mdp, table), reward_function(mdp, mdp.reward)
        if one is not None and other is not None:
            epic = EPIC(one, other, self.planning.gamma, samples=64)
            epic.to(self.device).update(some_transitions(mdp))
            self._epic.append(epic)

    def _log_evaluation(self, prefix: str) -> None:
        if self.value_difference.update_called:
            figures = self.value_difference.compute()
            figures["reward_correlation"] = self.correlation.compute()
            if self._epic:
                figures["epic_distance"] = torch.stack([epic.compute() for epic in self._epic]).mean()
            if self.fresh_value_difference.update_called:
                fresh = self.fresh_value_difference.compute()
                figures |= {f"fresh_{name}": value for name, value in fresh.items()}
            self.recovery = {name: float(value) for name, value in figures.items()}
            for name, value in figures.items():
                shown = name == "expected_value_difference"
                self.log(f"{prefix}/{name}", value.float(), prog_bar=shown, sync_dist=True)
        super()._log_evaluation(prefix)

    def summary_figures(self) -> dict[str, float]:
        """What `summary.json` says besides returns."""
        return {name: float(value) for name, value in self.fitted.items()} | self.recovery

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """As every method, and what it takes to use the reward alone."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["reward"] = describe(self.reward)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Without a Trainer (`load_from_checkpoint`) the reward is built from its description."""
        if not hasattr(self, "reward"):
            named = [self._reward_factory]
            self.reward = build(checkpoint["reward"], TabularReward, named=named)  # type: ignore[type-abstract]
        super().on_load_checkpoint(checkpoint)
