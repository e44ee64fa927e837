"""Guided cost learning's reward (Finn, Levine & Abbeel 2016): likelihood from weighted samples, regularizers."""

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

STATISTICS = (
    "reward_expert",
    "reward_samples",
    "weight_exponent",
    "local_constancy",
    "monotonicity",
)
"""What each step reports beside its loss: mean R(τ) of either side, β, and the regularizers g."""
HALVINGS = 40
"""Of the interval in which β is looked for."""


def effective_sample_size(log_weight: Tensor) -> Tensor:
    """(Σ w)² / Σ w² `[]`, between 1 and M, of the logarithms of M weights, `[M]` (Kish 1965)."""
    return (2.0 * log_weight.logsumexp(0) - (2.0 * log_weight).logsumexp(0)).exp()


@torch.no_grad()
def tempering_exponent(log_weight: Tensor, min_share: float) -> Tensor:
    """The largest β `[]` in (0, 1] for which the effective sample size of w^β is at least `min_share` · M.

    It falls as β grows, from M at β = 0, so that halving an interval finds where.

    Args:
        log_weight: log w `[M]`.
        min_share: of M, in [0, 1).
    """
    least = min_share * len(log_weight)
    low, high = torch.zeros_like(log_weight[0]), torch.ones_like(log_weight[0])
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        enough = effective_sample_size(middle * log_weight) >= least
        low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
    whole = effective_sample_size(log_weight) >= least
    return torch.where(whole, torch.ones_like(low), low).clamp(min=1e-9)


def log_partition_estimate(log_weight: Tensor, exponent: Tensor | float = 1.0) -> Tensor:
    """1/β log (1/M) Σ_j w_j^β `[]` of log w `[M]`.

    With w_j = exp R(τ_j) / q(τ_j) and τ_j ~ q: at β = 1 the importance-sampled log Z; below that a lower bound of it
    in expectation, which falls to E_q[R(τ) − log q(τ)] as β goes to 0 (the variational bounds of Li & Turner 2016,
    "Rényi Divergence Variational Inference"). Its gradient is Σ_j w̃_j ∇R(τ_j) with w̃_j = w_j^β / Σ w^β.
    """
    return ((exponent * log_weight).logsumexp(0) - math.log(len(log_weight))) / exponent


def local_constancy(cost: Tensor, alive: Tensor) -> Tensor:
    """g_lcr(τ) = Σ_t [(c_{t+1} − c_t) − (c_t − c_{t−1})]² `[N]`: the cost should change at a constant rate.

    Args:
        cost: c `[N, T]`, along trajectories.
        alive: `[N, T]` bool: the steps that there are, from the first on.
    """
    return (cost.diff(n=2, dim=1).square() * alive[:, 2:]).sum(1)


def monotonicity(cost: Tensor, alive: Tensor) -> Tensor:
    """g_mono(τ) = Σ_t max(0, c_t − c_{t−1} − 1)² `[N]`: along a demonstration the cost should not rise by over 1.

    Args:
        cost: c `[N, T]`.
        alive: as above.
    """
    return ((cost.diff(dim=1) - 1.0).clamp(min=0.0).square() * alive[:, 1:]).sum(1)


class GuidedCost(LearnableReward):
    """r_θ(s, a) = −‖A f_θ(s) + b‖² − v² ‖a‖², f_θ an MLP and R_θ(τ) the sum of r_θ along τ, trained on

        L(θ) = −(1/N) Σ_{τ_i ∈ D} R_θ(τ_i) + 1/β log (1/M) Σ_j [z_j exp R_θ(τ_j)]^β + c_lcr g_lcr + c_mono g_mono

    with z_j = 1 / q(τ_j), see `GCL`. With β = 1 that is the negative log-likelihood of the demonstrations under
    P(τ) ∝ p(τ) exp R_θ(τ), p(τ) being what chance contributes, which cancels, with the partition function by importance
    sampling. β is 1 as long as the effective sample size of the weights z_j exp R_θ(τ_j) is at least `min_share` · M,
    and otherwise the largest for which that of the tempered weights is.

    c_t = ‖A f_θ(s_t) + b‖², the cost of the state, is what the regularizers are of: g_lcr is the mean over
    demonstrations and samples of `local_constancy`, g_mono that over demonstrations of `monotonicity` (section 5.2 of
    the paper; the second is meant for tasks of one approach to a goal).

    Actions count in units of half their range, and what is drawn beyond it as the bound; v² ‖a‖² is for continuous
    actions. With `inputs: state_action` f_θ reads the actions instead, whatever they are.

    Args:
        observation_space: Box or Discrete.
        action_space: Box, Discrete or MultiDiscrete.
        inputs: what f_θ reads.
        hidden_sizes: of f_θ; with none f_θ is the standardized state itself and c is quadratic in it: few tasks are
            so simple, but beyond what was sampled such a cost only rises, where a network's may fall.
        outputs: rows of A.
        activation: after each layer of f_θ.
        local_constancy: c_lcr.
        monotonicity: c_mono.
        min_share: of the samples, that the effective sample size may not fall below.
        encoder: how observations are read: `image`, `vector`, or by their space; see `Encoder`.
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
        for name, value, high in (
            ("local_constancy", local_constancy, 1e6),
            ("monotonicity", monotonicity, 1e6),
            ("min_share", min_share, 0.99),
        ):
            if not 0.0 <= value <= high:
                raise ConfigError(f"reward.{name} is {value}; it must lie in [0, {high:g}]")
        self.local_constancy, self.monotonicity, self.min_share = local_constancy, monotonicity, min_share
        if outputs < 1:
            raise ConfigError(f"GuidedCost: outputs is {outputs}; it must be at least 1")
        self.network = MLP([self.features.out_features, *hidden_sizes, outputs], activation)
        pays_actions = inputs == "state" and isinstance(action_space, Box)
        self.action_features = ActionFeatures(action_space) if pays_actions else None
        self.action_weight = nn.Parameter(torch.tensor(0.1)) if pays_actions else None

    def costs(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """C and r_θ, `[B]` each, at `observation: [B, *obs]` and `action: [B, *act]`."""
        nothing = torch.zeros(len(observation), dtype=torch.bool, device=observation.device)
        cost = self.network(self.features(Samples(observation, action, observation, nothing, nothing)))
        cost = cost.square().sum(-1)
        if self.action_features is None or self.action_weight is None:
            return cost, -cost
        return cost, -cost - self.action_weight.square() * self.action_features(action).square().sum(-1)

    def along(self, observation: Tensor, action: Tensor, alive: Tensor) -> tuple[Tensor, Tensor]:
        """C `[N, T]` and R_θ `[N]` of trajectories `[N, T, …]`, of which `alive: [N, T]` says where there are steps."""
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
        """L(θ) `[]` and its `STATISTICS` `[5]`.

        Args:
            observation: of demonstrations, `[N, T, *obs]`.
            action: `[N, T, *act]`.
            alive: `[N, T]` bool: the steps that there are.
            sampled_observation: of samples, `[M, T′, *obs]`.
            sampled_action: `[M, T′, *act]`.
            sampled_alive: `[M, T′]` bool.
            log_q: −log z `[M]`.
        """
        cost, expert = self.along(observation, action, alive)
        sampled_cost, sampled = self.along(sampled_observation, sampled_action, sampled_alive)
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
        """r_θ `[*batch]`."""
        flat = transitions.reshape(-1)
        return self.costs(flat.observation, flat.action)[1].view(transitions.batch_size)
