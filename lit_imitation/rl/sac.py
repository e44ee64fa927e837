"""Soft actor-critic (Haarnoja et al. 2018, "Soft Actor-Critic Algorithms and Applications"), learning by replay."""

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
from lit_imitation.optim.descent import Descent, flatten_parameters
from lit_imitation.optim.optimization import Optimization
from lit_imitation.optim.tracing import is_traceable
from lit_imitation.policies import CategoricalPolicy, GaussianPolicy, Policy, QFunctions, SquashedGaussianPolicy
from lit_imitation.policies.base import Explorer
from lit_imitation.rl.learner import Learner
from lit_imitation.rl.normalization import RunningMoments, observe
from lit_imitation.rl.replay import Replay, Replayed
from lit_imitation.rollout import Round
from lit_imitation.transitions import Transitions
from lit_imitation.utils.distributed import all_reduce, gather_to_first, rank, world_size
from lit_imitation.utils.precision import without_autocast
from lit_imitation.utils.sampling import rank_generator, sample_rows

StochasticPolicy: TypeAlias = SquashedGaussianPolicy | GaussianPolicy | CategoricalPolicy
CRITIC_STATISTICS = ("loss", "q", "critic_grad_norm")
POLICY_STATISTICS = ("objective", "policy_loss", "entropy", "temperature", "policy_grad_norm")


class Temperature(nn.Module):
    """α = exp(log α), which stays positive whatever the step."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.log_alpha = nn.Parameter(torch.tensor(math.log(value)))

    def forward(self) -> Tensor:
        """`[]`."""
        return self.log_alpha.exp()


def soft_value(
    policy: StochasticPolicy,
    critic: QFunctions,
    observation: Tensor,
    head: Tensor,
    noise: Tensor,
) -> tuple[Tensor, Tensor]:
    """E_{a~π(·|s)}[min_i Q_i(s, a)] and E_{a~π(·|s)}[log π(a | s)], `[B]` each, of which both losses are made.

    By one draw for continuous actions; exactly, by summing over all actions, for discrete ones (Christodoulou 2019,
    "Soft Actor-Critic for Discrete Action Settings", equations 10 to 12). Densities of continuous actions are taken in
    units of half the action range, so that entropies, and the target of them, do not depend on the environment's units.

    Args:
        policy: π.
        critic: Q.
        observation: `[B, *obs]`.
        head: the policy's, `[B, outputs]`.
        noise: `[B, act_dim]` of N(0, 1), which makes the draw.
    """
    if isinstance(policy, CategoricalPolicy):
        log_prob = head.log_softmax(-1)
        prob = log_prob.exp()
        return (prob * critic(observation).amin(0)).sum(-1), (prob * log_prob).sum(-1)
    action, log_density = policy.rsample_with_log_prob(head, noise)
    q = critic(observation, policy.from_action(policy.clip(action))).amin(0).squeeze(-1)
    return q, log_density + policy.scale.log().sum()


class CriticLoss(nn.Module):
    """½ Σ_i E[(Q_i(s, a) − y)²], y = r + γ (1 − terminated) (min_i Q̄_i(s', a') − α log π(a' | s')), a' ~ π(· | s').

    A truncated transition has the future that was cut off. In expectation over a' where actions are discrete.
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
        """The loss `[]` and the mean Q `[1]` of transitions `[B]`; `noise: [B, act_dim]` makes a'."""
        with torch.no_grad():
            head = self.policy.head(next_observation)
            q, log_prob = soft_value(self.policy, self.target, next_observation, head, noise)
            target = reward + self.gamma * ~terminated * (q - self.temperature() * log_prob)
        if isinstance(self.policy, CategoricalPolicy):
            index = (action - self.policy.start)[None, :, None].expand(self.critic.network.members, -1, -1)
            value = self.critic(observation).gather(-1, index).squeeze(-1)
        else:
            value = self.critic(observation, self.policy.from_action(self.policy.clip(action))).squeeze(-1)
        return 0.5 * (value - target).square().mean(-1).sum(), value.detach().mean()[None]


