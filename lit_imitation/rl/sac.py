"""Soft actor-critic (Haarnoja et al. 2018, arXiv:1801.01290 and arXiv:1812.05905)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any, TypeAlias

import torch
from gymnasium import Space
from gymnasium.spaces import Discrete
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_imitation.errors import ConfigError
from lit_imitation.networks.encoders import EncoderKind
from lit_imitation.networks.mlp import Activation
from lit_imitation.optim.descent import Descent
from lit_imitation.optim.optimization import Optimization
from lit_imitation.optim.tracing import is_traceable
from lit_imitation.optim.vector import flatten_parameters
from lit_imitation.policies import CategoricalPolicy, GaussianPolicy, Policy, QFunctions, SquashedGaussianPolicy
from lit_imitation.policies.base import Explorer
from lit_imitation.rl.action_values import action_values, make_q_functions
from lit_imitation.rl.learner import Learner
from lit_imitation.rl.normalization import RunningMoments, update_statistics
from lit_imitation.rl.replay import Replay, ReplayBatch
from lit_imitation.rollout import Round
from lit_imitation.transitions import Transitions
from lit_imitation.utils.distributed import all_reduce, gather_to_first, rank, world_size
from lit_imitation.utils.precision import without_autocast
from lit_imitation.utils.ranges import check_at_least, check_between, check_positive, check_weights
from lit_imitation.utils.sampling import rank_generator, sample_rows

StochasticPolicy: TypeAlias = SquashedGaussianPolicy | GaussianPolicy | CategoricalPolicy
CRITIC_STATISTICS = ("loss", "q", "critic_grad_norm")
POLICY_STATISTICS = ("objective", "policy_loss", "entropy", "temperature", "policy_grad_norm")


class Temperature(nn.Module):
    """Temperature α = exp(log α), which any gradient step leaves positive.

    Args:
        value: Initial α.
    """

    def __init__(self, value: float) -> None:
        super().__init__()
        self.log_alpha = nn.Parameter(torch.tensor(math.log(value)))

    def forward(self) -> Tensor:
        """α, `[]`."""
        return self.log_alpha.exp()


def default_target_entropy(action_space: Space[Any]) -> float:
    """Target entropy in nats: minus the number of dimensions of a Box, or 0.98 log(number of actions)."""
    if isinstance(action_space, Discrete):
        return 0.98 * math.log(int(action_space.n))
    return -float(math.prod(action_space.shape or ()))


def soft_value(
    policy: StochasticPolicy,
    critic: QFunctions,
    observation: Tensor,
    head: Tensor,
    noise: Tensor,
) -> tuple[Tensor, Tensor]:
    """Estimate E_{a~π(·|s)}[min_i Q_i(s, a)] and E_{a~π(·|s)}[log π(a | s)], the terms of both losses.

    Continuous actions use one sample. Discrete ones use the exact sum over all actions (Christodoulou 2019,
    arXiv:1910.07207, equations 10 to 12). Densities of continuous actions are in units of half the action range, so
    that entropies and their target do not depend on the environment's units.

    Args:
        policy: Policy π.
        critic: Q-functions Q_i.
        observation: Observations, `[B, *obs]`.
        head: Outputs of the policy's network, `[B, outputs]`.
        noise: Draws from N(0, 1) that determine the sampled actions, `[B, act_dim]`.

    Returns:
        The smallest Q and the log-probability, `[B]` each.
    """
    if isinstance(policy, CategoricalPolicy):
        log_prob = head.log_softmax(-1)
        prob = log_prob.exp()
        return (prob * critic(observation).amin(0)).sum(-1), (prob * log_prob).sum(-1)
    action, log_density = policy.rsample_with_log_prob(head, noise)
    q = critic(observation, policy.from_action(policy.clip(action))).amin(0).squeeze(-1)
    return q, log_density + policy.scale.log().sum()


class CriticLoss(nn.Module):
    """Loss of the Q-functions (arXiv:1812.05905, equation 5).

        L = ½ Σ_i E[(Q_i(s, a) − y)²],
        y = r + γ (1 − terminated) (min_i Q̄_i(s', a') − α log π(a' | s')),   a' ~ π(· | s')

    A truncated transition bootstraps its value. Discrete actions use the expectation over a'.
    """

    def __init__(
        self,
        policy: StochasticPolicy,
        critic: QFunctions,
        target: QFunctions,
        temperature: Temperature,
        gamma: float,
    ) -> None:
        super().__init__()
        self.policy, self.critic, self.target, self.temperature = policy, critic, target, temperature
        self.gamma = gamma

    def forward(
        self,
        observation: Tensor,
        action: Tensor,
        reward: Tensor,
        next_observation: Tensor,
        terminated: Tensor,
        noise: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Loss `[]` and mean Q `[1]` of transitions `[B]`; `noise: [B, act_dim]` determines a'."""
        with torch.no_grad():
            head = self.policy.head(next_observation)
            q, log_prob = soft_value(self.policy, self.target, next_observation, head, noise)
            target = reward + self.gamma * ~terminated * (q - self.temperature() * log_prob)
        value = action_values(self.policy, self.critic, observation, action)
        return 0.5 * (value - target).square().mean(-1).sum(), value.detach().mean()[None]


