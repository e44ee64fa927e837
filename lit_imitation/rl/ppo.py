"""Proximal policy optimization (Schulman et al. 2017, arXiv:1707.06347)."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import Space
from torch import Tensor
from torch.optim import Optimizer

from lit_imitation.optim.descent import Descent
from lit_imitation.optim.optimization import Optimization
from lit_imitation.optim.tracing import is_traceable
from lit_imitation.policies import Policy
from lit_imitation.rl.actor_critic import ActorCritic
from lit_imitation.rl.advantages import explained_variance, generalized_advantages, standardize_advantages
from lit_imitation.rl.normalization import RewardScale
from lit_imitation.rollout import Round
from lit_imitation.utils.distributed import all_reduce, world_size
from lit_imitation.utils.precision import without_autocast
from lit_imitation.utils.ranges import check_at_least, check_between, check_positive, check_weights
from lit_imitation.utils.sampling import shuffle_minibatches

STATISTICS = ("loss", "policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction", "grad_norm")
"""Statistics of each gradient step: the loss, five from `forward`, and the norm of the gradient."""


class PPO(ActorCritic):
    """Proximal policy optimization with a clipped objective.

    With r_t(θ) = π_θ(a_t | s_t) / π_old(a_t | s_t) and the rollout's advantages Â_t, PPO takes several epochs of Adam
    steps on

        L(θ) = −E_t[ min(r_t Â_t, clip(r_t, 1 − ε, 1 + ε) Â_t) ] − c_H E_t[H(π_θ(· | s_t))]
               + c_V E_t[(V_θ(s_t) − R_t)²] + c_KL E_t[KL(π_θ ‖ π_start)],        R_t = Â_t + V_old(s_t).

    R_t uses the advantages as they are; the policy loss uses them standardized over the whole round of all processes.
    Observations are standardized by running
    statistics that change only between rounds, so r_t = 1 at the first gradient step of a round.

    Schulman et al. 2017, arXiv:1707.06347, equations 7 and 9. Details of practice follow Andrychowicz et al. 2021,
    arXiv:2006.05990.

    Args:
        observation_space: Observation space, Box or Discrete.
        action_space: Action space, Box, Discrete or MultiDiscrete.
        policy: Policy to start from; by default a fresh Gaussian or categorical one with orthogonal initialization.
        learning_rate: Step size of Adam.
        gamma: Discount γ.
        gae_lambda: Decay λ of the generalized advantages.
        clip_range: Clip range ε of the probability ratio.
        value_clip_range: Largest distance of V_θ from V_old in the value loss; `None` disables clipping of values.
        epochs: Passes over each round.
        batch_size: Transitions per gradient step on each process.
        entropy_coefficient: Weight c_H of the entropy bonus.
        value_coefficient: Weight c_V of the value loss.
        target_kl: Skip the remaining epochs of a round if the estimated KL(π_old ‖ π_θ) of an epoch's last minibatch
            exceeds 1.5 times this; `None` never skips.
        optimization: Clipping, schedule of the learning rate, accumulation, weight decay and averaging of weights; by
            default clips at 0.5 and lets the rate fall linearly to 0 over the training.
        normalize_rewards: Divide rewards by the running standard deviation of the discounted return.
        networks: Arguments of `ActorCritic`: networks, normalization, compilation, and starting from a trained policy.

    Raises:
        ConfigError: An argument is out of range, or the policy has no action distribution.
    """

    def __init__(
        self,
        observation_space: Space[Any],
        action_space: Space[Any],
        policy: Policy | None = None,
        *,
        learning_rate: float = 3e-4,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        clip_range: float = 0.2,
        value_clip_range: float | None = None,
        epochs: int = 10,
        batch_size: int = 64,
        entropy_coefficient: float = 0.0,
        value_coefficient: float = 0.5,
        target_kl: float | None = None,
        optimization: Optimization = Optimization(max_grad_norm=0.5, schedule="linear"),  # noqa: B008 - frozen
        normalize_rewards: bool = True,
        **networks: Any,
    ) -> None:
        super().__init__(observation_space, action_space, policy, **networks)
        check_at_least("learner", 1, epochs=epochs, batch_size=batch_size)
        check_between("learner", 0.0, 1.0, gamma=gamma, gae_lambda=gae_lambda)
        check_weights("learner", entropy_coefficient=entropy_coefficient, value_coefficient=value_coefficient)
        check_positive("learner", clip_range=clip_range, value_clip_range=value_clip_range)
        check_positive("learner", target_kl=target_kl)
        self.learning_rate, self.optimization = learning_rate, optimization
        self.gamma, self.gae_lambda = gamma, gae_lambda
        self.clip_range, self.value_clip_range = clip_range, value_clip_range
        self.epochs, self.batch_size = epochs, batch_size
        self.entropy_coefficient, self.value_coefficient = entropy_coefficient, value_coefficient
        self.target_kl = target_kl
        self.reward_scale = RewardScale(gamma) if normalize_rewards else None
        self.eval()

    def optimizers(self) -> list[Optimizer]:
        """Create one Adam for policy and value function."""
        self.share_normalizer()
        self.descent = Descent(
            self,
            [*self.policy.parameters(), *self.value.parameters()],
            self.learning_rate,
            eps=1e-5,
            optimization=self.optimization,
            traced=is_traceable(self),
            compiled=self.compile_gradient,
        )
        return [self.descent.optimizer]

    def forward(self, *columns: Tensor) -> tuple[Tensor, Tensor]:
        """Return L(θ) `[]` of a minibatch of the columns of `prepare`, and `STATISTICS[1:6]` `[5]`."""
        observation, action, log_prob, advantage, target, old_value, weight = columns
        share = weight / weight.sum().clamp(min=1.0)
        head = self.policy.head(observation)
        log_ratio = self.policy.head_log_prob(head, action) - log_prob
        ratio = log_ratio.exp()
        clipped = ratio.clamp(1.0 - self.clip_range, 1.0 + self.clip_range)
        policy_loss = -(torch.minimum(ratio * advantage, clipped * advantage) * share).sum()
        value = self.value(observation)
        value_error = (value - target).square()
        if self.value_clip_range is not None:
            clipped_value = old_value + (value - old_value).clamp(-self.value_clip_range, self.value_clip_range)
            value_error = torch.maximum(value_error, (clipped_value - target).square())
        value_loss = (value_error * share).sum()
        entropy = (self.policy.head_entropy(head) * share).sum()
        loss = policy_loss - self.entropy_coefficient * entropy + self.value_coefficient * value_loss
        if self.start is not None:
            divergence = self.policy.head_kl(head, self.start, self.start.head(observation))
            loss = loss + self.kl_coefficient * (divergence * share).sum()
        # r − 1 − log r ≥ 0 has the expectation KL(π_old ‖ π_θ) and less variance than −log r (Schulman 2020,
        # http://joschu.net/blog/kl-approx.html).
        approx_kl = ((ratio - 1.0 - log_ratio) * share).sum()
        clip_fraction = (((ratio - 1.0).abs() > self.clip_range) * share).sum()
        return loss, torch.stack([policy_loss, value_loss, entropy, approx_kl, clip_fraction])

    @without_autocast
    def update(self, experience: Round, progress: float) -> dict[str, Tensor]:
        """Take several epochs of gradient steps on a round `[time, env]`; returns means of `STATISTICS`, and more."""
        columns, logged = self.prepare(experience)
        mask = self.descent.mask(self.value) if self.rounds < self.warmup_rounds else None
        if 0 < self.rounds == self.warmup_rounds:
            # Adam has seen only zero gradients for the policy. Without a restart, its first steps would be several
            # times the learning rate and destroy the starting policy.
            self.descent.forget_moments()
        sums, steps = torch.zeros(len(STATISTICS), device=columns[0].device), 0
        for _ in range(self.epochs):
            minibatches = shuffle_minibatches(columns, self.batch_size)
            rates = self.descent.rates(progress, self.gradient_steps + steps, len(minibatches[0]))
            statistics = self.descent.steps(*minibatches, mask=mask, rates=rates)
            sums, steps = sums + statistics.sum(0), steps + len(statistics)
            if self.target_kl is not None:
                kl = all_reduce(statistics[-1, STATISTICS.index("approx_kl")]) / world_size()
                if kl > 1.5 * self.target_kl:
                    break
        self.gradient_steps += steps
        self.rounds += 1
        if self.update_normalizer(experience) and self.rounds == 1:
            # Standardization starts here and rescales inputs and gradients, so Adam's moments no longer apply.
            self.descent.forget_moments()
        return logged | dict(zip(STATISTICS, sums / steps, strict=True))

    @torch.no_grad()
    @without_autocast
    def prepare(self, experience: Round) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """Columns of a round `[time, env]`, each `[time · env, …]`, and metrics.

        The columns are observation, action, log π_old(a | s), standardized advantage Â, target R, V_old(s), and a
        weight that is 1 for transitions and 0 for rows to ignore.
        """
        rollout, valid, _ = experience
        assert rollout.next_observation is not None
        observation = rollout.observation.flatten(0, 1)
        action = rollout.action.flatten(0, 1)
        log_prob = self.policy.head_log_prob(self.policy.head(observation), action)
        value = self.value(observation).view_as(rollout.reward)
        next_value = self.value(rollout.next_observation.flatten(0, 1)).view_as(rollout.reward)
        done, reward = rollout.done, rollout.reward
        if self.reward_scale is not None:
            reward = self.reward_scale(reward, done, valid)
        advantage = generalized_advantages(
            reward, value, next_value, rollout.terminated, done, self.gamma, self.gae_lambda
        )
        target, weight = advantage + value, valid.to(reward.dtype)
        standardized = standardize_advantages(advantage, weight)
        columns = (log_prob, standardized.flatten(), target.flatten(), value.flatten(), weight.flatten())
        return (observation, action, *columns), {"explained_variance": explained_variance(value, target, weight)}

    def begin(self) -> None:
        """Restart the discounted returns of the reward scale."""
        if self.reward_scale is not None:
            self.reward_scale.begin()
