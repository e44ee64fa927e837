"""Conservative Q-learning (Kumar et al. 2020, arXiv:2006.04779)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import Space
from gymnasium.spaces import Discrete
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_imitation.errors import ConfigError
from lit_imitation.methods.offline import OfflineMethod
from lit_imitation.methods.steps import block_rates, check_losses, count_steps
from lit_imitation.networks.critic import QFunctions
from lit_imitation.networks.mlp import Activation
from lit_imitation.optim.descent import Descent
from lit_imitation.optim.optimization import Optimization
from lit_imitation.optim.tracing import is_traceable
from lit_imitation.policies import CategoricalPolicy, Policy, PolicyFactory, SquashedGaussianPolicy
from lit_imitation.rl.action_values import action_values
from lit_imitation.rl.sac import PolicyLoss, Temperature, default_target_entropy, soft_value
from lit_imitation.transitions import Transitions
from lit_imitation.utils.ranges import check_at_least, check_positive, check_weights
from lit_imitation.utils.sampling import rank_generator

STATISTICS = ("critic_loss", "q", "conservative_gap", "conservative_weight")
POLICY_STATISTICS = ("policy_loss", "entropy", "temperature")
MAX_WEIGHT = 1e6
"""Largest weight of the conservative term that the Lagrange variant reaches."""


def stochastic_policy(observation_space: Space[Any], action_space: Space[Any]) -> Policy:
    """The default policy: categorical for discrete, a squashed Gaussian for continuous actions."""
    cls = CategoricalPolicy if isinstance(action_space, Discrete) else SquashedGaussianPolicy
    return cls(observation_space, action_space)


class CriticLoss(nn.Module):
    """Loss of the Q-functions of `CQL`, and of the weight of its conservative term."""

    def __init__(
        self,
        policy: CategoricalPolicy | SquashedGaussianPolicy,
        critic: QFunctions,
        target: QFunctions,
        weight: Temperature,
        gamma: float,
        gap_target: float | None,
    ) -> None:
        super().__init__()
        self.policy, self.critic, self.target, self.weight = policy, critic, target, weight
        self.gamma, self.gap_target = gamma, gap_target

    def forward(
        self,
        observation: Tensor,
        action: Tensor,
        reward: Tensor,
        next_observation: Tensor,
        terminated: Tensor,
        noise: Tensor,
        uniform: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Loss `[]` and `STATISTICS` `[4]` of transitions `[B]`.

        Args:
            observation: s, `[B, *obs]`.
            action: a, `[B, *act]`.
            reward: r, `[B]`.
            next_observation: s', `[B, *obs]`.
            terminated: `[B]` bool.
            noise: Draws from N(0, 1), `[B, 1 + 2 N, act_dim]`: for ã, for N actions of π(· | s), and for N of
                π(· | s').
            uniform: Draws from U(−1, 1), `[B, N, act_dim]`.
        """
        with torch.no_grad():
            next_head = self.policy.head(next_observation)
            value, _ = soft_value(self.policy, self.target, next_observation, next_head, noise[:, 0])
            target = reward + self.gamma * ~terminated * value
        q = action_values(self.policy, self.critic, observation, action)
        bellman = 0.5 * (q - target).square().mean(-1).sum()
        gap = self.soft_maximum(observation, next_head, noise[:, 1:], uniform).mean(-1) - q.mean(-1)
        weight = self.weight().clamp(max=MAX_WEIGHT)
        loss = bellman + (weight.detach() * gap).sum()
        if self.gap_target is not None:
            loss = loss - weight * (gap.detach() - self.gap_target).sum()
        figures = (bellman, q.mean(), gap.mean(), weight)
        return loss, torch.stack([one.detach() for one in figures])

    def soft_maximum(self, observation: Tensor, next_head: Tensor, noise: Tensor, uniform: Tensor) -> Tensor:
        """Soft maximum log Σ_a exp Q_i(s, a), `[M, B]`; for continuous actions an estimate of log ∫ exp Q_i(s, a) da.

        The integral is over units of half the action range. It is estimated by importance sampling from the three kinds
        of actions that `forward` describes.
        """
        if isinstance(self.policy, CategoricalPolicy):
            return self.critic(observation).logsumexp(-1)  # type: ignore[no-any-return]
        size, count, act_dim = uniform.shape
        with torch.no_grad():
            actions, densities = [uniform], [torch.full_like(uniform[..., 0], -act_dim * math.log(2.0))]
            heads = self.policy.head(observation), next_head
            for head, own in zip(heads, torch.split(noise, count, 1), strict=True):
                repeated = head.repeat_interleave(count, 0)
                action, density = self.policy.rsample_with_log_prob(repeated, own.flatten(0, 1))
                actions.append(self.policy.from_action(action).view(size, count, act_dim))
                densities.append((density + self.policy.scale.log().sum()).view(size, count))
            action, density = torch.cat(actions, 1), torch.cat(densities, 1)
        repeated = observation.repeat_interleave(3 * count, 0)
        q = self.critic(repeated, action.flatten(0, 1)).view(-1, size, 3 * count)
        return (q - density).logsumexp(-1) - math.log(3 * count)  # type: ignore[no-any-return]