class PolicyLoss(nn.Module):
    """Loss of policy and temperature.

        L = E_s[α log π(a | s) − min_i Q_i(s, a)] + c_KL E_s[KL(π ‖ π_start)] + log α · (H(π) − H̄),   a ~ π(· | s)

    α is a constant in the first term, and H(π) = −E[log π] in the last. The gradient of log α is therefore H(π) − H̄:
    too much entropy lowers the temperature. Equation 18 of arXiv:1812.05905 has α instead of log α in the last term,
    which gives the same sign and another step size.
    """

    def __init__(
        self,
        policy: StochasticPolicy,
        critic: QFunctions,
        temperature: Temperature,
        target_entropy: float,
        start: Policy | None,
        kl_coefficient: float,
    ) -> None:
        super().__init__()
        self.policy, self.critic, self.temperature, self.start = policy, critic, temperature, start
        self.target_entropy, self.kl_coefficient = target_entropy, kl_coefficient

    def forward(self, observation: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Loss `[]` and policy loss, entropy and temperature `[3]` at `observation: [B, *obs]`."""
        head = self.policy.head(observation)
        q, log_prob = soft_value(self.policy, self.critic, observation, head, noise)
        alpha = self.temperature().detach()
        policy_loss = (alpha * log_prob - q).mean()
        if self.start is not None:
            divergence = self.policy.head_kl(head, self.start, self.start.head(observation))
            policy_loss = policy_loss + self.kl_coefficient * divergence.mean()
        entropy = -log_prob.detach().mean()
        loss = policy_loss + self.temperature.log_alpha * (entropy - self.target_entropy)
        return loss, torch.stack([policy_loss.detach(), entropy, alpha])


class SAC(Learner[Round]):
    """Soft actor-critic with a learned temperature.

        max_π E_π[Σ_t γᵗ (r_t + α H(π(· | s_t)))],    α such that the entropy H is at its target H̄

    A round is a block of environment steps, which go into a replay buffer, followed by the gradient steps that are due
    for them. A gradient step is one Adam step on `CriticLoss`, one on `PolicyLoss` (policy and temperature), and one
    update of the target networks, Q̄ ← Q̄ + τ (Q − Q̄). The policy that acts does not change within the block.

    Continuous actions use a `SquashedGaussianPolicy`, discrete ones a `CategoricalPolicy`. A given `GaussianPolicy`,
    such as a clone, is kept: Q then sees the action clipped into its box, and the entropy is that of the Gaussian. If
    nearly all actions lie outside the box, Q is flat there and gives no gradient back into it.

    Haarnoja et al. 2018, arXiv:1801.01290; temperature from arXiv:1812.05905, section 5; discrete actions from
    Christodoulou 2019, arXiv:1910.07207.

    Args:
        observation_space: Observation space, Box or Discrete.
        action_space: Action space, bounded Box or Discrete.
        policy: Policy to start from; by default a fresh one with two hidden layers of 256 ReLU units.
        hidden_sizes: Hidden layers of the Q-functions, and of a fresh policy.
        activation: Activation function of the Q-functions, and of a fresh policy.
        encoder: Observation encoder of a fresh policy, `auto`, `image` or `vector`. The Q-functions use the policy's
            kind of encoder.
        learning_rate: Step size of Adam for Q-functions, policy and log α.
        gamma: Discount γ.
        tau: Step size τ of the target networks' moving average.
        batch_size: Transitions per gradient step on each process.
        updates_per_step: Gradient steps per environment step of a process; may be below 1.
        buffer_size: Number of transitions kept on each process; `Replay` documents the memory they take.
        learning_starts: Environment steps before the first gradient step.
        random_steps: Environment steps with uniformly random actions at the start, rounded up to whole rounds; by
            default `learning_starts` for a fresh policy and 0 for one that was trained before.
        warmup_steps: Environment steps after `learning_starts` in which only the Q-functions learn, rounded up to whole
            rounds, if the given policy was trained before.
        temperature: Initial temperature α.
        learn_temperature: Adjust α toward the target entropy; `false` keeps it constant.
        target_entropy: Target entropy H̄ in nats. By default minus the number of action dimensions for continuous
            actions, in units of half the action range, and 0.98 log(number of actions) for discrete ones.
        kl_coefficient: Weight c_KL of the exact divergence from the starting policy, if that was trained before.
        optimization: Clipping, schedule of the learning rate, weight decay and averaging of weights, of the
            Q-functions, and of policy and temperature.
        normalize_observations: Standardize observations by running statistics, unless the given policy has its own.
        compile: Compile both gradients; costs a minute at the start and makes each step faster.

    Raises:
        ConfigError: An argument is out of range, or SAC cannot train this kind of policy.
    """

    replays = True

    def __init__(
        self,
        observation_space: Space[Any],
        action_space: Space[Any],
        policy: Policy | None = None,
        *,
        hidden_sizes: Sequence[int] = (256, 256),
        activation: Activation = "relu",
        encoder: EncoderKind = "auto",
        learning_rate: float = 3e-4,
        gamma: float = 0.99,
        tau: float = 0.005,
        batch_size: int = 256,
        updates_per_step: float = 1.0,
        buffer_size: int = 1_000_000,
        learning_starts: int = 1000,
        random_steps: int | None = None,
        warmup_steps: int = 0,
        temperature: float = 1.0,
        learn_temperature: bool = True,
        target_entropy: float | None = None,
        kl_coefficient: float = 0.0,
        optimization: Optimization = Optimization(),  # noqa: B008 - frozen
        normalize_observations: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__()
        check_at_least("learner", 1, batch_size=batch_size)
        check_at_least("learner", 0, learning_starts=learning_starts, random_steps=random_steps)
        check_at_least("learner", 0, warmup_steps=warmup_steps)
        check_weights("learner", kl_coefficient=kl_coefficient)
        check_between("learner", 0.0, 1.0, gamma=gamma, tau=tau)
        check_positive("learner", learning_rate=learning_rate, updates_per_step=updates_per_step)
        check_positive("learner", temperature=temperature)
        if optimization.accumulate_batches > 1:
            raise ConfigError(
                f"learner.optimization.accumulate_batches is {optimization.accumulate_batches}; SAC takes a step per "
                "minibatch: raise learner.batch_size instead"
            )
        given = policy is not None and not policy.fresh
        cls = CategoricalPolicy if isinstance(action_space, Discrete) else SquashedGaussianPolicy
        if policy is None:
            policy = cls(
                observation_space,
                action_space,
                hidden_sizes=list(hidden_sizes),
                activation=activation,
                encoder=encoder,
            )
        if not isinstance(policy, StochasticPolicy):
            raise ConfigError(
                f"SAC needs a {cls.__name__}, not a {type(policy).__name__}; train that kind of policy first, with "
                f"--model.policy=lit_imitation.{cls.__name__}"
            )
        self.policy = policy
        self.act_dim = 0 if isinstance(action_space, Discrete) else math.prod(action_space.shape or ())
        self.critic = make_q_functions(observation_space, action_space, hidden_sizes, activation, policy.encoder.kind)
        self.target = deepcopy(self.critic).requires_grad_(False)
        self.temperature, self.learn_temperature = Temperature(temperature), learn_temperature
        self.initial_temperature = temperature
        self.target_entropy = default_target_entropy(action_space) if target_entropy is None else target_entropy
        self.start = deepcopy(policy).requires_grad_(False) if given and kl_coefficient else None
        self.kl_coefficient = kl_coefficient
        self.learning_rate, self.gamma, self.tau, self.batch_size = learning_rate, gamma, tau, batch_size
        self.updates_per_step, self.optimization, self.compile_gradient = updates_per_step, optimization, compile
        self.learning_starts, self.warmup_steps = learning_starts, warmup_steps if given else 0
        self.random_steps = (0 if given else learning_starts) if random_steps is None else random_steps
        self.replay = Replay(buffer_size)
        self.env_steps = 0
        """Number of transitions of all processes so far."""
        size = policy.encoder.vector_size if normalize_observations and not policy.encoder.fitted else 0
        self.moments = RunningMoments(size) if size else None
        if policy.encoder.fitted:  # the policy was trained with these; updates would change the policy
            for network in (self.critic, self.target):
                network.encoder.copy_statistics(policy.encoder)

    @property
    def acts_at_random(self) -> bool:
        """Whether fewer than `random_steps` environment steps were taken."""
        return self.env_steps < self.random_steps

    def optimizers(self) -> list[Optimizer]:
        """Create one Adam for the Q-functions and one for policy and temperature."""
        if not self.learn_temperature:  # a constant α is today's argument, not the value in a checkpoint
            self.temperature.log_alpha.data.fill_(math.log(self.initial_temperature))
        policy, critic, temperature = self.policy, self.critic, self.temperature
        assert isinstance(policy, StochasticPolicy)
        common = (self.learning_rate, 1e-8, self.optimization)
        critic_loss = CriticLoss(policy, critic, self.target, temperature, self.gamma)
        self.critic_descent = Descent(
            critic_loss, critic.parameters(), *common, traced=is_traceable(critic_loss), compiled=self.compile_gradient
        )
        policy_loss = PolicyLoss(policy, critic, temperature, self.target_entropy, self.start, self.kl_coefficient)
        parameters = [*policy.parameters(), *(temperature.parameters() if self.learn_temperature else ())]
        self.policy_descent = Descent(
            policy_loss, parameters, *common, traced=is_traceable(policy_loss), compiled=self.compile_gradient
        )
        self.target_vector = flatten_parameters(list(self.target.parameters()))
        return [self.critic_descent.optimizer, self.policy_descent.optimizer]

    @property
    def descents(self) -> Sequence[Descent]:
        """The `Descent` of the Q-functions and that of policy and temperature, once they exist."""
        return [self.critic_descent, self.policy_descent] if hasattr(self, "policy_descent") else []

    def explorer(self) -> Explorer:
        """An actor that takes uniformly random actions for `random_steps`, and the policy's afterwards."""
        return _RandomStartExplorer(self)

    @without_autocast
    def update(self, experience: Round, progress: float) -> dict[str, Tensor]:
        """Store one round `[time, env]`, and take the gradient steps that are due."""
        rollout, valid, _ = experience
        self.replay.add(rollout, valid)
        if self.moments is not None:
            encoders = (self.policy.encoder, self.critic.encoder, self.target.encoder)
            update_statistics(self.moments, rollout.observation, valid, *encoders)
        before = self.env_steps
        self.env_steps += int(all_reduce(valid.sum()))  # a global count: all processes take the same number of steps
        steps = self._count_due_steps(self.env_steps) - self._count_due_steps(before)
        warming_up = bool(self.warmup_steps) and self.env_steps <= self.learning_starts + self.warmup_steps
        critic_sums = torch.zeros(len(CRITIC_STATISTICS), device=valid.device)
        policy_sums = torch.zeros(len(POLICY_STATISTICS), device=valid.device)
        stream = rank_generator(valid.device)
        minibatches = self._minibatches(steps, stream)
        noise = torch.randn(steps, 2, self.batch_size, self.act_dim, device=valid.device, generator=stream)
        rates = self.critic_descent.rates(progress, self.gradient_steps, steps)
        for batch, (next_noise, own_noise), rate in zip(minibatches, noise, rates, strict=True):
            self.critic_descent.set_rate(rate)
            self.policy_descent.set_rate(rate)
            critic_sums += self.critic_descent.step(*batch, next_noise)
            if not warming_up:
                policy_sums += self.policy_descent.step(batch.observation, own_noise)
            self.target_vector.lerp_(self.critic_descent.vector.detach(), self.tau)
        self.rounds += 1
        self.gradient_steps += steps
        if not steps:
            return {}
        logged = dict(zip(CRITIC_STATISTICS, critic_sums / steps, strict=True))
        if not warming_up:
            logged |= dict(zip(POLICY_STATISTICS[1:], policy_sums[1:] / steps, strict=True))
        return logged

    def state(self) -> dict[str, Any]:
        """The replay buffers of all processes, gathered on the first, and the number of environment steps."""
        return {"env_steps": self.env_steps, "replay": gather_to_first(self.replay.state())}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned.

        Raises:
            ConfigError: The checkpoint was written by another number of processes.
        """
        replay, world = state["replay"], world_size()
        if len(replay) != world:
            raise ConfigError(
                f"the checkpoint holds the replay buffers of {len(replay)} processes; resume with {len(replay)}, not "
                f"{world}"
            )
        self.env_steps = state["env_steps"]
        self.replay.load_state(replay[rank()], self.policy.device)

    def random_action(self, count: int) -> Tensor:
        """Sample actions `[count, *act]` uniformly from the action space."""
        policy, device = self.policy, self.policy.device
        if isinstance(policy, CategoricalPolicy):
            space = policy.action_space
            assert isinstance(space, Discrete)
            return torch.randint(int(space.n), (count,), device=device) + policy.start
        assert isinstance(policy, SquashedGaussianPolicy | GaussianPolicy)
        return policy.to_action(2.0 * torch.rand(count, policy.act_dim, device=device) - 1.0)

    def _count_due_steps(self, env_steps: int) -> int:
        """Total of gradient steps due after `env_steps` environment steps of all processes."""
        return int(self.updates_per_step * max(0, env_steps - self.learning_starts) / world_size())

    def _minibatches(self, steps: int, generator: torch.Generator | None) -> Iterator[ReplayBatch]:
        """One minibatch per gradient step: replayed transitions, half replaced by `demonstrations` if there are any."""
        if self.demonstrations is None:
            indices = self.replay.draw(steps, self.batch_size, generator=generator)
            return (self._relabel_rewards(self.replay.rows(index)) for index in indices)
        expert, weight, half = self.demonstrations, self.demonstrations.weight, self.batch_size // 2
        expert_batch = ReplayBatch.from_transitions(expert)
        own = self.replay.draw(steps, self.batch_size - half, generator=generator)
        expert_rows = sample_rows(len(expert), steps * half, own.device, weight, generator).view(steps, half)
        return (
            self._relabel_rewards(self.replay.rows(own_index)).concatenate(expert_batch.rows(expert_index))
            for own_index, expert_index in zip(own, expert_rows, strict=True)
        )

    def _relabel_rewards(self, batch: ReplayBatch) -> ReplayBatch:
        """Replace the rewards of a batch by those of `reward`, if that is set."""
        if self.reward is None:
            return batch
        unknown = torch.zeros_like(batch.terminated)
        with torch.no_grad():
            transitions = Transitions(**batch._asdict(), truncated=unknown, batch_size=unknown.shape)
            return batch._replace(reward=self.reward(transitions))


class _RandomStartExplorer(Explorer):
    """Takes uniformly random actions for the learner's `random_steps`, and the policy's afterwards."""

    def __init__(self, sac: SAC) -> None:
        super().__init__(sac.policy)
        self.sac = sac

    def act(self, observation: NDArray[Any], /) -> NDArray[Any]:
        """Choose actions `[B, *act]` for observations `[B, *obs]`."""
        if not self.sac.acts_at_random:
            return super().act(observation)
        action = self.sac.random_action(len(observation))
        self.drawn.append(action)
        played: NDArray[Any] = action.cpu().numpy()
        return played
