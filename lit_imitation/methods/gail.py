"""Generative adversarial imitation learning (Ho & Ermon 2016, arXiv:1606.03476)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import Space
from torch import Tensor
from torch.optim import Optimizer

from lit_imitation.errors import ConfigError
from lit_imitation.methods.diagnostics import HELD_OUT, Alarms, occupancy_distances
from lit_imitation.methods.rounds import RoundMethod
from lit_imitation.optim.descent import Descent
from lit_imitation.optim.optimization import Optimization
from lit_imitation.optim.tracing import is_traceable
from lit_imitation.policies import Policy, PolicyFactory
from lit_imitation.rewards import AdversarialReward, Discriminator, DiscriminatorFactory, RewardModel
from lit_imitation.rewards.features import ActionFeatures, Samples
from lit_imitation.rewards.losses import CLASSIFIER_STATISTICS, STATISTICS
from lit_imitation.rl import LearnerFactory
from lit_imitation.rollout import Round
from lit_imitation.utils.distributed import rank, world_size
from lit_imitation.utils.precision import without_autocast


class GAIL(RoundMethod):
    """min_π max_D  E_{ρ_E}[log D(s, a)] + E_{ρ_π}[log(1 − D(s, a))] − λ H(π)        (eq. 15, algorithm 1)

    Round by round, the discriminator learns to tell the expert's pairs (label 1) from the learner's (label 0), and the
    learner improves the policy on the reward that this gives, by default −log(1 − D); `AdversarialReward` derives its
    sign. Where D can do no better than ½, the occupancies are the same. λ is the learner's `entropy_coefficient` (SAC's
    temperature).

    Args:
        discriminator: Builds the discriminator from the two spaces.
        learner: Builds the learner; by default `PPO`.
        policy: Builds the policy; by default the learner's own choice.
        start: Directory or checkpoint of a policy to start from, such as a clone.
        discriminator_learning_rate: Learning rate of the discriminator's Adam.
        discriminator_steps: Gradient steps of the discriminator per round.
        discriminator_batch_size: Expert pairs, and as many learner pairs, of each of these steps on each process.
        replay_rounds: Earlier rounds whose learner pairs are drawn along with those of the current one.
        discriminator_optimization: Clipping, accumulation, weight decay and schedule of the discriminator.
    """

    needs_demonstrations = True
    learns_reward = True
    finite = ("discriminator_loss", "discriminator_logit_expert", "discriminator_logit_learner", "loss")

    def __init__(
        self,
        discriminator: DiscriminatorFactory = Discriminator,
        learner: LearnerFactory | None = None,
        policy: PolicyFactory | None = None,
        start: str | None = None,
        discriminator_learning_rate: float = 3e-4,
        discriminator_steps: int = 8,
        discriminator_batch_size: int = 1024,
        replay_rounds: int = 0,
        discriminator_optimization: Optimization | None = None,
    ) -> None:
        super().__init__(learner, policy, start)
        for name, value, least in (
            ("discriminator_steps", discriminator_steps, 1),
            ("discriminator_batch_size", discriminator_batch_size, 1),
            ("replay_rounds", replay_rounds, 0),
        ):
            if value < least:
                raise ConfigError(f"model.{name} is {value}; it must be at least {least}")
        self._discriminator_factory, self.discriminator_learning_rate = discriminator, discriminator_learning_rate
        self.discriminator_steps, self.discriminator_batch_size = discriminator_steps, discriminator_batch_size
        self.replay_rounds = replay_rounds
        self.discriminator_optimization = discriminator_optimization or Optimization()
        self.negatives: list[Samples] = []
        """The learner's pairs of each round, the current one last."""
        self.held_out: Samples | None = None
        self.alarms = Alarms()

    @property
    def discriminator(self) -> AdversarialReward:
        """The learner's reward."""
        assert isinstance(self.reward, AdversarialReward)
        return self.reward

    @without_autocast
    def training_step(self, batch: Round, batch_idx: int) -> None:
        """One round `[time, env]` of algorithm 1."""
        self.share_normalizer()
        metrics = self.update_discriminator(batch)  # tell expert pairs from this round's
        batch = self.relabel_rewards(batch)  # the only reward that the learner sees
        metrics |= self.diagnose(batch)
        self.alarms.watch(metrics, self.discriminator.is_classifier)
        metrics |= self.update_learner(batch)  # PPO or SAC
        self.log_round(batch, metrics)

    def update_discriminator(self, batch: Round) -> dict[str, Tensor]:
        """Take `discriminator_steps` steps, each on as many pairs of the expert as of the learner."""
        current = Samples.from_transitions(batch.rollout[batch.valid], absorbing=self.discriminator.absorbing)
        self.negatives = [*self.negatives, current][-1 - self.replay_rounds :]
        count, size = self.discriminator_steps, self.discriminator_batch_size
        expert = self._draw(self.expert, count * size, self.expert_weight)
        learner = self._draw(Samples.concatenate(self.negatives), count * size)
        columns = [
            torch.cat([column.view(count, size, *column.shape[1:]) for column in both], 1)
            for both in zip(expert, learner, strict=True)
        ]
        # Where on the line between an expert and a learner pair a gradient penalty is taken.
        place = torch.rand(count, size * world_size(), device=self.device)[:, rank() :: world_size()]
        self.schedule_rate(self.discriminator_descent)
        means = self.discriminator_descent.steps(*columns, place).mean(0)
        metrics = dict(zip(("discriminator_loss", *STATISTICS, "discriminator_grad_norm"), means, strict=True))
        if not self.discriminator.is_classifier:
            for name in CLASSIFIER_STATISTICS:
                del metrics[name]
        return metrics

    def relabel_rewards(self, batch: Round) -> Round:
        """Pay the round by the discriminator, by default r = −log(1 − D)."""
        if self.discriminator.needs_log_prob and not self.learner.replays:
            rollout = batch.rollout.clone(recurse=False)
            log_prob = self._log_prob(rollout.observation.flatten(0, 1), rollout.action.flatten(0, 1))
            rollout.log_prob = log_prob.view_as(rollout.reward)
            batch = batch._replace(rollout=rollout)
        return super().relabel_rewards(batch)

    def _draw(self, samples: Samples, count: int, weight: Tensor | None = None) -> list[Tensor]:
        """The fields of `count` rows, drawn with replacement and by weight, and log π(a | s) of each."""
        index = samples.sample_indices(count, weight)
        rows = samples.rows(index)
        if len(samples.absorbing) < count:  # the policy is the same for all draws, so once per row is enough
            return [*rows, self._log_prob(samples.observation, samples.action)[index]]
        return [*rows, self._log_prob(rows.observation, rows.action)]

    @torch.no_grad()
    def _log_prob(self, observation: Tensor, action: Tensor) -> Tensor:
        """Log π(a | s) `[N]` of played actions under the current policy, where the discriminator needs it."""
        if not self.discriminator.needs_log_prob:
            return torch.zeros(len(observation), device=self.device)
        return self.policy.executed_log_prob(self.policy.head(observation), action)

    @torch.no_grad()
    def diagnose(self, batch: Round) -> dict[str, Tensor]:
        """Rewards, accuracy on held-out demonstrations, and once an epoch the distance of the occupancies."""
        reward = self.discriminator.reward(batch.rollout) if self.learner.replays else batch.rollout.reward
        reward = reward[batch.valid]
        metrics = {"reward_mean": reward.mean(), "reward_std": reward.std()}
        if self.held_out is not None and self.discriminator.is_classifier:
            log_prob = self._log_prob(self.held_out.observation, self.held_out.action)
            right = (self.discriminator.logit(self.held_out, log_prob) > 0).float()
            counts = torch.ones_like(right) if self.held_out_weight is None else self.held_out_weight
            metrics["discriminator_accuracy_held_out"] = (right * counts).sum() / counts.sum()
        if self.trainer.is_last_batch:
            encode = self.discriminator.features.encoder, self.action_features
            learner = Samples.from_transitions(batch.rollout[batch.valid])
            metrics |= occupancy_distances(self.expert, self.expert_weight, learner, *encode)
        return metrics

    # Building

    def build_reward(self, observation_space: Space[Any], action_space: Space[Any]) -> RewardModel:
        """The discriminator."""
        return self._discriminator_factory(observation_space, action_space)

    def build(self, observation_space: Space[Any], action_space: Space[Any], policy: Policy | None) -> None:
        """Build discriminator, learner and policy, with one discount."""
        self.action_features = ActionFeatures(action_space)
        super().build(observation_space, action_space, policy)
        if self.attached and self.discriminator.uses_gamma and self.learner.gamma != self.discriminator.gamma:
            raise ConfigError(
                f"model.learner discounts by gamma {self.learner.gamma}, model.discriminator by "
                f"{self.discriminator.gamma}; set both to the same gamma"
            )

    def configure_optimizers(self) -> list[Optimizer]:
        """The learner's, and the discriminator's Adam; take the expert's pairs from the demonstrations."""
        optimizers = super().configure_optimizers()
        data, discriminator = self.demonstrations, self.discriminator
        if self._past is None:
            self.action_features.fit(data.train.action)
        self.expert = Samples.from_transitions(data.train, absorbing=discriminator.absorbing)
        self.expert_weight = data.train.weight
        if self.expert_weight is not None and discriminator.absorbing:  # what follows an end counts as the end does
            self.expert_weight = torch.cat([self.expert_weight, self.expert_weight[data.train.terminated]])
        if discriminator.absorbing and data.terminated and not self.expert.absorbing.any():
            raise ConfigError(
                f"discriminator.absorbing: {data.terminated} of the demonstrated trajectories terminated, but "
                "the end of none is among the transitions kept, and to end would count as what the expert never does: "
                f"lower data.subsample ({data.subsample}), hold out fewer (data.val_fraction), or record "
                "next_observations, without which last rows are left out"
            )
        self.held_out = Samples.from_transitions(data.held_out[:HELD_OUT]) if len(data.held_out) else None
        self.held_out_weight = data.held_out.weight[:HELD_OUT] if data.held_out.weight is not None else None
        if (mine := self.resumed()) is not None:
            self.negatives = [Samples(*(column.to(self.device) for column in one)) for one in mine]
        self.discriminator_descent = Descent(
            discriminator,
            [parameter for parameter in discriminator.parameters() if parameter.requires_grad],
            self.discriminator_learning_rate,
            optimization=self.discriminator_optimization,
            traced=is_traceable(discriminator),
            compiled=self.learner.compile_gradient,
        )
        return [*optimizers, self.discriminator_descent.optimizer]

    @property
    def descents(self) -> Sequence[Descent]:
        """The learner's and the discriminator's."""
        own = [self.discriminator_descent] if hasattr(self, "discriminator_descent") else []
        return [*super().descents, *own]

    # Checkpoints

    def past(self) -> list[Any]:
        """Pairs of the earlier rounds."""
        return [list(one) for one in self.negatives[-self.replay_rounds :]] if self.replay_rounds else []

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the rounds for which there has been cause for each warning."""
        checkpoint["alarms"] = dict(self.alarms.rounds)
        super().on_save_checkpoint(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore them."""
        super().on_load_checkpoint(checkpoint)
        self.alarms.rounds = dict(checkpoint["alarms"])
