"""Implicit Q-learning (Kostrikov et al. 2022, arXiv:2110.06169)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_imitation.errors import ConfigError
from lit_imitation.methods.offline import OfflineMethod
from lit_imitation.networks.critic import QFunctions, Value
from lit_imitation.networks.mlp import Activation
from lit_imitation.optim.descent import Descent
from lit_imitation.optim.optimization import Optimization
from lit_imitation.optim.tracing import is_traceable
from lit_imitation.policies import Policy, PolicyFactory
from lit_imitation.rl.action_values import action_values
from lit_imitation.transitions import Transitions
from lit_imitation.utils.ranges import check_positive, check_weights

STATISTICS = ("value_loss", "critic_loss", "policy_loss", "q", "advantage", "weight")


def expectile_loss(error: Tensor, expectile: float) -> Tensor:
    """|τ − 1(u < 0)| u² of errors u, whose minimizer over a constant is their τ-expectile (equation 4)."""
    return torch.where(error < 0, 1.0 - expectile, expectile) * error.square()


class IQLLoss(nn.Module):
    """The three losses of `IQL` as one sum: none reaches the parameters of another."""

    def __init__(
        self,
        policy: Policy,
        value: Value,
        critic: QFunctions,
        target: QFunctions,
        gamma: float,
        expectile: float,
        inverse_temperature: float,
        max_weight: float,
    ) -> None:
        super().__init__()
        self.policy, self.value, self.critic, self.target = policy, value, critic, target
        self.gamma, self.expectile = gamma, expectile
        self.inverse_temperature, self.max_weight = inverse_temperature, max_weight

    def forward(
        self, observation: Tensor, action: Tensor, reward: Tensor, next_observation: Tensor, terminated: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Loss `[]` and `STATISTICS` `[6]` of transitions `[B]`."""
        with torch.no_grad():
            best = action_values(self.policy, self.target, observation, action).amin(0)
            target = reward + self.gamma * ~terminated * self.value(next_observation)
        advantage = best - self.value(observation)
        value_loss = expectile_loss(advantage, self.expectile).mean()
        q = action_values(self.policy, self.critic, observation, action)
        critic_loss = (q - target).square().mean(-1).sum()
        advantage = advantage.detach()
        weight = (self.inverse_temperature * advantage).exp().clamp(max=self.max_weight)
        policy_loss = (weight * self.policy.loss(observation, action)).mean()
        figures = (value_loss, critic_loss, policy_loss, q.mean(), advantage.mean(), weight.mean())
        return value_loss + critic_loss + policy_loss, torch.stack([one.detach() for one in figures])


class IQL(OfflineMethod):
    """Implicit Q-learning: values of the best actions in the data, without asking for any other.

        L(V) = E_(s,a)~D [ L_τ(min_i Q̄_i(s, a) − V(s)) ],      L_τ(u) = |τ − 1(u < 0)| u²         (equation 5)
        L(Q) = Σ_i E_(s,a,r,s')~D [ (r + γ (1 − terminated) V(s') − Q_i(s, a))² ]                  (equation 6)
        L(π) = E_(s,a)~D [ min(exp(β (min_i Q̄_i(s, a) − V(s))), w_max) · ℓ_π(s, a) ]               (equation 7)

    V is the expectile τ of Q over the actions that were taken in a state: their mean at τ = ½, and toward 1 the best
    of them. The policy is cloned from the actions, with more weight on those better than V, so every policy of `BC`
    will do: ℓ is its own loss, a negative log-likelihood in the paper. Each step uses the networks of the step before
    for all three losses.

    Args:
        policy: Builds the policy from observation and action space.
        expectile: τ, from ½ on: more trusts fewer, better actions.
        inverse_temperature: β; 0 is behavioral cloning.
        max_weight: w_max, largest weight of an action.
        hidden_sizes: Hidden layers of V and of the Q-functions.
        activation: Activation between these.
        learning_rate: Learning rate of Adam.
        gamma: Discount γ.
        tau: Step size of the target networks Q̄.
        optimization: Clipping, weight decay, schedule and averaging of weights.
        compile: Compile the gradients: a minute at the start, then faster steps.

    Raises:
        ConfigError: An argument is out of range.
    """

    value: Value

    def __init__(
        self,
        policy: PolicyFactory | None = None,
        expectile: float = 0.7,
        inverse_temperature: float = 3.0,
        max_weight: float = 100.0,
        hidden_sizes: Sequence[int] = (256, 256),
        activation: Activation = "relu",
        learning_rate: float = 3e-4,
        gamma: float = 0.99,
        tau: float = 0.005,
        optimization: Optimization | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__(policy, hidden_sizes, activation, learning_rate, gamma, tau, optimization, compile)
        if not 0.0 < expectile < 1.0:
            raise ConfigError(f"model.expectile is {expectile}; it must lie between 0 and 1")
        check_weights("model", inverse_temperature=inverse_temperature)
        check_positive("model", max_weight=max_weight)
        self.expectile, self.inverse_temperature, self.max_weight = expectile, inverse_temperature, max_weight

    def build_values(self, observation_space: Any, action_space: Any) -> None:
        """Build V, the Q-functions and their targets."""
        super().build_values(observation_space, action_space)
        self.value = Value(observation_space, self.hidden_sizes, self.activation, self.policy.encoder.kind)

    @property
    def judges(self) -> Sequence[nn.Module]:
        """V, the Q-functions and their targets."""
        return [self.value, *super().judges]

    def training_step(self, block: Transitions, batch_idx: int) -> None:
        """Take a step of all three losses on each minibatch of a block `[K, B]`."""
        assert block.next_observation is not None
        statistics = self.descend(
            observation=block.observation,
            action=block.action,
            reward=block.reward,
            next_observation=block.next_observation,
            terminated=block.terminated,
        )
        self.log_steps({f"train/{name}": statistics[:, 1 + i] for i, name in enumerate(STATISTICS)})

    def configure_optimizers(self) -> list[Optimizer]:
        """One Adam for V, Q and π."""
        loss = IQLLoss(
            self.policy, self.value, self.critic, self.target, self.gamma, self.expectile, self.inverse_temperature,
            self.max_weight,
        )  # fmt: skip
        self.descent = Descent(
            loss,
            [*self.policy.parameters(), *self.value.parameters(), *self.critic.parameters()],
            self.learning_rate,
            optimization=self.optimization,
            make_optimizer=self.build_optimizer,
            traced=is_traceable(loss),
            compiled=self.compile_gradient,
            follower=(self.critic, self.target, self.tau),
        )
        return [self.descent.optimizer]