class CQL(OfflineMethod):
    """Conservative Q-learning: values of actions that were not recorded are pushed down, and those recorded up.

        L(Q) = ½ Σ_i E_D[ (Q_i(s, a) − y)² ] + α Σ_i E_D[ log Σ_a' exp Q_i(s, a') − Q_i(s, a) ]     (equation 4, CQL(H))
        y = r + γ (1 − terminated) min_i Q̄_i(s', ã),    ã ~ π(· | s')
        L(π) = E_s[ η log π(a | s) − min_i Q_i(s, a) ],    a ~ π(· | s)                             as in `SAC`

    The second term is a bound on how much Q can exceed the data: its minimum over Q makes the policy's value a lower
    bound (theorem 3.2). For continuous actions the sum is an integral over actions in units of half their range,
    estimated from N uniform ones and N of the policy in s and in s' each (appendix F). With `gap_target` τ, α is
    learned as a Lagrange multiplier, and grows while the bracket is above τ (equation 30). η is SAC's temperature.

    Args:
        policy: Builds a `SquashedGaussianPolicy`, or a `CategoricalPolicy` for discrete actions.
        conservative_weight: α, at the start if it is learned.
        gap_target: τ, in units of Q; by default α is constant.
        samples: N.
        target_entropy: Entropy that η holds the policy at; by default that of `SAC`.
        policy_learning_rate: Learning rate of policy and temperature.
        hidden_sizes: Hidden layers of the Q-functions.
        activation: Activation between these.
        learning_rate: Learning rate of the Q-functions and of α.
        gamma: Discount γ.
        tau: Step size of the target networks Q̄.
        optimization: Clipping, weight decay, schedule and averaging of weights.
        compile: Compile the gradients: a minute at the start, then faster steps.

    Raises:
        ConfigError: An argument is out of range, or the policy is of another kind.
    """

    policy: CategoricalPolicy | SquashedGaussianPolicy
    critic_descent: Descent
    policy_descent: Descent

    def __init__(
        self,
        policy: PolicyFactory | None = None,
        conservative_weight: float = 5.0,
        gap_target: float | None = None,
        samples: int = 10,
        target_entropy: float | None = None,
        policy_learning_rate: float = 1e-4,
        hidden_sizes: Sequence[int] = (256, 256),
        activation: Activation = "relu",
        learning_rate: float = 3e-4,
        gamma: float = 0.99,
        tau: float = 0.005,
        optimization: Optimization | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__(
            policy or stochastic_policy, hidden_sizes, activation, learning_rate, gamma, tau, optimization, compile
        )
        check_at_least("model", 1, samples=samples)
        check_positive("model", conservative_weight=conservative_weight, policy_learning_rate=policy_learning_rate)
        check_weights("model", gap_target=gap_target)
        self.conservative_weight, self.gap_target, self.samples = conservative_weight, gap_target, samples
        self.target_entropy, self.policy_learning_rate = target_entropy, policy_learning_rate

    @property
    def descents(self) -> Sequence[Descent]:
        """That of Q and α, and that of policy and temperature."""
        return [self.critic_descent, self.policy_descent] if hasattr(self, "policy_descent") else []

    def build_values(self, observation_space: Any, action_space: Any) -> None:
        """Build the Q-functions, their targets, α and the temperature."""
        kind = CategoricalPolicy if isinstance(action_space, Discrete) else SquashedGaussianPolicy
        if not isinstance(self.policy, kind):
            raise ConfigError(
                f"CQL needs a {kind.__name__}, not a {type(self.policy).__name__}: leave out model.policy, or set it "
                f"to lit_imitation.{kind.__name__}"
            )
        super().build_values(observation_space, action_space)
        self.weight, self.temperature = Temperature(self.conservative_weight), Temperature(1.0)

    def training_step(self, block: Transitions, batch_idx: int) -> None:
        """Take a step of Q and one of π on each minibatch of a block `[K, B]`."""
        count, size = block.batch_size
        device = block.reward.device
        act_dim = 0 if isinstance(self.policy, CategoricalPolicy) else self.policy.act_dim
        generator = rank_generator(device)
        shape = (count, size, 2 + 2 * self.samples, act_dim)
        noise = torch.randn(shape, device=device, generator=generator)
        uniform = 2.0 * torch.rand(count, size, self.samples, act_dim, device=device, generator=generator) - 1.0
        assert block.next_observation is not None
        columns = {
            "observation": block.observation,
            "action": block.action,
            "reward": block.reward,
            "next_observation": block.next_observation,
            "terminated": block.terminated,
            "noise": noise[:, :, 1:],
            "uniform": uniform,
        }
        rates = block_rates(self.critic_descent, self.trainer, count)
        policy_rates = block_rates(self.policy_descent, self.trainer, count)
        critic_rows, policy_rows = list[Tensor](), list[Tensor]()
        with self.signals.after_block():
            for i in range(count):
                if rates is not None and policy_rates is not None:
                    self.critic_descent.set_rate(rates[i])
                    self.policy_descent.set_rate(policy_rates[i])
                critic_rows.append(self.critic_descent.step(*(column[i] for column in columns.values())))
                policy_rows.append(self.policy_descent.step(block.observation[i], noise[i, :, 0]))
        critic, policy = torch.stack(critic_rows), torch.stack(policy_rows)
        check_losses(critic[:, 0] + policy[:, 0], columns, self.trainer, 1)
        count_steps(self.trainer, count)
        figures = dict(zip(STATISTICS, critic[:, 1:].unbind(1), strict=False))
        figures |= dict(zip(POLICY_STATISTICS, policy[:, 1:].unbind(1), strict=False))
        self.log_steps({f"train/{name}": values for name, values in figures.items()})

    def configure_optimizers(self) -> list[Optimizer]:
        """One Adam for Q and α, and one for policy and temperature."""
        critic_loss = CriticLoss(self.policy, self.critic, self.target, self.weight, self.gamma, self.gap_target)
        learned = [*self.critic.parameters(), *(self.weight.parameters() if self.gap_target is not None else ())]
        self.critic_descent = Descent(
            critic_loss,
            learned,
            self.learning_rate,
            optimization=self.optimization,
            traced=is_traceable(critic_loss),
            compiled=self.compile_gradient,
            follower=(self.critic, self.target, self.tau),
        )
        entropy = self.target_entropy
        if entropy is None:
            entropy = default_target_entropy(self.policy.action_space)
        policy_loss = PolicyLoss(self.policy, self.critic, self.temperature, entropy, None, 0.0)
        self.policy_descent = Descent(
            policy_loss,
            [*self.policy.parameters(), *self.temperature.parameters()],
            self.policy_learning_rate,
            optimization=self.optimization,
            traced=is_traceable(policy_loss),
            compiled=self.compile_gradient,
        )
        return [self.critic_descent.optimizer, self.policy_descent.optimizer]
