"""TD3+BC (Fujimoto & Gu 2021, arXiv:2106.06860), with ReBRAC's penalty of the values (Tarasov et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_imitation.errors import ConfigError
from lit_imitation.methods.offline import OfflineMethod
from lit_imitation.methods.steps import block_rates, check_losses, count_steps
from lit_imitation.networks.critic import QFunctions
from lit_imitation.networks.mlp import Activation
from lit_imitation.optim.averaging import Follower
from lit_imitation.optim.descent import Descent
from lit_imitation.optim.optimization import Optimization
from lit_imitation.optim.tracing import is_traceable
from lit_imitation.policies import DeterministicPolicy, PolicyFactory
from lit_imitation.rl.action_values import action_values
from lit_imitation.transitions import Transitions
from lit_imitation.utils.ranges import check_at_least, check_weights
from lit_imitation.utils.sampling import rank_generator

ALPHA = 2.5
"""α of TD3+BC, the weight of the values where cloning is averaged over the dimensions of an action."""


class CriticLoss(nn.Module):
    """Loss of the Q-functions of `TD3BC`."""

    def __init__(
        self,
        target_policy: DeterministicPolicy,
        critic: QFunctions,
        target: QFunctions,
        gamma: float,
        target_noise: float,
        noise_clip: float,
        critic_penalty: float,
    ) -> None:
        super().__init__()
        self.target_policy, self.critic, self.target, self.gamma = target_policy, critic, target, gamma
        self.target_noise, self.noise_clip, self.critic_penalty = target_noise, noise_clip, critic_penalty

    def forward(
        self,
        observation: Tensor,
        action: Tensor,
        reward: Tensor,
        next_observation: Tensor,
        terminated: Tensor,
        noise: Tensor,
        next_action: Tensor | None = None,
        has_next: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Loss `[]` and mean Q `[1]` of transitions `[B]`.

        Args:
            observation: s, `[B, *obs]`.
            action: a, `[B, *act]`.
            reward: r, `[B]`.
            next_observation: s', `[B, *obs]`.
            terminated: `[B]` bool.
            noise: Draws from N(0, 1), `[B, act_dim]`.
            next_action: The action taken in s', `[B, *act]`; needed for the penalty.
            has_next: `[B]`, 1 where it is known, and 0 elsewhere, where there is no penalty.
        """
        policy = self.target_policy
        with torch.no_grad():
            smoothing = (self.target_noise * noise).clamp(-self.noise_clip, self.noise_clip)
            u = policy.squash(policy.head(next_observation)) + smoothing
            u = torch.where(policy.bounded, u.clamp(-1.0, 1.0), u)
            value = self.target(next_observation, u).amin(0).squeeze(-1)
            if next_action is not None and has_next is not None:
                distance = (u - policy.from_action(policy.clip(next_action))).square().sum(-1)
                value = value - self.critic_penalty * has_next * distance
            target = reward + self.gamma * ~terminated * value
        q = action_values(policy, self.critic, observation, action)
        return (q - target).square().mean(-1).sum(), q.detach().mean()[None]


