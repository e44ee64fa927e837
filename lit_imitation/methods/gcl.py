"""Guided cost learning (Finn, Levine & Abbeel 2016): maximum-entropy IRL from samples of a policy that learns too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from gymnasium import Space
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.optim import Optimizer

from lit_imitation.envs import episode_limit
from lit_imitation.errors import ConfigError, TrainingError
from lit_imitation.methods.rounds import RoundMethod
from lit_imitation.optim.descent import Descent
from lit_imitation.optim.optimization import Optimization
from lit_imitation.policies import GaussianPolicy, Policy, PolicyFactory
from lit_imitation.policies.base import Explorer
from lit_imitation.policies.checkpoints import build, check_weights, default_policy_class, describe
from lit_imitation.rewards import GuidedCost, RewardFactory, RewardModel
from lit_imitation.rewards.guided_cost import STATISTICS, effective_sample_size
from lit_imitation.rl import LearnerFactory
from lit_imitation.rollout import Round
from lit_imitation.transitions import Transitions
from lit_imitation.utils.distributed import all_reduce
from lit_imitation.utils.precision import without_autocast
from lit_imitation.utils.sampling import sample_rank_rows, sample_rows
from lit_imitation.utils.seeding import RandomStream, derive_seed

CLONE_STEPS, CLONE_BATCH, CLONE_RATE, CLONE_STD = 1000, 256, 1e-3, 0.2
"""Of the density of the demonstrations: its fit, and the least σ, in units of half the action range. An expert without
noise has no density, and with too high a one its own trajectories would never weigh anything."""


class Paths(NamedTuple):
    """N whole trajectories, the shorter ones filled up with zeros."""

    observation: Tensor
    """`[N, T, *obs]`."""
    action: Tensor
    """`[N, T, *act]`, as drawn."""
    alive: Tensor
    """`[N, T]` bool: the steps that there are."""

    @classmethod
    def gathered(cls, transitions: Transitions, rows: Sequence[Tensor]) -> Paths:
        """Those whose steps are these rows of a flat record, one tensor of indices a trajectory."""
        lengths = torch.tensor([len(one) for one in rows])
        index = pad_sequence(list(rows), batch_first=True)
        alive = torch.arange(index.shape[1]) < lengths[:, None]
        index, alive = index.to(transitions.device), alive.to(transitions.device)
        return cls(transitions.observation[index], transitions.action[index], alive)

    @classmethod
    def of(cls, transitions: Transitions) -> Paths:
        """All of a flat record."""
        rows = torch.split(torch.arange(len(transitions)), transitions.episode_lengths().tolist())
        return cls.gathered(transitions, rows)

    @classmethod
    def within(cls, batch: Round, fresh: Tensor) -> Paths | None:
        """Those that begin and end in a round `[time, env]`; None if there is none.

        Args:
            batch: the round.
            fresh: `[env]` bool: whether an episode begins with the round.
        """
        done, valid = (batch.rollout.done & batch.valid).cpu(), batch.valid.cpu()
        time, envs = done.shape
        rows = []
        for env in range(envs):
            begin = 0 if fresh[env] else None
            for end in done[:, env].nonzero().flatten().tolist():
                if begin is not None:
                    steps = torch.arange(begin, end + 1)
                    rows.append(steps[valid[begin : end + 1, env]] * envs + env)
                begin = end + 1
        return cls.gathered(batch.rollout.reshape(time * envs), rows) if rows else None

    @classmethod
    def concatenate(cls, paths: Sequence[Paths]) -> Paths:
        """One after the other."""
        longest = max(one.alive.shape[1] for one in paths)

        def filled(column: Tensor) -> Tensor:
            return F.pad(column, (0, 0) * (column.ndim - 2) + (0, longest - column.shape[1]))

        return cls(*(torch.cat([filled(column) for column in columns]) for columns in zip(*paths, strict=True)))

    def rows(self, index: Tensor) -> Paths:
        """Those at `index: [n]`."""
        return Paths(*(column.index_select(0, index) for column in self))

    @torch.no_grad()
    def log_prob(self, policy: Policy) -> Tensor:
        """Σ_t log π(a_t | s_t) `[N]`, of the actions as they were played."""
        of_step = policy.executed_log_prob(policy.head(self.observation.flatten(0, 1)), self.action.flatten(0, 1))
        return torch.where(self.alive, of_step.view_as(self.alive), 0.0).sum(1)


def log_mixture(log_prob: Tensor, counts: Tensor) -> Tensor:
    """Log q(τ_j) `[M]`, q = Σ_κ n_κ q_κ / Σ_κ n_κ.

    Args:
        log_prob: log q_κ(τ_j) `[M, k]`.
        counts: n_κ `[k]`: the samples that came from each.
    """
    return (log_prob + (counts / counts.sum()).log()).logsumexp(1)


class GCL(RoundMethod):
    """Maximum likelihood of the demonstrations D under P(τ) = p(τ) exp R_θ(τ) / Z, with Z from samples, round by round:

        L(θ) = −(1/N) Σ_{τ_i ∈ D} R_θ(τ_i) + log (1/M) Σ_j z_j exp R_θ(τ_j),      z_j = [Σ_κ (n_κ / M) q_κ(τ_j)]^(−1)

    The sampler is the learner's policy, which improves under r_θ(s, a) − log π(a | s) (SAC has an entropy of its
    own), towards P(τ) itself, from which Z would be had without variance. q_κ(τ) = Π_t π_κ(a_t | s_t) is the
    probability of what was played under the policy of a round (`Policy.executed_log_prob`, in units of half the action
    range); what chance contributes is the same in numerator and denominator. Weighed are the episodes of this round and
    of the `replay_rounds` before it, and with them, as one half of each step's samples, the demonstrations: they come
    from a sampler nobody knows, for whose density a Gaussian or categorical clone stands, fitted once before the
    training. With as many samples of each sampler, n_κ / M is the paper's 1 / k.

    What weights of whole trajectories need:

    - Whole trajectories. Episodes that begin or end outside a round are left out of the samples (not of the learner's
      update), so `data.steps_per_round` should be a multiple of the episodes' length. Where lengths vary, those that
      fit into a round are on average the shorter ones: take rounds several times as long.
    - Weights that are not all in one place: see `GuidedCost` for how they are tempered. `effective_sample_size` is that
      of all samples before tempering, `weight_exponent` the β that it took.
    - With starts or dynamics that are random, P leans towards luck (Ziebart et al. 2008), as in `Planning.trajectory`.

    The reward is in the checkpoint: `load_reward(DIR)`, or `reward: DIR` of a PPO or SAC recipe.

    Args:
        reward: builds the reward from the two spaces.
        learner: builds the learner; by default `PPO`. Where its actions begin as uniform draws (SAC), the reward
            begins to learn after them.
        policy: builds the policy; by default the learner's own choice.
        start: directory or checkpoint of a policy to start from, such as a clone.
        reward_learning_rate: Learning rate of the reward's Adam.
        reward_steps: Gradient steps of the reward per round.
        reward_batch_size: Demonstrated trajectories, and as many samples, of each of these steps on each process.
        replay_rounds: Earlier rounds whose samples are drawn along with those of the current one.
        reward_optimization: Clipping, weight decay and averaging of the reward.

    Raises:
        ConfigError: an argument out of its range, demonstrations without whole trajectories, or all of them longer than
            a round.
        TrainingError: no episode began and ended within one of the first epoch's rounds.
    """

    needs_demonstrations = True
    learns_reward = True
    finite = ("reward_loss", "loss")

    def __init__(
        self,
        reward: RewardFactory = GuidedCost,
        learner: LearnerFactory | None = None,
        policy: PolicyFactory | None = None,
        start: str | None = None,
        reward_learning_rate: float = 3e-4,
        reward_steps: int = 10,
        reward_batch_size: int = 32,
        replay_rounds: int = 4,
        reward_optimization: Optimization | None = None,
    ) -> None:
        super().__init__(learner, policy, start)
        for name, value, least in (
            ("reward_steps", reward_steps, 0),
            ("reward_batch_size", reward_batch_size, 2),
            ("replay_rounds", replay_rounds, 0),
        ):
            if value < least:
                raise ConfigError(f"model.{name} is {value}; it must be at least {least}")
        self._reward_factory, self.reward_learning_rate = reward, reward_learning_rate
        self.reward_steps, self.reward_batch_size, self.replay_rounds = reward_steps, reward_batch_size, replay_rounds
        self.reward_optimization = reward_optimization or Optimization()
        self.paths: list[Paths] = []
        """The demonstrations, and the samples, a round each."""
        self.samplers: list[Policy] = []
        """The density of the demonstrations, and the policy that played each of these rounds."""
        self.log_prob: list[list[Tensor]] = []
        """Log q_κ(τ) `[N]` of each of `paths` (rows) by each of `samplers` (columns)."""
        self.weight: Tensor | None = None
        """Of the demonstrated trajectories, `[N]` of mean 1; None where all count the same."""
        self._fresh: Tensor | None = None

    @property
    def guided_cost(self) -> GuidedCost:
        """What the learner is rewarded by."""
        assert isinstance(self.reward, GuidedCost)
        return self.reward

    @without_autocast
    def training_step(self, batch: Round, batch_idx: int) -> None:
        """One round `[time, env]`."""
        self.share_normalizer()
        self.remember(batch)
        metrics = self.update_reward()
        batch = self.relabel_rewards(batch)
        metrics |= self.update_learner(batch)
        self.log_round(batch, metrics)

    def relabel_rewards(self, batch: Round) -> Round:
        """Pay r_θ(s, a) − log π(a | s); SAC has an entropy of its own."""
        batch = super().relabel_rewards(batch)
        if not self.learner.replays:
            rollout = batch.rollout
            with torch.no_grad():
                head = self.policy.head(rollout.observation.flatten(0, 1))
                log_prob = self.policy.executed_log_prob(head, rollout.action.flatten(0, 1))
            rollout.reward = rollout.reward - log_prob.view_as(rollout.reward)
        return batch

    def build_reward(self, observation_space: Space[Any], action_space: Space[Any]) -> RewardModel:
        """The reward model."""
        return self._reward_factory(observation_space, action_space)

    def setup(self, stage: str) -> None:
        """Check what it takes to train."""
        super().setup(stage)
        if stage != "fit":
            return
        data = self.demonstrations
        if data.subsample > 1:
            raise ConfigError(
                f"GCL weighs whole trajectories; data.subsample {data.subsample} leaves holes in them: take 1"
            )
        lengths = data.train.episode_lengths()
        shortest, longest = int(lengths.min()), int(lengths.max())
        if shortest > data.steps_per_round:
            raise ConfigError(
                f"GCL learns from episodes that begin and end in a round; data.steps_per_round is "
                f"{data.steps_per_round}, and the shortest demonstration takes {shortest} steps: take a multiple of it"
            )
        if longest > data.steps_per_round:
            rank_zero_warn(
                f"GCL learns from episodes that begin and end in a round; data.steps_per_round is "
                f"{data.steps_per_round}, and the longest demonstration takes {longest} steps: episodes as long are "
                f"never among the samples. Take a multiple of {longest}"
            )

    def configure_optimizers(self) -> list[Optimizer]:
        """The learner's, and the reward's Adam."""
        optimizers = super().configure_optimizers()
        data = self.demonstrations
        self.paths, self.samplers = [Paths.of(data.train)], []
        if data.train.weight is not None:  # that of a trajectory is the mean of its steps'
            lengths = data.train.episode_lengths()
            sums = torch.zeros(len(lengths), device=self.device)
            weight = sums.index_add(0, data.train.episode_index(), data.train.weight) / lengths
            self.weight = weight / weight.mean()
        if (mine := self.resumed()) is None:
            self.samplers = [self._clone(data.train)]
        else:
            for description, state in mine[0]:
                sampler = build(description, Policy, named=[type(self.policy)])  # type: ignore[type-abstract]
                check_weights(state, sampler, "the checkpoint's sampler")
                sampler.load_state_dict(state)
                self.samplers.append(sampler.to(self.device).requires_grad_(False).eval())
            self.paths += [Paths(*(column.to(self.device) for column in one)) for one in mine[1]]
        self.log_prob = [[one.log_prob(sampler) for sampler in self.samplers] for one in self.paths]
        self.reward_descent = Descent(
            self.guided_cost,
            self.guided_cost.parameters(),
            self.reward_learning_rate,
            optimization=self.reward_optimization,
        )
        return [*optimizers, self.reward_descent.optimizer]

    def _clone(self, demonstrations: Transitions) -> Policy:
        """The density of the demonstrations: the maximum-likelihood policy, the same on every process."""
        seed = derive_seed(self.datamodule.seed, "density of the demonstrations")
        with RandomStream(seed), torch.enable_grad():
            cls = default_policy_class(self.policy.action_space)
            clone = cls(
                self.policy.observation_space,
                self.policy.action_space,
                hidden_sizes=[64, 64],
                encoder=self.policy.encoder.kind,
            )
            clone = clone.to(self.device)
            clone.fit_normalizer(demonstrations.observation, demonstrations.action)
            optimizer = torch.optim.Adam(clone.parameters(), CLONE_RATE, fused=True)
            for _ in range(CLONE_STEPS):
                count, device = len(demonstrations), demonstrations.observation.device
                rows = sample_rows(count, CLONE_BATCH, device, demonstrations.weight)
                batch = demonstrations[rows]
                optimizer.zero_grad()
                clone.mean_loss(batch.observation, batch.action).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        if isinstance(clone, GaussianPolicy) and clone.log_std is not None:
            clone.log_std.data.clamp_(min=math.log(CLONE_STD))
        return clone.requires_grad_(False).eval()

    def explorer(self) -> Explorer:
        """What acts in the rounds of an epoch, which starts with a reset of the environments."""
        self._fresh = None
        return super().explorer()

    def remember(self, batch: Round) -> None:
        """Take in the whole trajectories of a round with the policy that played them, and forget the oldest's."""
        fresh = torch.ones(batch.valid.shape[1], dtype=torch.bool) if self._fresh is None else self._fresh
        paths = None if self.learner.acts_at_random else Paths.within(batch, fresh)
        # Where the last row only started an episode anew, that one begins with the next round too.
        self._fresh = (batch.rollout.done[-1] | ~batch.valid[-1]).cpu()
        if paths is None:
            return
        sampler = deepcopy(self.policy).requires_grad_(False).eval()
        for row, one in zip(self.log_prob, self.paths, strict=True):
            row.append(one.log_prob(sampler))
        self.paths.append(paths)
        self.samplers.append(sampler)
        self.log_prob.append([paths.log_prob(one) for one in self.samplers])
        if len(self.paths) > 2 + self.replay_rounds:
            del self.paths[1], self.samplers[1], self.log_prob[1]
            for row in self.log_prob:
                del row[1]

    def update_reward(self) -> dict[str, Tensor]:
        """`reward_steps` steps, each on `reward_batch_size` demonstrations and as many samples."""
        lacking = float(all_reduce(torch.tensor(float(len(self.paths) < 2), device=self.device)))
        if lacking:
            if self.trainer.is_last_batch and not self.learner.acts_at_random:
                raise TrainingError(
                    "no episode began and ended within a round, and GCL weighs whole ones; set data.steps_per_round to "
                    f"a multiple of the episodes' length{self._limit()}"
                )
            return {}
        size, expert = self.reward_batch_size, self.paths[0]
        samples = Paths.concatenate(self.paths[1:])
        counts = torch.tensor([float(len(one.alive)) for one in self.paths], device=self.device)
        demonstrated, played = int(counts[0]), int(counts[1:].sum())
        counts[0] = played  # one half of what is weighed in each step is the demonstrations'
        log_q = log_mixture(torch.cat([torch.stack(row, 1) for row in self.log_prob]), counts)
        sums = torch.zeros(2 + len(STATISTICS), device=self.device)
        for _ in range(self.reward_steps):
            mine, fused = sample_rank_rows(demonstrated, 2 * size, self.device, self.weight).view(2, size)
            drawn = sample_rank_rows(played, size, self.device)
            weighed = Paths.concatenate([expert.rows(fused), samples.rows(drawn)])
            sums += self.reward_descent.step(
                *expert.rows(mine), *weighed, torch.cat([log_q[fused], log_q[demonstrated + drawn]])
            )
        names = ("reward_loss", *STATISTICS, "reward_grad_norm")
        with torch.no_grad():
            total = torch.cat([self.guided_cost.trajectory_costs(*one)[1] for one in (expert, samples)])
        log_weight = total - log_q
        log_weight[:demonstrated] += math.log(played / demonstrated)
        if self.weight is not None:
            log_weight[:demonstrated] += self.weight.log()
        found = {"effective_sample_size": effective_sample_size(log_weight), "samples": counts.sum()}
        return dict(zip(names, sums / max(self.reward_steps, 1), strict=True)) | found

    def _limit(self) -> str:
        limit = episode_limit(self.datamodule.env_id, **self.datamodule.env_kwargs)
        return f" (at most {limit} here)" if limit else ""

    @property
    def descents(self) -> Sequence[Descent]:
        """The learner's and the reward's."""
        return [*super().descents, *([self.reward_descent] if hasattr(self, "reward_descent") else [])]

    def past(self) -> list[Any]:
        """The samplers, and the samples of past rounds."""
        samplers = [(describe(one), one.state_dict()) for one in self.samplers]
        return [samplers, [list(one) for one in self.paths[1:]]]