class PolicyLoss(nn.Module):
    """E_s[α log π(a | s) − min_i Q_i(s, a)] + c_KL E_s[KL(π ‖ π_start)] + log α · (H(π) − H̄), a ~ π(· | s).

    α counts as a constant in the first part and H(π) = −E[log π] in the last, whose gradient in log α is H(π) − H̄: too
    much entropy lowers the temperature. (Haarnoja's equation 18 has α for log α there: the same sign, another rate.)
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
        """The loss `[]` and policy loss, entropy and temperature `[3]` at `observation: [B, *obs]`."""
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
    """Maximize E_π[Σ_t γᵗ (r_t + α H(π(· | s_t)))], with α such that the entropy H is at its target H̄.

    A round is a block of environment steps, which go into a replay buffer, and the gradient steps that are due for
    them. A gradient step is one of Adam on `CriticLoss`, one on `PolicyLoss` (policy and temperature), and one of the
    target networks' Polyak average, Q̄ ← Q̄ + τ (Q − Q̄). The policy that acts is the one at the block's beginning.

    Continuous actions take a `SquashedGaussianPolicy`, discrete ones a `CategoricalPolicy`. A `GaussianPolicy` that was
    given, such as a clone, may stay one: Q is then of the action as it is clipped into its box, the entropy of the
    Gaussian as it is; where all of it lies outside the box, Q says nothing of the way back.

    Args:
        observation_space: Box or Discrete.
        action_space: bounded Box or Discrete.
        policy: to start from; by default a fresh one of 2×256 relu.
        hidden_sizes: of the Q-functions, and of a fresh policy.
        activation: likewise.
        encoder: how a fresh policy reads observations, `auto`, `image` or `vector`; the Q-functions read them as the
            policy does.
        learning_rate: of Adam, for Q-functions, policy and log α.
        gamma: discount.
        tau: τ.
        batch_size: transitions of a gradient step, on each process.
        updates_per_step: gradient steps for each environment step of a process; a fraction is one too.
        buffer_size: transitions kept, on each process; see `Replay` for their memory.
        learning_starts: environment steps before the first gradient step.
        random_steps: environment steps at the start whose actions are uniformly random, rounded up to whole rounds;
            by default `learning_starts` for a fresh policy and none for one that was trained before.
        warmup_steps: environment steps after `learning_starts`, rounded up to whole rounds, in which the Q-functions
            alone learn, for a policy that was trained before.
        temperature: α at the start.
        learn_temperature: adjust α; else it stays.
        target_entropy: H̄ in nats; by default −(dimensions of the action), in units of half the action range, for
            continuous actions, and 0.98 log(number of actions) for discrete ones.
        kl_coefficient: c_KL, for a policy that was trained before. The divergence is exact.
        max_grad_norm: of the Q-functions' gradient, and of that of policy and temperature; infinity for no limit.
        normalize_observations: by running statistics, unless the policy that was given has its own.
        compile: compile both gradients: a minute at the start, and then less time a step.
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
        max_grad_norm: float = float("inf"),
        normalize_observations: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("learning_starts", learning_starts, 0),
            ("random_steps", random_steps or 0, 0),
            ("warmup_steps", warmup_steps, 0),
        ):
            if value < least:
                raise ConfigError(f"learner.{name} is {value}; it must be at least {least}")
        if not 0.0 <= kl_coefficient < math.inf:
            raise ConfigError(f"learner.kl_coefficient is {kl_coefficient}; it must be 0 or more, and finite")
        for name, rate in (("gamma", gamma), ("tau", tau)):
            if not 0.0 <= rate <= 1.0:
                raise ConfigError(f"learner.{name} is {rate}; it must lie in [0, 1]")
        for name, positive in (
            ("learning_rate", learning_rate),
            ("updates_per_step", updates_per_step),
            ("temperature", temperature),
            ("max_grad_norm", max_grad_norm),
        ):
            if not positive > 0.0:
                raise ConfigError(f"learner.{name} is {positive}; it must be above 0")
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
                f"SAC improves a {cls.__name__}, not a {type(policy).__name__}; train that one first, by "
                f"--model.policy=lit_imitation.{cls.__name__}"
            )
        self.policy = policy
        if isinstance(action_space, Discrete):
            self.act_dim, outputs, usual = 0, int(action_space.n), 0.98 * math.log(int(action_space.n))
        else:
            self.act_dim, outputs = math.prod(action_space.shape or ()), 1
            usual = -float(self.act_dim)
        self.critic = QFunctions(
            observation_space, self.act_dim, outputs, hidden_sizes, activation, encoder=policy.encoder.kind
        )
        self.target = deepcopy(self.critic).requires_grad_(False)
        self.temperature, self.learn_temperature = Temperature(temperature), learn_temperature
        self.initial_temperature = temperature
        self.target_entropy = usual if target_entropy is None else target_entropy
        self.start = deepcopy(policy).requires_grad_(False) if given and kl_coefficient else None
        self.kl_coefficient = kl_coefficient
        self.learning_rate, self.gamma, self.tau, self.batch_size = learning_rate, gamma, tau, batch_size
        self.updates_per_step, self.max_grad_norm, self.compile_gradient = updates_per_step, max_grad_norm, compile
        self.learning_starts, self.warmup_steps = learning_starts, warmup_steps if given else 0
        self.random_steps = (0 if given else learning_starts) if random_steps is None else random_steps
        self.replay = Replay(buffer_size)
        self.env_steps = 0
        """Transitions of all processes so far."""
        standardize = policy.encoder.standardize
        fitted = standardize is not None and standardize.fitted
        moves = standardize is not None and normalize_observations and not fitted
        self.moments = RunningMoments(policy.encoder.out_features) if moves else None
        if fitted and standardize is not None:  # the policy was trained with these: to move them would change it
            for its in (self.critic.encoder.standardize, self.target.encoder.standardize):
                assert its is not None
                its.load_state_dict(standardize.state_dict())

    @property
    def acts_at_random(self) -> bool:
        """While `random_steps` last."""
        return self.env_steps < self.random_steps

    def optimizers(self) -> list[Optimizer]:
        """One Adam for the Q-functions, one for policy and temperature."""
        if not self.learn_temperature:  # what a checkpoint says of it is no more than what was set then
            self.temperature.log_alpha.data.fill_(math.log(self.initial_temperature))
        policy, critic, temperature = self.policy, self.critic, self.temperature
        assert isinstance(policy, StochasticPolicy)
        clipping = Optimization(max_grad_norm=None if math.isinf(self.max_grad_norm) else self.max_grad_norm)
        common = (self.learning_rate, 1e-8, clipping)
        critic_loss = CriticLoss(policy, critic, self.target, temperature, self.gamma)
        self.critic_descent = Descent(
            critic_loss, critic.parameters(), *common, traced=is_traceable(critic_loss), compiled=self.compile_gradient
        )
        policy_loss = PolicyLoss(policy, critic, temperature, self.target_entropy, self.start, self.kl_coefficient)
        learning = [*policy.parameters(), *(temperature.parameters() if self.learn_temperature else ())]
        self.policy_descent = Descent(
            policy_loss, learning, *common, traced=is_traceable(policy_loss), compiled=self.compile_gradient
        )
        self.target_vector = flatten_parameters(list(self.target.parameters()))
        return [self.critic_descent.optimizer, self.policy_descent.optimizer]

    @property
    def descents(self) -> Sequence[Descent]:
        """Those of the critics and of the policy."""
        return [self.critic_descent, self.policy_descent] if hasattr(self, "policy_descent") else []

    def explorer(self) -> Explorer:
        """The policy's, behind the random steps."""
        return _RandomFirst(self)

    @without_autocast
    def update(self, experience: Round, progress: float) -> dict[str, Tensor]:
        """Take in one round `[time, env]`, and do the gradient steps that are due."""
        rollout, valid, _ = experience
        self.replay.add(rollout, valid)
        if self.moments is not None:
            observe(
                self.moments, rollout.observation, valid, self.policy.encoder, self.critic.encoder, self.target.encoder
            )
        before = self.env_steps
        self.env_steps += int(all_reduce(valid.sum()))  # every process takes as many gradient steps
        steps = self._due(self.env_steps) - self._due(before)
        warm = self.env_steps <= self.learning_starts + self.warmup_steps
        critic_sums = torch.zeros(len(CRITIC_STATISTICS), device=valid.device)
        policy_sums = torch.zeros(len(POLICY_STATISTICS), device=valid.device)
        stream = rank_generator(valid.device)
        minibatches = self._minibatches(steps, stream)
        noise = torch.randn(steps, 2, self.batch_size, self.act_dim, device=valid.device, generator=stream)
        for batch, (next_noise, own_noise) in zip(minibatches, noise, strict=True):
            critic_sums += self.critic_descent.step(*batch, next_noise)
            if not (warm and self.warmup_steps):
                policy_sums += self.policy_descent.step(batch.observation, own_noise)
            self.target_vector.lerp_(self.critic_descent.vector.detach(), self.tau)
        self.rounds += 1
        self.gradient_steps += steps
        if not steps:
            return {}
        logged = dict(zip(CRITIC_STATISTICS, critic_sums / steps, strict=True))
        if not (warm and self.warmup_steps):
            logged |= dict(zip(POLICY_STATISTICS[1:], policy_sums[1:] / steps, strict=True))
        return logged

    def state(self) -> dict[str, Any]:
        """The replay buffer of every process, on the first of them, and the count of steps."""
        return {"env_steps": self.env_steps, "replay": gather_to_first(self.replay.state())}

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse.

        Raises:
            ConfigError: the checkpoint is that of another number of processes.
        """
        replay, world = state["replay"], world_size()
        if len(replay) != world:
            raise ConfigError(
                f"the checkpoint holds the replay buffers of {len(replay)} processes; go on with as many, not {world}"
            )
        self.env_steps = state["env_steps"]
        self.replay.load_state(replay[rank()], self.policy.device)

    def random_action(self, count: int) -> Tensor:
        """`[count, *act]`, uniform over the action space."""
        policy, device = self.policy, self.policy.device
        if isinstance(policy, CategoricalPolicy):
            space = policy.action_space
            assert isinstance(space, Discrete)
            return torch.randint(int(space.n), (count,), device=device) + policy.start
        assert isinstance(policy, SquashedGaussianPolicy | GaussianPolicy)
        return policy.to_action(2.0 * torch.rand(count, policy.act_dim, device=device) - 1.0)

    def _due(self, env_steps: int) -> int:
        """Gradient steps that are due after so many environment steps of all processes."""
        return int(self.updates_per_step * max(0, env_steps - self.learning_starts) / world_size())

    def _minibatches(self, steps: int, generator: torch.Generator | None) -> Iterator[Replayed]:
        """One minibatch per gradient step: replayed transitions, and as many of `demonstrations` if there are any."""
        if self.demonstrations is None:
            indices = self.replay.draw(steps, self.batch_size, generator=generator)
            return (self._rewarded(self.replay.rows(index)) for index in indices)
        expert, weight, half = self.demonstrations, self.demonstrations.weight, self.batch_size // 2
        demonstrated = Replayed.from_transitions(expert)
        own = self.replay.draw(steps, self.batch_size - half, generator=generator)
        its = sample_rows(len(expert), steps * half, own.device, weight, generator).view(steps, half)
        return (
            self._rewarded(self.replay.rows(mine)).concatenate(demonstrated.rows(index))
            for mine, index in zip(own, its, strict=True)
        )

    def _rewarded(self, batch: Replayed) -> Replayed:
        """The same with the rewards that `reward` gives now, if there is one."""
        if self.reward is None:
            return batch
        unknown = torch.zeros_like(batch.terminated)
        with torch.no_grad():
            transitions = Transitions(**batch._asdict(), truncated=unknown, batch_size=unknown.shape)
            return batch._replace(reward=self.reward(transitions))


class _RandomFirst(Explorer):
    """Uniformly random actions while `random_steps` last, and then the policy's."""

    def __init__(self, sac: SAC) -> None:
        super().__init__(sac.policy)
        self.sac = sac

    def act(self, observation: NDArray[Any], /) -> NDArray[Any]:
        """Draw actions `[B, *act]`, uniformly while the random steps last."""
        if not self.sac.acts_at_random:
            return super().act(observation)
        action = self.sac.random_action(len(observation))
        self.drawn.append(action)
        played: NDArray[Any] = action.cpu().numpy()
        return played