class PolicyLoss(nn.Module):
    """Loss of the policy of `TD3BC`."""

    def __init__(self, policy: DeterministicPolicy, critic: QFunctions, cloning_coefficient: float) -> None:
        super().__init__()
        self.policy, self.critic, self.cloning_coefficient = policy, critic, cloning_coefficient

    def forward(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Loss `[]`, and loss of cloning `[1]`, at `observation: [B, *obs]` with `action: [B, *act]`."""
        policy = self.policy
        q = self.critic(observation, policy.squash(policy.head(observation)))[0]
        cloning = policy.loss(observation, action).mean()
        return self.cloning_coefficient * cloning - q.mean() / q.detach().abs().mean(), cloning.detach()[None]


class TD3BC(OfflineMethod):
    """TD3+BC: twin delayed deterministic policy gradients, held near the recorded actions by cloning.

        L(Q) = Σ_i E_D [ (Q_i(s, a) − y)² ],     y = r + γ (1 − terminated) (min_i Q̄_i(s', ã) − β₂ ‖ã − a'‖²)
        ã = π̄(s') + clip(σ z, ±c),  z ~ N(0, I)
        L(π) = E_D [ −Q_1(s, π(s)) / E|Q_1| + β₁ ℓ_π(s, a) ],      every `policy_period` steps

    ℓ_π is the policy's regression loss, summed over the dimensions of an action in units of half its range. Targets Q̄
    and π̄ follow when the policy learns. Without β₂ this is TD3+BC (equations 3 and 4), whose α is 1 / (β₁ · number of
    dimensions). With β₂, and a' the action taken in s', it is ReBRAC (arXiv:2305.09836, equations 2 and 3), which also
    wants deeper networks (`hidden_sizes: [256, 256, 256]`) and larger batches (1,024).

    Args:
        policy: Builds a `DeterministicPolicy`.
        cloning_coefficient: β₁; by default that of TD3+BC with α = 2.5.
        critic_penalty: β₂.
        target_noise: σ of target actions, in units of half the action range.
        noise_clip: Bound c of that noise.
        policy_period: Gradient steps of Q for one of the policy.
        hidden_sizes: Hidden layers of the Q-functions.
        activation: Activation between these.
        learning_rate: Learning rate of Adam.
        gamma: Discount γ.
        tau: Step size of the target networks.
        optimization: Clipping, weight decay, schedule and averaging of weights.
        compile: Compile the gradients: a minute at the start, then faster steps.

    Raises:
        ConfigError: An argument is out of range, or the policy is not deterministic.
        UnsupportedSpaceError: Actions are not continuous.
    """

    policy: DeterministicPolicy
    critic_descent: Descent
    policy_descent: Descent

    def __init__(
        self,
        policy: PolicyFactory | None = None,
        cloning_coefficient: float | None = None,
        critic_penalty: float = 0.0,
        target_noise: float = 0.2,
        noise_clip: float = 0.5,
        policy_period: int = 2,
        hidden_sizes: Sequence[int] = (256, 256),
        activation: Activation = "relu",
        learning_rate: float = 3e-4,
        gamma: float = 0.99,
        tau: float = 0.005,
        optimization: Optimization | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__(
            policy or DeterministicPolicy, hidden_sizes, activation, learning_rate, gamma, tau, optimization, compile
        )
        check_weights("model", cloning_coefficient=cloning_coefficient, critic_penalty=critic_penalty)
        check_weights("model", target_noise=target_noise, noise_clip=noise_clip)
        check_at_least("model", 1, policy_period=policy_period)
        self.cloning_coefficient, self.critic_penalty = cloning_coefficient, critic_penalty
        self.target_noise, self.noise_clip, self.policy_period = target_noise, noise_clip, policy_period
        self.needs_next_actions = critic_penalty > 0.0

    @property
    def descents(self) -> Sequence[Descent]:
        """That of the Q-functions, and that of the policy."""
        return [self.critic_descent, self.policy_descent] if hasattr(self, "policy_descent") else []

    def build_values(self, observation_space: Any, action_space: Any) -> None:
        """Build the Q-functions, and the targets of these and of the policy."""
        if not isinstance(self.policy, DeterministicPolicy):
            raise ConfigError(
                f"TD3BC needs a DeterministicPolicy, not a {type(self.policy).__name__}: leave out model.policy, or "
                "set it to lit_imitation.DeterministicPolicy"
            )
        super().build_values(observation_space, action_space)
        self.target_policy = deepcopy(self.policy).requires_grad_(False)

    def setup(self, stage: str) -> None:
        """Build, and let the target policy start as the policy, whose inputs are standardized by then."""
        super().setup(stage)
        if stage == "fit":
            self.target_policy.load_state_dict(self.policy.state_dict())

    def training_step(self, block: Transitions, batch_idx: int) -> None:
        """Take a step of Q on each minibatch of a block `[K, B]`, and one of π at every `policy_period`-th."""
        count, size = block.batch_size
        device = block.reward.device
        noise = torch.randn(count, size, self.policy.act_dim, device=device, generator=rank_generator(device))
        assert block.next_observation is not None
        columns = {
            "observation": block.observation,
            "action": block.action,
            "reward": block.reward,
            "next_observation": block.next_observation,
            "terminated": block.terminated,
            "noise": noise,
        }
        if self.needs_next_actions:
            assert block.next_action is not None
            columns |= {"next_action": block.next_action, "has_next": (~block.done).float()}
        rates = block_rates(self.critic_descent, self.trainer, count)
        critic_rows, policy_rows, latest = list[Tensor](), list[Tensor](), list[int]()
        with self.signals.after_block():
            for i in range(count):
                if rates is not None:
                    self.critic_descent.set_rate(rates[i])
                    self.policy_descent.set_rate(rates[i])
                critic_rows.append(self.critic_descent.step(*(column[i] for column in columns.values())))
                if self.critic_descent.adam_steps % self.policy_period == 0:
                    policy_rows.append(self.policy_descent.step(block.observation[i], block.action[i]))
                    self.critic_follower.update()
                latest.append(max(len(policy_rows) - 1, 0))
        critic = torch.stack(critic_rows)
        check_losses(critic[:, 0], columns, self.trainer, 1)
        count_steps(self.trainer, count)
        figures = {"train/critic_loss": critic[:, 0], "train/q": critic[:, 1]}
        if policy_rows:
            policy = torch.stack(policy_rows)[latest]
            figures |= {"train/policy_loss": policy[:, 0], "train/cloning_loss": policy[:, 1]}
        self.log_steps(figures)

    def configure_optimizers(self) -> list[Optimizer]:
        """One Adam for the Q-functions, and one for the policy."""
        critic_loss = CriticLoss(
            self.target_policy, self.critic, self.target, self.gamma, self.target_noise, self.noise_clip,
            self.critic_penalty,
        )  # fmt: skip
        coefficient = self.cloning_coefficient
        if coefficient is None:
            coefficient = 1.0 / (ALPHA * self.policy.act_dim)
        policy_loss = PolicyLoss(self.policy, self.critic, coefficient)
        self.critic_descent = Descent(
            critic_loss,
            self.critic.parameters(),
            self.learning_rate,
            optimization=self.optimization,
            traced=is_traceable(critic_loss),
            compiled=self.compile_gradient,
        )
        self.policy_descent = Descent(
            policy_loss,
            self.policy.parameters(),
            self.learning_rate,
            optimization=self.optimization,
            traced=is_traceable(policy_loss),
            compiled=self.compile_gradient,
            follower=(self.policy, self.target_policy, self.tau),
        )
        self.critic_follower = Follower(self.critic_descent.layout, self.critic, self.target, self.tau)
        return [self.critic_descent.optimizer, self.policy_descent.optimizer]
