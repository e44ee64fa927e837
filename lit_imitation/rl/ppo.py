"""Proximal policy optimization (Schulman et al. 2017, arXiv:1707.06347)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from gymnasium import Space
from torch import Tensor
from torch.optim import Optimizer

from lit_imitation.errors import ConfigError
from lit_imitation.networks.encoders import EncoderKind
from lit_imitation.networks.mlp import MLP, Activation
from lit_imitation.optim.descent import Descent
from lit_imitation.optim.optimization import Optimization
from lit_imitation.optim.tracing import is_traceable
from lit_imitation.policies import GaussianPolicy, Policy, Value, default_policy_class
from lit_imitation.rl.advantages import generalized_advantages
from lit_imitation.rl.learner import Learner
from lit_imitation.rl.normalization import RewardScale, RunningMoments, update_statistics
from lit_imitation.rollout import Round
from lit_imitation.utils.distributed import all_reduce, world_size
from lit_imitation.utils.precision import without_autocast
from lit_imitation.utils.spaces import example_element

STATISTICS = ("loss", "policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction", "grad_norm")


class PPO(Learner[Round]):
    """Proximal policy optimization with a clipped objective.

    With r_t(θ) = π_θ(a_t | s_t) / π_old(a_t | s_t) and the rollout's advantages Â_t, PPO takes several epochs of Adam
    steps on

        L(θ) = −E_t[ min(r_t Â_t, clip(r_t, 1 − ε, 1 + ε) Â_t) ] − c_H E_t[H(π_θ(· | s_t))]
               + c_V E_t[(V_θ(s_t) − R_t)²] + c_KL E_t[KL(π_θ ‖ π_start)],        R_t = Â_t + V_old(s_t).

    Advantages are standardized over the whole round of all processes. Observations are standardized by running
    statistics that change only between rounds, so r_t = 1 at the first gradient step of a round. The first round of a
    fresh policy uses raw observations.

    Schulman et al. 2017, arXiv:1707.06347, equations 7 and 9. Details of practice follow Andrychowicz et al. 2021,
    arXiv:2006.05990.

    Args:
        observation_space: Observation space, Box or Discrete.
        action_space: Action space, Box, Discrete or MultiDiscrete.
        policy: Policy to start from; by default a fresh Gaussian or categorical one with two hidden layers of 64 tanh
            units and orthogonal initialization.
        hidden_sizes: Hidden layers of the value network, and of a fresh policy.
        activation: Activation function of the value network, and of a fresh policy.
        encoder: Observation encoder of a fresh policy, `auto`, `image` or `vector`. The value network uses the policy's
            kind of encoder.
        learning_rate: Step size of Adam.
        anneal: Decrease the learning rate linearly to 0 over the training.
        gamma: Discount γ.
        gae_lambda: Decay λ of the generalized advantages.
        clip_range: Clip range ε of the probability ratio.
        value_clip_range: Largest distance of V_θ from V_old in the value loss; `None` disables clipping of values.
        epochs: Passes over each round.
        batch_size: Transitions per gradient step on each process.
        entropy_coefficient: Weight c_H of the entropy bonus.
        value_coefficient: Weight c_V of the value loss.
        kl_coefficient: Weight c_KL of the divergence from the starting policy, if that was trained before.
        max_grad_norm: Largest norm of the gradient of all parameters together.
        target_kl: Skip the remaining epochs of a round once KL(π_old ‖ π_θ) exceeds 1.5 times this; `None` never does.
        normalize_observations: Standardize observations by running statistics, unless the given policy was trained with
            its own.
        normalize_rewards: Divide rewards by the running standard deviation of the discounted return.
        warmup_rounds: Rounds in which only the value function learns, if the given policy was trained before.
        initial_std: Initial value of a Gaussian policy's free σ, in units of half the action range; a cloned policy's
            own σ is close to 0. `None` keeps the policy's σ.
        compile: Compile the gradient; costs 20 seconds at the start and makes a step about three times as fast.

    Raises:
        ConfigError: An argument is out of range, or the policy has no action distribution.
    """

    def __init__(
        self,
        observation_space: Space[Any],
        action_space: Space[Any],
        policy: Policy | None = None,
        *,
        hidden_sizes: Sequence[int] = (64, 64),
        activation: Activation = "tanh",
        encoder: EncoderKind = "auto",
        learning_rate: float = 3e-4,
        anneal: bool = True,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        clip_range: float = 0.2,
        value_clip_range: float | None = None,
        epochs: int = 10,
        batch_size: int = 64,
        entropy_coefficient: float = 0.0,
        value_coefficient: float = 0.5,
        kl_coefficient: float = 0.0,
        max_grad_norm: float = 0.5,
        target_kl: float | None = None,
        normalize_observations: bool = True,
        normalize_rewards: bool = True,
        warmup_rounds: int = 0,
        initial_std: float | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("epochs", epochs, 1),
            ("batch_size", batch_size, 1),
            ("warmup_rounds", warmup_rounds, 0),
        ):
            if value < least:
                raise ConfigError(f"learner.{name} is {value}; it must be at least {least}")
        for name, rate in (("gamma", gamma), ("gae_lambda", gae_lambda)):
            if not 0.0 <= rate <= 1.0:
                raise ConfigError(f"learner.{name} is {rate}; it must lie in [0, 1]")
        if initial_std is not None and not initial_std > 0.0:
            raise ConfigError(f"learner.initial_std is {initial_std}; it must be above 0")
        for name, weight in (
            ("entropy_coefficient", entropy_coefficient),
            ("value_coefficient", value_coefficient),
            ("kl_coefficient", kl_coefficient),
        ):
            if not 0.0 <= weight < math.inf:
                raise ConfigError(f"learner.{name} is {weight}; it must be 0 or more, and finite")
        for name, bound in (
            ("clip_range", clip_range),
            ("value_clip_range", value_clip_range),
            ("max_grad_norm", max_grad_norm),
            ("target_kl", target_kl),
        ):
            if bound is not None and not bound > 0.0:
                raise ConfigError(f"learner.{name} is {bound}; it must be above 0")
        given = policy is not None and not policy.fresh
        if policy is None:
            cls = default_policy_class(action_space)
            policy = cls(
                observation_space,
                action_space,
                hidden_sizes=list(hidden_sizes),
                activation=activation,
                encoder=encoder,
            )
            assert isinstance(policy.network, MLP)
            policy.network.init_orthogonal(0.01)
        self.policy, self.value = policy, Value(observation_space, hidden_sizes, activation, policy.encoder.kind)
        self.value.network.init_orthogonal(1.0)
        try:
            policy.sample(policy.head(torch.from_numpy(example_element(observation_space)[None])))
        except TypeError as error:
            raise ConfigError(f"PPO needs a policy with an action distribution: {error}") from error
        if initial_std is not None:
            if not isinstance(policy, GaussianPolicy) or policy.log_std is None:
                raise ConfigError("learner.initial_std needs a GaussianPolicy with std: free")
            try:
                policy.set_std(initial_std)
            except ConfigError as error:
                raise ConfigError(f"learner.initial_std: {error}") from error
        self.start = deepcopy(policy).requires_grad_(False) if given and kl_coefficient else None
        self.learning_rate, self.anneal = learning_rate, anneal
        self.gamma, self.gae_lambda = gamma, gae_lambda
        self.clip_range, self.value_clip_range = clip_range, value_clip_range
        self.epochs, self.batch_size = epochs, batch_size
        self.entropy_coefficient, self.value_coefficient = entropy_coefficient, value_coefficient
        self.kl_coefficient, self.max_grad_norm, self.target_kl = kl_coefficient, max_grad_norm, target_kl
        self.warmup_rounds, self.compile_gradient = warmup_rounds if given else 0, compile
        standardized = policy.encoder.standardize is not None
        self.moments = RunningMoments(policy.encoder.out_features) if standardized and normalize_observations else None
        self.keeps_normalizer = False
        self._annealed = False  # whether the run annealed before it was resumed
        self.reward_scale = RewardScale(gamma) if normalize_rewards else None
        self.eval()

    def optimizers(self) -> list[Optimizer]:
        """Create one Adam for policy and value function."""
        own = self.policy.encoder.standardize
        # A moving normalizer would change a policy that was trained with a fixed one, so it stays, and the value
        # function shares it. Running statistics from a checkpoint of this run continue.
        if own is not None and (self.moments is None or not self.moments.count):
            self.keeps_normalizer = self.policy.trained or own.fitted
            assert self.value.encoder.standardize is not None
            self.value.encoder.standardize.load_state_dict(own.state_dict())
        parameters = [*self.policy.parameters(), *self.value.parameters()]
        self.descent = Descent(
            self,
            parameters,
            self.learning_rate,
            1e-5,
            Optimization(max_grad_norm=self.max_grad_norm),
            traced=is_traceable(self),
            compiled=self.compile_gradient,
        )
        return [self.descent.optimizer]

    @property
    def descents(self) -> Sequence[Descent]:
        """The one `Descent` of policy and value function, once it exists."""
        return [self.descent] if hasattr(self, "descent") else []

    def forward(
        self,
        observation: Tensor,
        action: Tensor,
        log_prob: Tensor,
        advantage: Tensor,
        target: Tensor,
        old_value: Tensor,
        weight: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Compute the loss of a minibatch.

        Args:
            observation: Observations, `[B, *obs]`.
            action: Actions, `[B, *act]`.
            log_prob: Log-probabilities under π_old, `[B]`.
            advantage: Standardized advantages, `[B]`.
            target: Targets R_t of the value function, `[B]`.
            old_value: Values V_old, `[B]`.
            weight: 1 for transitions, 0 for rows to ignore, `[B]`.

        Returns:
            The loss L(θ), `[]`, and the first five of `STATISTICS` after the loss, `[5]`.
        """
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
        """Take several epochs of gradient steps on one round `[time, env]`."""
        rollout, valid, _ = experience
        batch, logged = self.prepare(experience)
        if self.anneal or self._annealed:
            remaining = 1.0 - progress if self.anneal else 1.0
            self.descent.optimizer.param_groups[0]["lr"] = self.learning_rate * remaining
        mask = self.descent.mask(self.value) if self.rounds < self.warmup_rounds else None
        if 0 < self.rounds == self.warmup_rounds:
            # Adam has seen only zero gradients for the policy. Without a restart, its first steps would be several
            # times the learning rate and destroy the starting policy.
            self.descent.forget_moments()
        rows = len(batch[0])
        size = min(self.batch_size, rows)
        sums = torch.zeros(len(STATISTICS), device=valid.device)
        steps = 0
        for _ in range(self.epochs):
            order = torch.randperm(rows, device=valid.device)[: rows // size * size]
            shuffled = [column[order].view(-1, size, *column.shape[1:]) for column in batch]
            statistics = self.descent.steps(*shuffled, mask=mask)
            sums += statistics.sum(0)
            steps += len(statistics)
            if self.target_kl is not None:
                kl = all_reduce(statistics[-1, STATISTICS.index("approx_kl")]) / world_size()
                if kl > 1.5 * self.target_kl:
                    break
        self.gradient_steps += steps
        self.rounds += 1
        if self.moments is not None and not self.keeps_normalizer:
            update_statistics(self.moments, rollout.observation, valid, self.policy.encoder, self.value.encoder)
            if self.rounds == 1:
                # Standardization starts here and rescales inputs and gradients, so Adam's moments no longer apply.
                self.descent.forget_moments()
        return logged | dict(zip(STATISTICS, sums / steps, strict=True))

    @torch.no_grad()
    @without_autocast
    def prepare(self, experience: Round) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """Compute advantages and targets of a round.

        Args:
            experience: The round, `[time, env]`.

        Returns:
            The arguments of `forward`, `[time · env, …]` each, and metrics of the round.
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
        target = advantage + value
        weight = valid.to(reward.dtype)
        # Sums, so that the rounds of all processes count as one.
        sums = torch.stack([weight.sum(), (weight * advantage).sum(), (weight * advantage.square()).sum()])
        count, first, second = all_reduce(sums.double())
        mean = first / count
        std = (second / count - mean.square()).clamp(min=0.0).sqrt()
        standardized = (advantage - mean.to(advantage.dtype)) / (std.to(advantage.dtype) + 1e-8)
        columns = (log_prob, standardized.flatten(), target.flatten(), value.flatten(), weight.flatten())
        explained = 1.0 - _variance(target - value, weight) / _variance(target, weight)
        return (observation, action, *columns), {"explained_variance": explained}

    def state(self) -> dict[str, Any]:
        """Whether the learning rate was ever annealed, so that a resumed run without annealing resets it."""
        return {"annealed": self.anneal or self._annealed}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned."""
        self._annealed = state["annealed"]

    def begin(self) -> None:
        """Restart the discounted returns of the reward scale."""
        if self.reward_scale is not None:
            self.reward_scale.begin()


def _variance(x: Tensor, weight: Tensor) -> Tensor:
    """Variance `[]` of the entries with weight 1; selecting these entries would make the host wait for the device."""
    count = weight.sum()
    return ((x - (x * weight).sum() / count).square() * weight).sum() / count
