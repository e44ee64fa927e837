"""What GAIL and AIRL share: a discriminator and a learner, in turns."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import Space
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer

from lit_imitation.data.imitation_module import ImitationDataModule
from lit_imitation.errors import ConfigError
from lit_imitation.methods.reward_learning import RewardLearning
from lit_imitation.metrics.occupancy import maximum_mean_discrepancy, sliced_wasserstein
from lit_imitation.optim.descent import Descent
from lit_imitation.policies import Policy, PolicyFactory
from lit_imitation.rewards import AdversarialReward, DiscriminatorFactory
from lit_imitation.rewards.discriminator import CLASSIFIER_STATISTICS, STATISTICS
from lit_imitation.rewards.features import ActionFeatures, Samples
from lit_imitation.rl import LearnerFactory
from lit_imitation.rollout import Round
from lit_imitation.transitions import Transitions
from lit_imitation.utils.distributed import rank, world_size

SATURATED, FLAT, PATIENCE = 0.995, 1e-3, 10
"""Accuracy on held-out expert and learner above which a discriminator counts as saturated, and standard deviation of
the rewards, in nats, below which they count as flat; after so many rounds on end there is a warning."""
ALARMS = {
    "saturated": "the discriminator has told expert and learner apart without fail for {rounds} rounds, so its reward "
    "hardly says which way to go; fewer model.discriminator_steps, a lower model.learning_rate, a gradient_penalty or "
    "max_logit of the discriminator (GAIL's: spectral_norm), or a model.start from a clone help",
    "flat": "the rewards have been all the same for {rounds} rounds, so there is nothing to learn from them; see "
    "whether the discriminator learns (discriminator_loss); PPO goes on learning from small differences unless its "
    "normalize_rewards is off",
}
HELD_OUT, OCCUPANCY = 4096, 512
"""Demonstrated pairs by which accuracy is judged in each round, at the most; and pairs of either side between which the
divergence of occupancies is taken."""


class Adversarial(RewardLearning):
    """Rounds of: play, `discriminator_steps` steps of the discriminator, reward the round by it, improve the policy.

    Args:
        discriminator: builds the discriminator from the two spaces.
        learner: builds the learner; by default `PPO`.
        policy: builds the policy; by default the learner's own choice.
        start: directory or checkpoint of a policy to start from, such as a clone.
        learning_rate: of the discriminator's Adam.
        discriminator_steps: gradient steps a round.
        batch_size: expert pairs, and as many learner pairs, of each of them, on each process. Fewer demonstrations are
            drawn more than once.
        replay_rounds: learner pairs are drawn from this round and so many before it.
        discriminator_max_grad_norm: of its gradient.
    """

    def __init__(
        self,
        discriminator: DiscriminatorFactory,
        learner: LearnerFactory | None = None,
        policy: PolicyFactory | None = None,
        start: str | None = None,
        learning_rate: float = 3e-4,
        discriminator_steps: int = 8,
        batch_size: int = 1024,
        replay_rounds: int = 0,
        discriminator_max_grad_norm: float = float("inf"),
    ) -> None:
        super().__init__(discriminator, learner, policy, start, learning_rate)
        for name, value, least in (
            ("discriminator_steps", discriminator_steps, 1),
            ("batch_size", batch_size, 1),
            ("replay_rounds", replay_rounds, 0),
        ):
            if value < least:
                raise ConfigError(f"model.{name} is {value}; it must be at least {least}")
        if not discriminator_max_grad_norm > 0.0:
            raise ConfigError(f"model.discriminator_max_grad_norm is {discriminator_max_grad_norm}; it must be above 0")
        self.discriminator_steps, self.batch_size = discriminator_steps, batch_size
        self.replay_rounds, self.discriminator_max_grad_norm = replay_rounds, discriminator_max_grad_norm
        self.negatives: list[Samples] = []
        """The learner's pairs, a round each; the last is the current one."""
        self.held_out: Samples | None = None
        self._alarms = {"saturated": 0, "flat": 0}

    @property
    def discriminator(self) -> AdversarialReward:
        """What the learner is rewarded by."""
        assert isinstance(self.reward, AdversarialReward)
        return self.reward

    def build(self, observation_space: Space[Any], action_space: Space[Any], policy: Policy | None) -> None:
        """Discriminator, learner and policy for these spaces."""
        self.action_features = ActionFeatures(action_space)
        super().build(observation_space, action_space, policy)
        # Without a Trainer a checkpoint is read, by whatever learner.
        if self._trainer is not None and self.discriminator.uses_gamma:
            mine, its = self.learner.gamma, self.discriminator.gamma
            if mine != its:
                raise ConfigError(
                    f"model.learner discounts by gamma {mine}, model.discriminator by {its}: what comes after a step "
                    "is worth the same to both; give both the same gamma"
                )

    def configure_optimizers(self) -> list[Optimizer]:
        """The learner's, and the discriminator's Adam."""
        optimizers = super().configure_optimizers()
        data, discriminator = self.datamodule, self.discriminator
        assert isinstance(data, ImitationDataModule)
        if self._resumed is None:
            self.action_features.fit(data.train.action)
        self.expert = Samples.from_transitions(data.train, absorbing=discriminator.absorbing)
        self.expert_weight = data.train.weight
        if self.expert_weight is not None and discriminator.absorbing:  # what follows an end counts as the end does
            self.expert_weight = torch.cat([self.expert_weight, self.expert_weight[data.train.terminated]])
        if discriminator.absorbing and data.source.terminated and not self.expert.absorbing.any():
            raise ConfigError(
                f"discriminator.absorbing: {data.source.terminated} of the demonstrated trajectories terminated, but "
                "the end of none is among the transitions kept, and to end would count as what the expert never does: "
                f"lower data.subsample ({data.source.subsample}), hold out fewer (data.val_fraction), or record "
                "next_observations, without which last rows are left out"
            )
        self.held_out = Samples.from_transitions(data.held_out[:HELD_OUT]) if len(data.held_out) else None
        self.held_out_weight = data.held_out.weight[:HELD_OUT] if data.held_out.weight is not None else None
        if (mine := self.resumed()) is not None:
            self.negatives = [Samples(*(column.to(self.device) for column in one)) for one in mine]
        self.discriminator_descent = Descent(
            discriminator,
            [parameter for parameter in discriminator.parameters() if parameter.requires_grad],
            self.learning_rate,
            max_grad_norm=self.discriminator_max_grad_norm,
            compiled=self.learner.compile_gradient,
        )
        return [*optimizers, self.discriminator_descent.optimizer]

    def rewarded(self, batch: Round) -> tuple[dict[str, Tensor], Round]:
        """The discriminator's steps on this round `[time, env]`, and then the round as it rewards it."""
        discriminator, rollout = self.discriminator, batch.rollout
        self._share_normalizer()
        logged = self._discriminate(Samples.from_transitions(rollout[batch.valid], absorbing=discriminator.absorbing))
        if discriminator.needs_log_prob and not self.learner.replays:
            rollout = rollout.clone(recurse=False)
            log_prob = self._log_prob(rollout.observation.flatten(0, 1), rollout.action.flatten(0, 1))
            rollout.log_prob = log_prob.view_as(rollout.reward)
            batch = batch._replace(rollout=rollout)
        _, batch = super().rewarded(batch)
        with torch.no_grad():
            reward = discriminator.reward(rollout) if self.learner.replays else batch.rollout.reward
            logged |= self._diagnose(reward[batch.valid], rollout, batch.valid)
        self._warn(logged)
        return logged, batch

    def _discriminate(self, learner: Samples) -> dict[str, Tensor]:
        """`discriminator_steps` steps on as many pairs of the expert as of the learner."""
        self.negatives = [*self.negatives, learner][-1 - self.replay_rounds :]
        count, size = self.discriminator_steps, self.batch_size
        learners = Samples.concatenate(self.negatives)
        pairs = [self._drawn(self.expert, count * size, self.expert_weight), self._drawn(learners, count * size)]
        columns = [
            torch.cat([column.unflatten(0, (count, size)) for column in both], 1) for both in zip(*pairs, strict=True)
        ]
        place = torch.rand(count, size * world_size(), device=self.device)[:, rank() :: world_size()]
        means = self.discriminator_descent.steps(*columns, place).mean(0)
        logged = dict(zip(("discriminator_loss", *STATISTICS, "discriminator_grad_norm"), means, strict=True))
        if not self.discriminator.is_classifier:
            for name in CLASSIFIER_STATISTICS:
                del logged[name]
        return logged

    def _drawn(self, samples: Samples, count: int, weight: Tensor | None = None) -> list[Tensor]:
        """The fields of `count` rows, with replacement, by weight if there is one, and log π(a | s) of each.

        The policy stays as it is until all steps are done: where there are fewer rows than draws, each is asked about
        once.
        """
        index = samples.sample_indices(count, weight)
        rows = samples.rows(index)
        if len(samples.absorbing) < count:
            return [*rows, self._log_prob(samples.observation, samples.action)[index]]
        return [*rows, self._log_prob(rows.observation, rows.action)]

    @torch.no_grad()
    def _log_prob(self, observation: Tensor, action: Tensor) -> Tensor:
        """Log π(a | s) `[N]` of what the current policy plays, where the discriminator needs it."""
        if not self.discriminator.needs_log_prob:
            return torch.zeros(len(observation), device=self.device)
        return self.policy.executed_log_prob(self.policy.head(observation), action)

    def _diagnose(self, reward: Tensor, rollout: Transitions, valid: Tensor) -> dict[str, Tensor]:
        """Accuracy on demonstrations never learned from, rewards, and each epoch how far the occupancies are apart."""
        discriminator, found = self.discriminator, {"reward_mean": reward.mean(), "reward_std": reward.std()}
        if self.held_out is not None and discriminator.is_classifier:
            log_prob = self._log_prob(self.held_out.observation, self.held_out.action)
            right = (discriminator.logit(self.held_out, log_prob) > 0).float()
            counts = torch.ones_like(right) if self.held_out_weight is None else self.held_out_weight
            found["discriminator_accuracy_held_out"] = (right * counts).sum() / counts.sum()
        if self.trainer.is_last_batch:
            real = (~self.expert.absorbing).nonzero().squeeze(-1)
            weight = None if self.expert_weight is None else self.expert_weight[real]
            expert = self.occupancy(self.expert.rows(real), weight)
            learner = self.occupancy(Samples.from_transitions(rollout[valid]))
            if min(len(expert), len(learner)) > 1:  # of a single pair there is no distance to another of its kind
                found["mmd"] = maximum_mean_discrepancy(expert, learner)
            found["sliced_wasserstein"] = sliced_wasserstein(expert, learner)
        return found

    def occupancy(self, samples: Samples, weight: Tensor | None = None) -> Tensor:
        """`[≤ OCCUPANCY, n]`: state and action of so many rows, standardized as the discriminator's.

        They are evenly spaced, by `weight: [N]` if given: as if each row were there so often.
        """
        total = len(samples.absorbing)
        count = min(total, OCCUPANCY)
        place = (torch.arange(count, device=self.device) + 0.5) / count
        cumulative = (torch.ones(total, device=self.device) if weight is None else weight).double().cumsum(0)
        rows = samples.rows(torch.searchsorted(cumulative, place * cumulative[-1], right=True))
        return torch.cat([self.discriminator.features.encoder(rows.observation), self.action_features(rows.action)], -1)

    def _warn(self, logged: dict[str, Tensor]) -> None:
        """Say in words when there is nothing more to learn from the rewards."""
        found = {"flat": logged["reward_std"] < FLAT}
        if self.discriminator.is_classifier:
            accuracy = logged.get("discriminator_accuracy_held_out", logged["discriminator_accuracy_expert"])
            found["saturated"] = torch.minimum(accuracy, logged["discriminator_accuracy_learner"]) > SATURATED
        for name, raised in zip(found, torch.stack(list(found.values())).tolist(), strict=True):
            self._alarms[name] = self._alarms[name] + 1 if raised else 0
            if self._alarms[name] == PATIENCE:
                rank_zero_warn(ALARMS[name].format(rounds=PATIENCE))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """As every method that learns a reward, and for how many rounds there has been cause for each warning."""
        checkpoint["alarms"] = dict(self._alarms)
        super().on_save_checkpoint(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The inverse."""
        super().on_load_checkpoint(checkpoint)
        self._alarms = dict(checkpoint["alarms"])

    def past(self) -> list[Any]:
        """The past rounds' pairs."""
        return [list(one) for one in self.negatives[-self.replay_rounds :]] if self.replay_rounds else []
