"""Guided cost learning (Finn, Levine & Abbeel 2016, arXiv:1603.00448)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from gymnasium import Space
from torch import Tensor
from torch.optim import Optimizer

from lit_imitation.envs import episode_limit
from lit_imitation.errors import TrainingError
from lit_imitation.methods.data_checks import check_whole_trajectories
from lit_imitation.methods.density import fit_density
from lit_imitation.methods.rounds import RoundMethod
from lit_imitation.methods.steps import set_round_rate
from lit_imitation.optim.descent import Descent
from lit_imitation.optim.optimization import Optimization
from lit_imitation.policies import Policy, PolicyFactory
from lit_imitation.policies.base import Explorer
from lit_imitation.policies.checkpoints import build, check_weights, describe
from lit_imitation.rewards import GuidedCost, RewardFactory, RewardModel
from lit_imitation.rewards.guided_cost import STATISTICS, effective_sample_size
from lit_imitation.rewards.paths import Paths, log_mixture
from lit_imitation.rl import LearnerFactory
from lit_imitation.rollout import Round
from lit_imitation.transitions import Transitions
from lit_imitation.utils.distributed import all_reduce
from lit_imitation.utils.precision import without_autocast
from lit_imitation.utils.ranges import check_at_least
from lit_imitation.utils.sampling import sample_rank_rows


class GCL(RoundMethod):
    """Maximum likelihood of the demonstrations D under P(τ) = p(τ) exp R_θ(τ) / Z, with Z estimated from samples:

        L(θ) = −(1/N) Σ_{τ_i ∈ D} R_θ(τ_i) + log (1/M) Σ_j z_j exp R_θ(τ_j),      z_j = [Σ_κ (n_κ / M) q_κ(τ_j)]^(−1)

    The samples come from the learner's policy, which is trained on r_θ(s, a) − log π(a | s) (SAC adds an entropy of its
    own). Its optimum is P(τ) itself, from which Z could be estimated without variance. q_κ(τ) = Π_t π_κ(a_t | s_t) is
    the probability of the executed actions under the policy of round κ (`Policy.executed_log_prob`, in units of half
    the action range); the contribution of the dynamics cancels. The samples of a step are one half episodes of this
    round and of the `replay_rounds` before it, and one half demonstrations. The demonstrations' own policy is unknown,
    so q_κ is that of a Gaussian or categorical clone, which is fitted once before training. With as many samples from
    each policy, n_κ / M is the paper's 1 / k.

    Weights of whole trajectories have three consequences:

    - Episodes that begin or end outside a round cannot be samples, though the learner's update uses them. Make
      `data.steps_per_round` a multiple of the episodes' length. If lengths vary, mostly the shorter episodes fit into a
      round, so make rounds several times as long.
    - A few trajectories can have nearly all the weight; `GuidedCost` describes how the weights are tempered.
      `effective_sample_size` is that of all samples before tempering, and `weight_exponent` the exponent β.
    - With random start states or dynamics, P favors lucky trajectories (Ziebart et al. 2008), as in
      `Planning.trajectory`.

    A checkpoint holds the reward: `load_reward(DIR)`, or `reward: DIR` in a recipe of PPO or SAC.

    Args:
        reward: Builds the reward from the two spaces.
        learner: Builds the learner; by default `PPO`. While its actions are uniform draws (SAC at the start), the
            reward does not learn.
        policy: Builds the policy; by default the learner's own choice.
        start: Directory or checkpoint of a policy to start from, such as a clone.
        reward_learning_rate: Learning rate of the reward's Adam.
        reward_steps: Gradient steps of the reward per round.
        reward_batch_size: Demonstrated trajectories, and as many samples, of each of these steps on each process.
        replay_rounds: Earlier rounds whose samples are drawn along with those of the current one.
        reward_optimization: Clipping, accumulation, weight decay and schedule of the reward.

    Raises:
        ConfigError: An argument is out of range, the demonstrations are not whole trajectories, or all of them are
            longer than a round.
        TrainingError: No episode began and ended within a round of the first epoch.
    """

    needs_demonstrations = True
    learns_reward = True
    finite_metrics = ("reward_loss", "loss")

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
        check_at_least("model", 0, reward_steps=reward_steps, replay_rounds=replay_rounds)
        check_at_least("model", 2, reward_batch_size=reward_batch_size)
        self._reward_factory, self.reward_learning_rate = reward, reward_learning_rate
        self.reward_steps, self.reward_batch_size, self.replay_rounds = reward_steps, reward_batch_size, replay_rounds
        self.reward_optimization = reward_optimization or Optimization()
        self.paths: list[Paths] = []
        """The demonstrations, and the samples of each stored round."""
        self.samplers: list[Policy] = []
        """The density of the demonstrations, and the policy that played each stored round."""
        self.log_prob: list[list[Tensor]] = []
        """Log q_κ(τ) `[N]` of each entry of `paths` (rows) under each of `samplers` (columns)."""
        self.weight: Tensor | None = None
        """Weights of the demonstrated trajectories, `[N]` with mean 1; None if all are equal."""
        self._starts: Tensor | None = None  # where an episode begins with the next round

    @property
    def guided_cost(self) -> GuidedCost:
        """The learner's reward."""
        assert isinstance(self.reward, GuidedCost)
        return self.reward

    @without_autocast
    def training_step(self, batch: Round, batch_idx: int) -> None:
        """One round `[time, env]` of algorithm 1, with the reward's update by algorithm 2."""
        self.share_normalizer()
        self.store_samples(batch)
        metrics = self.update_reward()
        batch = self.relabel_rewards(batch)
        metrics |= self.update_learner(batch)  # PPO or SAC
        self.log_round(batch, metrics)

    def store_samples(self, batch: Round) -> None:
        """Store the whole trajectories of a round and the policy that played them, and drop the oldest round."""
        starts = torch.ones(batch.valid.shape[1], dtype=torch.bool) if self._starts is None else self._starts
        paths = None if self.learner.acts_at_random else Paths.within_round(batch, starts)
        # A row that is not valid only resets its environment, so the next round begins with an episode too.
        self._starts = (batch.rollout.done[-1] | ~batch.valid[-1]).cpu()
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
        """Take `reward_steps` steps, each on `reward_batch_size` demonstrations and as many samples."""
        if not self._has_samples():
            return {}
        size, expert = self.reward_batch_size, self.paths[0]
        samples = Paths.concatenate(self.paths[1:])
        counts = torch.tensor([float(len(one.alive)) for one in self.paths], device=self.device)
        demonstrated, played = int(counts[0]), int(counts[1:].sum())
        counts[0] = played  # one half of the samples of each step are demonstrations
        log_q = log_mixture(torch.cat([torch.stack(row, 1) for row in self.log_prob]), counts)
        sums = torch.zeros(2 + len(STATISTICS), device=self.device)

        def draw() -> list[Tensor]:
            mine, fused = sample_rank_rows(demonstrated, 2 * size, self.device, self.weight).view(2, size)
            drawn = sample_rank_rows(played, size, self.device)
            weighed = Paths.concatenate([expert.rows(fused), samples.rows(drawn)])
            return [*expert.rows(mine), *weighed, torch.cat([log_q[fused], log_q[demonstrated + drawn]])]

        set_round_rate(self.reward_descent, self)
        for _ in range(self.reward_steps):
            minibatches = [draw() for _ in range(self.reward_optimization.accumulate_batches)]
            sums += self.reward_descent.step_mean(minibatches)
        names = ("reward_loss", *STATISTICS, "reward_grad_norm")
        metrics = dict(zip(names, sums / max(self.reward_steps, 1), strict=True))
        with torch.no_grad():
            total = torch.cat([self.guided_cost.trajectory_costs(*one)[1] for one in (expert, samples)])
        log_weight = total - log_q
        log_weight[:demonstrated] += math.log(played / demonstrated)
        if self.weight is not None:
            log_weight[:demonstrated] += self.weight.log()
        return metrics | {"effective_sample_size": effective_sample_size(log_weight), "samples": counts.sum()}

    def relabel_rewards(self, batch: Round) -> Round:
        """Set the rewards of the round to r_θ(s, a) − log π(a | s); SAC has an entropy of its own."""
        batch = super().relabel_rewards(batch)
        if not self.learner.replays:
            rollout = batch.rollout
            with torch.no_grad():
                head = self.policy.head(rollout.observation.flatten(0, 1))
                log_prob = self.policy.executed_log_prob(head, rollout.action.flatten(0, 1))
            rollout.reward = rollout.reward - log_prob.view_as(rollout.reward)
        return batch

    def explorer(self) -> Explorer:
        """What acts in the rounds of an epoch, which starts with a reset of the environments."""
        self._starts = None
        return super().explorer()

    def _has_samples(self) -> bool:
        """Whether every process has stored a round.

        Raises:
            TrainingError: It has not by the end of an epoch.
        """
        if not float(all_reduce(torch.tensor(float(len(self.paths) < 2), device=self.device))):
            return True
        if self.trainer.is_last_batch and not self.learner.acts_at_random:
            limit = episode_limit(self.datamodule.env_id, **self.datamodule.env_kwargs)
            raise TrainingError(
                "no episode began and ended within a round, and GCL needs whole ones; set data.steps_per_round to a "
                f"multiple of the episodes' length{f' (at most {limit} here)' if limit else ''}"
            )
        return False

    # Building

    def build_reward(self, observation_space: Space[Any], action_space: Space[Any]) -> RewardModel:
        """The reward model."""
        return self._reward_factory(observation_space, action_space)

    def setup(self, stage: str) -> None:
        """Check that the demonstrations are whole trajectories, and that rounds are long enough."""
        super().setup(stage)
        if stage == "fit":
            check_whole_trajectories(self.demonstrations)

    def configure_optimizers(self) -> list[Optimizer]:
        """The learner's, and the reward's Adam; take the trajectories from the demonstrations."""
        optimizers = super().configure_optimizers()
        train = self.demonstrations.train
        self.paths, self.weight = [Paths.from_transitions(train)], self._trajectory_weights(train)
        if (mine := self.restored_round_state()) is None:
            self.samplers = [fit_density(train, self.policy, self.datamodule.seed)]
        else:
            self.samplers = [self._load_sampler(*one) for one in mine[0]]
            self.paths += [Paths(*(column.to(self.device) for column in one)) for one in mine[1]]
        self.log_prob = [[one.log_prob(sampler) for sampler in self.samplers] for one in self.paths]
        self.reward_descent = Descent(
            self.guided_cost,
            self.guided_cost.parameters(),
            self.reward_learning_rate,
            optimization=self.reward_optimization,
        )
        return [*optimizers, self.reward_descent.optimizer]

    def _trajectory_weights(self, train: Transitions) -> Tensor | None:
        """Mean weight of the steps of each trajectory, scaled to a mean of 1."""
        if train.weight is None:
            return None
        lengths = train.episode_lengths()
        sums = torch.zeros(len(lengths), device=self.device)
        weight = sums.index_add(0, train.episode_index(), train.weight) / lengths
        return weight / weight.mean()

    @property
    def descents(self) -> Sequence[Descent]:
        """The learner's and the reward's."""
        return [*super().descents, *([self.reward_descent] if hasattr(self, "reward_descent") else [])]

    # Checkpoints

    def round_state(self) -> list[Any]:
        """The samplers, and the samples of the stored rounds."""
        samplers = [(describe(one), one.state_dict()) for one in self.samplers]
        return [samplers, [list(one) for one in self.paths[1:]]]

    def _load_sampler(self, description: dict[str, Any], state: dict[str, Tensor]) -> Policy:
        """A sampler of a checkpoint."""
        sampler = build(description, Policy, named=[type(self.policy)])  # type: ignore[type-abstract]
        check_weights(state, sampler, "the checkpoint's sampler")
        sampler.load_state_dict(state)
        return sampler.to(self.device).requires_grad_(False).eval()
