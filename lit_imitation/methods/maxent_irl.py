"""Maximum-entropy inverse reinforcement learning in worlds with known transitions (Ziebart et al. 2008, 2010)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args

import torch
from lightning import Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_imitation.errors import ConfigError, TrainingError
from lit_imitation.methods.checkpoints import last_good, spaces_of
from lit_imitation.methods.method import Method
from lit_imitation.methods.recovery import RewardRecovery, baseline_likelihoods, warn_of_small_weights
from lit_imitation.methods.recovery_evaluation import RecoveryEvaluated
from lit_imitation.methods.worlds import ExpertVisits, check_shared_features, count_visits, split_by_world
from lit_imitation.optim.descent import Descent
from lit_imitation.optim.optimization import Optimization
from lit_imitation.policies import CategoricalPolicy
from lit_imitation.rewards.tabular import LinearReward, TabularReward, TabularRewardFactory
from lit_imitation.rollout.reference import Reference
from lit_imitation.tabular.planning import Entropy, Planning, log_partition
from lit_imitation.utils.descriptions import Describable, decode, describe
from lit_imitation.utils.distributed import all_reduce, world_size
from lit_imitation.utils.ranges import check_finite, check_positive, check_weights

StepWeights = Literal["equal", "discounted"]


class MaxEntLoss(nn.Module):
    """Loss −L(θ) of `MaxEntIRL` as a module whose parameters are the reward's."""

    def __init__(self, reward: TabularReward, evaluate: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.reward, self.evaluate = reward, evaluate

    def forward(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and statistics of `MaxEntIRL.loss`."""
        return self.evaluate(numbers)


class MaxEntIRL(RecoveryEvaluated, Method):
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

    progress_bar_metrics = ("expected_value_difference", "return_mean")
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
        check_positive("model", learning_rate=learning_rate)
        check_finite("model", learning_rate=learning_rate)
        check_weights("model", l2_coefficient=l2_coefficient, gap_tolerance=gap_tolerance)
        if entropy == "none":
            raise ConfigError("model.entropy none gives no likelihood; choose causal or trajectory")
        super().__init__(partial(CategoricalPolicy, hidden_sizes=()))
        self.optimization, self.step_weights = optimization or Optimization(), step_weights
        self.planning = Planning(horizon, gamma, tolerance, entropy)
        self.learning_rate, self.l2_coefficient, self.gap_tolerance = learning_rate, l2_coefficient, gap_tolerance
        self.discounted = step_weights == "discounted" and entropy == "causal"  # with `trajectory`, γ is 1
        self._reward_factory: TabularRewardFactory = reward or LinearReward
        self.recovery_metrics = RewardRecovery(self.planning)

    def training_step(self, block: Tensor, batch_idx: int) -> None:
        """Take a gradient step of L(θ) on each row of `block: [K, B]`, indices of trajectories (or several rows)."""
        steps = []
        for batches in torch.split(block, self.accumulate_batches):
            likelihood, *gap = (all_reduce(self.descend(numbers=batches)[0, 1:-1]) / world_size()).unbind()
            steps.append(torch.stack([likelihood, torch.stack(gap).abs().max()]))
            if self.gap_tolerance and float(steps[-1][1]) <= self.gap_tolerance:
                self.trainer.should_stop = True
                break
        self.log_fit(*torch.stack(steps, 1))

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
            _check_finite(table.values, "reward", self.trainer)
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
        _check_finite(loss, "loss", self.trainer)
        statistics = torch.cat([-loss.detach()[None], gap])
        if self.l2_coefficient:
            squares = torch.stack([parameter.square().sum() for parameter in self.reward.parameters()])
            loss = loss + 0.5 * self.l2_coefficient * squares.sum()
        return loss, statistics

    # Building

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


def _check_finite(values: Tensor, what: str, trainer: Trainer) -> None:
    """Raise before values that are not finite reach the weights."""
    if bad := int((~values.isfinite()).sum()):
        raise TrainingError(
            f"the {what} has diverged at step {trainer.global_step} (epoch {trainer.current_epoch}): {bad} of "
            f"{values.numel()} values are not finite; model.l2_coefficient above 0 keeps it bounded\n"
            f"{last_good(trainer)}"
        )
