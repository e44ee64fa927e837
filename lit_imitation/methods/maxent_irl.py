"""Maximum-entropy inverse reinforcement learning in worlds with known transitions (Ziebart et al. 2008, 2010)."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_imitation.data.tabular_module import EvaluationWorld, TabularDataModule
from lit_imitation.errors import ConfigError, TrainingError
from lit_imitation.methods.checkpoints import last_good, spaces_of
from lit_imitation.methods.method import Method
from lit_imitation.methods.recovery import (
    BASELINES,
    RewardRecovery,
    baseline_likelihoods,
    mean_log_likelihood,
    select_likelihoods,
    warn_if_worse_than_uniform,
    warn_of_small_weights,
)
from lit_imitation.methods.worlds import ExpertVisits, WorldCache, check_shared_features, count_visits, split_by_world
from lit_imitation.optim.descent import Descent
from lit_imitation.optim.optimization import Optimization
from lit_imitation.policies import CategoricalPolicy
from lit_imitation.rewards.tabular import LinearReward, TabularReward, TabularRewardFactory
from lit_imitation.rollout import Actor, Episode
from lit_imitation.rollout.reference import Reference
from lit_imitation.tabular.mdp import TabularMDP
from lit_imitation.tabular.planning import Entropy, Planning, first_policy, log_partition
from lit_imitation.transitions import Transitions
from lit_imitation.utils.descriptions import Describable, decode, describe
from lit_imitation.utils.distributed import all_reduce, world_size

StepWeights = Literal["equal", "discounted"]

MIN_LOG_PROBABILITY = -100.0
"""Lower bound of the log-probabilities in the policy's table, which must be finite."""


