"""Reward of guided cost learning (Finn, Levine & Abbeel 2016): sample-based likelihood and regularizers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from gymnasium import Space
from gymnasium.spaces import Box
from torch import Tensor, nn

from lit_imitation.errors import ConfigError
from lit_imitation.networks.encoders import EncoderKind
from lit_imitation.networks.mlp import MLP, Activation
from lit_imitation.rewards.base import LearnableReward
from lit_imitation.rewards.features import ActionFeatures, Samples
from lit_imitation.transitions import Transitions
from lit_imitation.utils.precision import without_autocast
from lit_imitation.utils.ranges import check_between

STATISTICS = (
    "reward_expert",
    "reward_samples",
    "weight_exponent",
    "local_constancy",
    "monotonicity",
)
"""Statistics of each step: mean R(τ) of demonstrations and samples, β, and both regularizers g."""
BISECTION_STEPS = 40
"""Number of bisection steps in the search for β."""


def effective_sample_size(log_weight: Tensor) -> Tensor:
    """Effective sample size (Σ w)² / Σ w² `[]`, between 1 and M, from log weights `[M]` (Kish 1965)."""
    return (2.0 * log_weight.logsumexp(0) - (2.0 * log_weight).logsumexp(0)).exp()


@torch.no_grad()
def tempering_exponent(log_weight: Tensor, min_share: float) -> Tensor:
    """Largest β `[]` in (0, 1] for which w^β has an effective sample size of at least `min_share` · M.

    The effective sample size decreases in β, from M at β = 0, so bisection finds it.

    Args:
        log_weight: `[M]` log weights.
        min_share: Minimum effective sample size as a share of M, in [0, 1).

    Returns:
        The exponent β, `[]`.
    """
    least = min_share * len(log_weight)
    low, high = torch.zeros_like(log_weight[0]), torch.ones_like(log_weight[0])
    for _ in range(BISECTION_STEPS):
        middle = 0.5 * (low + high)
        enough = effective_sample_size(middle * log_weight) >= least
        low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
    whole = effective_sample_size(log_weight) >= least
    return torch.where(whole, torch.ones_like(low), low).clamp(min=1e-9)


def log_partition_estimate(log_weight: Tensor, exponent: Tensor | float = 1.0) -> Tensor:
    """Tempered estimate 1/β log (1/M) Σ_j w_j^β `[]` of the log partition function from log weights `[M]`.

    With w_j = exp R(τ_j) / q(τ_j) and τ_j ~ q, β = 1 gives the importance-sampled log Z. Smaller β gives a lower bound
    in expectation, which decreases to E_q[R(τ) − log q(τ)] as β → 0 (the variational bounds of Li & Turner 2016, "Rényi
    Divergence Variational Inference", arXiv:1602.02311). Its gradient is Σ_j w̃_j ∇R(τ_j), w̃_j = w_j^β / Σ w^β.
    """
    return ((exponent * log_weight).logsumexp(0) - math.log(len(log_weight))) / exponent


def local_constancy(cost: Tensor, alive: Tensor) -> Tensor:
    """Regularizer g_lcr(τ) = Σ_t [(c_{t+1} − c_t) − (c_t − c_{t−1})]² `[N]`: the cost should change at a constant rate.

    Args:
        cost: `[N, T]` costs c along trajectories.
        alive: `[N, T]` bool, true for the steps of each trajectory, from the first on.

    Returns:
        The regularizer of each trajectory, `[N]`.
    """
    return (cost.diff(n=2, dim=1).square() * alive[:, 2:]).sum(1)


def monotonicity(cost: Tensor, alive: Tensor) -> Tensor:
    """Regularizer g_mono(τ) = Σ_t max(0, c_t − c_{t−1} − 1)² `[N]`: the cost should not rise by more than 1 per step.

    Args:
        cost: `[N, T]` costs c along trajectories.
        alive: `[N, T]` bool, true for the steps of each trajectory.

    Returns:
        The regularizer of each trajectory, `[N]`.
    """
    return ((cost.diff(dim=1) - 1.0).clamp(min=0.0).square() * alive[:, 1:]).sum(1)


class GuidedCost(LearnableReward):
    """Guided cost r_θ(s, a) = −‖A f_θ(s) + b‖² − v² ‖a‖² with an MLP f_θ; R_θ(τ) is the sum of r_θ along τ. The loss is

        L(θ) = −(1/N) Σ_{τ_i ∈ D} R_θ(τ_i) + 1/β log (1/M) Σ_j [z_j exp R_θ(τ_j)]^β + c_lcr g_lcr + c_mono g_mono

    with z_j = 1 / q(τ_j), see `GCL`. For β = 1 its first two terms are the negative log-likelihood of the
    demonstrations under P(τ) ∝ p(τ) exp R_θ(τ), with the partition function from importance sampling; p(τ), the
    contribution of the dynamics, cancels. β is 1 if the effective sample size of the weights z_j exp R_θ(τ_j) is at
    least `min_share` · M, and otherwise the largest value for which that of the tempered weights is.

    The regularizers apply to the state cost c_t = ‖A f_θ(s_t) + b‖². g_lcr is the mean of `local_constancy` over
    demonstrations and samples, and g_mono that of `monotonicity` over demonstrations (section 5.2 of the paper,
    arXiv:1603.00448; the second is meant for tasks that approach one goal).

    Actions are measured in units of half their range, and samples beyond it count as the bound. The term v² ‖a‖² exists
    for continuous actions only. With `inputs: state_action`, f_θ reads the actions instead, of any kind.

    Args:
        observation_space: Box or Discrete observation space.
        action_space: Box, Discrete or MultiDiscrete action space.
        inputs: Inputs of f_θ.
        hidden_sizes: Sizes of the hidden layers of f_θ. Without any, f_θ is the standardized state and c is quadratic
            in it. Few tasks are that simple, but such a cost can only rise far from the data, where a network's may
            fall.
        outputs: Number of rows of A.
        activation: Activation after each layer of f_θ.
        local_constancy: Coefficient c_lcr.
        monotonicity: Coefficient c_mono.
        min_share: Minimum effective sample size as a share of the samples.
        encoder: Kind of encoder, with its options, or encoders of parts by path; see `Encoder`.

    Raises:
        ConfigError: An option is out of range.
    """

    def __init__(
        self,
        observation_space: Space[Any],
        action_space: Space[Any],
        *,
        inputs: Literal["state", "state_action"] = "state",
        hidden_sizes: Sequence[int] = (64, 64),
        outputs: int = 16,
        activation: Activation = "tanh",
        local_constancy: float = 0.0,
        monotonicity: float = 0.0,
        min_share: float = 0.2,
        encoder: EncoderKind = "auto",
    ) -> None:
        super().__init__(observation_space, action_space, inputs, encoder=encoder)
        check_between("reward", 0.0, 1e6, local_constancy=local_constancy, monotonicity=monotonicity)
        check_between("reward", 0.0, 0.99, min_share=min_share)
        self.local_constancy, self.monotonicity, self.min_share = local_constancy, monotonicity, min_share
        if outputs < 1:
            raise ConfigError(f"GuidedCost: outputs is {outputs}; it must be at least 1")
        self.network = MLP([self.features.out_features, *hidden_sizes, outputs], activation)
        has_action_cost = inputs == "state" and isinstance(action_space, Box)
        self.action_features = ActionFeatures(action_space) if has_action_cost else None
        self.action_weight = nn.Parameter(torch.tensor(0.1)) if has_action_cost else None

    def costs(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """State costs c and rewards r_θ, `[B]` each, of `observation: [B, *obs]` and `action: [B, *act]`."""
        nothing = torch.zeros(observation.shape[0], dtype=torch.bool, device=observation.device)
        cost = self.network(self.features(Samples(observation, action, observation, nothing, nothing)))
        cost = cost.square().sum(-1)
        if self.action_features is None or self.action_weight is None:
            return cost, -cost
        return cost, -cost - self.action_weight.square() * self.action_features(action).square().sum(-1)

    def trajectory_costs(self, observation: Tensor, action: Tensor, alive: Tensor) -> tuple[Tensor, Tensor]:
        """State costs c `[N, T]` and returns R_θ `[N]` of trajectories `[N, T, …]`; `alive: [N, T]` marks steps."""
        cost, reward = self.costs(observation.flatten(0, 1), action.flatten(0, 1))
        return cost.view_as(alive), (reward.view_as(alive) * alive).sum(1)

    def forward(
        self,
        observation: Tensor,
        action: Tensor,
        alive: Tensor,
        sampled_observation: Tensor,
        sampled_action: Tensor,
        sampled_alive: Tensor,
        log_q: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Loss L(θ) `[]` and its `STATISTICS` `[5]`.

        Args:
            observation: `[N, T, *obs]` observations of the demonstrations.
            action: `[N, T, *act]` actions of the demonstrations.
            alive: `[N, T]` bool, true for the steps of each demonstration.
            sampled_observation: `[M, T′, *obs]` observations of the samples.
            sampled_action: `[M, T′, *act]` actions of the samples.
            sampled_alive: `[M, T′]` bool, true for the steps of each sample.
            log_q: `[M]` log q(τ_j) = −log z_j of the samples.

        Returns:
            The loss and the statistics.
        """
        cost, expert = self.trajectory_costs(observation, action, alive)
        sampled_cost, sampled = self.trajectory_costs(sampled_observation, sampled_action, sampled_alive)
        log_weight = sampled - log_q
        exponent = tempering_exponent(log_weight.detach(), self.min_share)
        constancy = torch.cat([local_constancy(cost, alive), local_constancy(sampled_cost, sampled_alive)]).mean()
        monotone = monotonicity(cost, alive).mean()
        loss = log_partition_estimate(log_weight, exponent) - expert.mean()
        loss = loss + self.local_constancy * constancy + self.monotonicity * monotone
        statistics = (expert.mean(), sampled.mean(), exponent, constancy, monotone)
        return loss, torch.stack([value.detach() for value in statistics])

    @without_autocast
    def reward(self, transitions: Transitions) -> Tensor:
        """Rewards r_θ `[*batch]` of transitions `[*batch]`."""
        flat = transitions.reshape(-1)
        return self.costs(flat.observation, flat.action)[1].view(transitions.batch_size)