class MaxEntLoss(nn.Module):
    """Loss −L(θ) of `MaxEntIRL` as a module whose parameters are the reward's."""

    def __init__(self, reward: TabularReward, evaluate: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.reward, self.evaluate = reward, evaluate

    def forward(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and statistics of `MaxEntIRL.loss`."""
        return self.evaluate(numbers)


class MaxEntIRL(Method):
    """Maximize the log-likelihood per step of demonstrated trajectories s_0, a_0, …, s_n, which have M steps in total.

    With `entropy: causal` (2010) it is the likelihood of the actions,

        L(θ) = 1/M Σ_i Σ_{t<n} log π_t(a_t | s_t) − c_2 · ½‖θ‖²,
        log π_t(a | s) = r_θ(s, a) + γ Σ_s′ p(s′ | s, a) V_{t+1}(s′) − V_t(s),

    with V of `Planning` under r_θ. Each step has the same weight and counts as a start of its own, with the return that
    follows it. ∇V_t(s) is the learner's discounted occupancy from s on, so the gradient is

        ∇L = 1/M Σ_s,a [ n(s, a) − d_θ(s, a) ] ∇r_θ(s, a) − c_2 θ,

    with n the expert's counts and d_θ = Σ_i Σ_t [ occupancy from s_t on, less γ times that from p(· | s_t, a_t) on ].
    If an action is unknown, V_{t+1} of the observed successor replaces the mean over s′.

    With `step_weights: discounted` step t has weight γᵗ, and L is a mean over the N trajectories:

        L(θ) = 1/N Σ_i [ Σ_{t<n} γᵗ r_θ(s_t, a_t, s_{t+1}) + γⁿ V_n(s_n) − V_0(s_0) ] − c_2 · ½‖θ‖².

    The bracket is Σ_t γᵗ log π_t(a_t | s_t) with the observed successors in place of their mean, which is the same in
    expectation. n and d_θ are then discounted visits of expert and learner. V_n(s_n) is 0 at the horizon; before it, it
    is the value of the steps that a truncated trajectory does not show.

    With `entropy: trajectory` (2008), where γ is 1, the bracket is log P(ζ | s_0) without the log-probabilities of the
    dynamics, which do not depend on θ. L is its sum over all trajectories divided by M.

    Training stops when the gradient with respect to a reward that is linear in the features is small,
    max_j |1/M Σ_s (n(s) − d_θ(s)) φ_j(s)| ≤ `gap_tolerance` (1/N with `discounted`). In a world without features it is
    the gradient with respect to the reward of each state.

    `log_likelihood` is that per step, in nats, on the training demonstrations. `uniform_log_likelihood` and
    `markov_log_likelihood` are those of the `Baselines`, and `held_out_…` all three on held-out trajectories. The saved
    policy is π of the first world under r_θ. With a horizon it is π_0, which acts in every step as in the first.

    Args:
        reward: Builds the reward model; by default `LinearReward`.
        entropy: Kind of likelihood, `causal` or `trajectory`.
        horizon: Horizon T; None for an infinite one.
        gamma: Discount γ.
        tolerance: Tolerance of planning with an infinite horizon.
        learning_rate: Learning rate of Adam.
        l2_coefficient: c_2; above 0 the reward stays bounded where demonstrations never take an available action.
        gap_tolerance: Gap between the expectations of the features at which training stops; 0 to train on.
        step_weights: Weight of step t of a demonstration: `equal`, or `discounted` for γᵗ.
        optimization: Clipping, weight decay, schedule and averaging of weights.
    """

    reward: TabularReward
    shown = ("expected_value_difference", "return_mean")
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
        step_weights: StepWeights = "equal",
        optimization: Optimization | None = None,
    ) -> None:
        if step_weights not in get_args(StepWeights):
            raise ConfigError(f"model.step_weights is {step_weights!r}; choose equal or discounted")
        if not 0.0 < learning_rate < math.inf:
            raise ConfigError(f"model.learning_rate is {learning_rate}; it must be positive")
        for name, value in (("l2_coefficient", l2_coefficient), ("gap_tolerance", gap_tolerance)):
            if not 0.0 <= value < math.inf:
                raise ConfigError(f"model.{name} is {value}; it must be 0 or more")
        if entropy == "none":
            raise ConfigError("model.entropy none gives no likelihood; choose causal or trajectory")
        super().__init__(partial(CategoricalPolicy, hidden_sizes=()))
        self.optimization, self.step_weights = optimization or Optimization(), step_weights
        self.planning = Planning(horizon, gamma, tolerance, entropy)
        self.learning_rate, self.l2_coefficient, self.gap_tolerance = learning_rate, l2_coefficient, gap_tolerance
        self.discounted = step_weights == "discounted" and entropy == "causal"  # with `trajectory`, γ is 1
        self._reward_factory: TabularRewardFactory = reward or LinearReward
        self.fitted: dict[str, float] = {}
        """Log-likelihood and gap of the features' expectations in the last step."""
        self.likelihoods: dict[str, float] = {}
        """Log-likelihoods per step of the baselines and on held-out trajectories."""
        self.recovery: dict[str, float] = {}
        """Figures of the recovered reward in the last validation or test."""
        self.recovery_metrics = RewardRecovery(self.planning)
        self._copies = WorldCache()

    def training_step(self, block: Tensor, batch_idx: int) -> None:
        """Take a gradient step of L(θ) on each row of `block: [K, B]`, indices of trajectories (or several rows)."""
        steps = []
        for batches in torch.split(block, self.accumulate_batches):
            likelihood, *gap = (all_reduce(self.descend(numbers=batches)[0, 1:-1]) / world_size()).unbind()
            steps.append(torch.stack([likelihood, torch.stack(gap).abs().max()]))
            if self.gap_tolerance and float(steps[-1][1]) <= self.gap_tolerance:
                self.trainer.should_stop = True
                break
        name = "discounted_log_likelihood" if self.discounted else "log_likelihood"
        figures = dict(zip((name, "feature_gap"), torch.stack(steps, 1), strict=True))
        self.fitted = {name: float(values[-1]) for name, values in figures.items()}
        for baseline in BASELINES:
            if baseline in self.likelihoods:
                figures[baseline] = figures[name].new_full((len(steps),), self.likelihoods[baseline])
        self.log_steps({f"train/{name}": values for name, values in figures.items()}, self.trainer.should_stop)

    def loss(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """−L(θ) `[]` on the trajectories with these indices `[B]`, and statistics `[1 + features]`.

        The statistics are the log-likelihood, and the difference between expert's and learner's expectations of the
        features, or of the states in a world without features.
        """
        loss = gap = torch.zeros((), device=self.device)
        count = sum(len(one.length) for one in self.demonstrations)
        whole = len(numbers) == count
        # The same factor for every trajectory, so that the gradient is the mean of the gradients of parts.
        scale = (1.0 if self.discounted else count / self.steps) / len(numbers)
        for number, chosen in split_by_world(self.demonstrations, numbers):
            mdp = self.on_device(self.worlds.worlds[number])
            table = self.reward.table(mdp)
            self._check_finite(table.values, "reward")
            expert = self._expert_visits.get(number)
            if expert is None or not whole:
                per_step = self.planning.entropy == "causal" and not self.discounted
                expert = count_visits(mdp, table.inputs, chosen, self.planning, per_step, scale)
            if whole:  # the same in every step
                self._expert_visits[number] = expert
            partition, learner = log_partition(mdp, table, expert.inflow, self.planning)
            loss = loss + partition - (expert.visits * table.values).sum()
            difference = expert.state_visits - learner.sum(1)
            gap = gap + (difference if mdp.features is None else difference @ mdp.features)
        self._check_finite(loss, "loss")
        statistics = torch.cat([-loss.detach()[None], gap])
        if self.l2_coefficient:
            squares = torch.stack([parameter.square().sum() for parameter in self.reward.parameters()])
            loss = loss + 0.5 * self.l2_coefficient * squares.sum()
        return loss, statistics

    def _check_finite(self, values: Tensor, what: str) -> None:
        """Raise before values that are not finite reach the weights."""
        if bad := int((~values.isfinite()).sum()):
            raise TrainingError(
                f"the {what} has diverged at step {self.global_step} (epoch {self.current_epoch}): {bad} of "
                f"{values.numel()} values are not finite; model.l2_coefficient above 0 keeps it bounded\n"
                f"{last_good(self.trainer)}"
            )

    # Building

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

    def configure_model(self) -> None:
        """Build reward and policy once the world is known."""
        if hasattr(self, "policy") or not self.attached:
            return
        super().configure_model()
        self.policy.requires_grad_(False)  # a table that follows from the reward
        world = self.worlds.worlds[0]
        features = 0 if world.features is None else world.features.shape[1]
        self.reward = self._reward_factory(*self.datamodule.spaces, features, world.grid)

    def setup(self, stage: str) -> None:
        """Check that the worlds can share a reward, and the demonstrations against their worlds."""
        data = self.worlds
        self.configure_model()
        if stage != "fit":
            return
        check_shared_features([*data.worlds, *data.fresh])
        self.reward.store_features(data.worlds[0])
        inputs, horizon, device = self.reward.inputs, self.planning.horizon, self.trainer.strategy.root_device
        pairs = zip(data.trajectories, data.worlds, strict=True)
        self.demonstrations = [one.check(mdp, inputs, horizon).to(device) for one, mdp in pairs]
        self.held_out = [
            None if one is None else one.check(mdp, inputs, horizon)
            for one, mdp in zip(data.held_out, data.worlds, strict=True)
        ]
        self.steps = sum(len(one.state) for one in self.demonstrations)
        self._expert_visits: dict[int, ExpertVisits] = {}
        self.likelihoods = baseline_likelihoods(data.worlds, self.demonstrations, self.held_out)
        if self.step_weights == "discounted":
            warn_of_small_weights(self.demonstrations, self.planning.gamma)
        truth = data.worlds[0].reward
        if data.expert_reference is None and truth is not None:  # of trajectories that were given
            returns = self.demonstrations[0].returns(data.worlds[0], truth)
            data.set_reference(Reference.of(returns.cpu().numpy()), comparable=False)

    def configure_optimizers(self) -> list[Optimizer]:
        """Adam over the parameters of the reward."""
        self.descent = Descent(
            MaxEntLoss(self.reward, self.loss),
            self.reward.parameters(),
            self.learning_rate,
            optimization=self.optimization,
            make_optimizer=self.build_optimizer,
        )
        return [self.descent.optimizer]

    # Evaluation

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
        self, batch: Transitions | Episode | EvaluationWorld, batch_idx: int, dataloader_idx: int = 0
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

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the description of the reward, so that it can be used alone."""
        checkpoint["reward"] = describe(self.reward)
        super().on_save_checkpoint(checkpoint)

    def parts(self) -> dict[str, Describable | None]:
        """The reward; the policy follows from it."""
        return {"reward": self.reward}

    def rebuild(self, checkpoint: dict[str, Any]) -> None:
        """Build reward and policy for the checkpoint's world."""
        super().rebuild(checkpoint)
        self.policy.requires_grad_(False)
        arguments = decode(checkpoint["reward"]["arguments"])
        self.reward = self._reward_factory(*spaces_of(checkpoint), arguments["num_features"], arguments["grid"])
