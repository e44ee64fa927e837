"""Generative adversarial imitation learning (Ho & Ermon 2016, arXiv:1606.03476)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import Space
from torch import Tensor
from torch.optim import Optimizer

from lit_imitation.errors import ConfigError
from lit_imitation.methods.diagnostics import Alarms, diagnose_round, name_statistics
from lit_imitation.methods.pairs import Pairs, with_log_prob
from lit_imitation.methods.rounds import RoundMethod
from lit_imitation.methods.steps import set_round_rate
from lit_imitation.optim.descent import Descent
from lit_imitation.optim.optimization import Optimization
from lit_imitation.optim.tracing import is_traceable
from lit_imitation.policies import Policy, PolicyFactory
from lit_imitation.rewards import AdversarialReward, Discriminator, DiscriminatorFactory, RewardModel
from lit_imitation.rewards.features import ActionFeatures
from lit_imitation.rl import LearnerFactory
from lit_imitation.rollout import Round
from lit_imitation.utils.precision import without_autocast
from lit_imitation.utils.ranges import check_at_least


class GAIL(RoundMethod):
    """Generative adversarial imitation learning: a policy and a discriminator, trained against each other.

        min_π max_D  E_{ρ_E}[log D(s, a)] + E_{ρ_π}[log(1 − D(s, a))] − λ H(π)         (section 5, algorithm 1)

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
    finite_metrics = ("discriminator_loss", "discriminator_logit_expert", "discriminator_logit_learner", "loss")
    alarms: Alarms

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
        check_at_least("model", 1, discriminator_steps=discriminator_steps)
        check_at_least("model", 1, discriminator_batch_size=discriminator_batch_size)
        check_at_least("model", 0, replay_rounds=replay_rounds)
        self._discriminator_factory, self.discriminator_learning_rate = discriminator, discriminator_learning_rate
        self.discriminator_steps, self.discriminator_batch_size = discriminator_steps, discriminator_batch_size
        self.discriminator_optimization = discriminator_optimization or Optimization()
        self.pairs, self.alarms = Pairs(replay_rounds), Alarms()

    @property
    def discriminator(self) -> AdversarialReward:
        """The learner's reward."""
        assert isinstance(self.reward, AdversarialReward)
        return self.reward

    @without_autocast
    def training_step(self, batch: Round, batch_idx: int) -> None:
        """One round `[time, env]` of algorithm 1."""
        self.share_normalizer()
        metrics = self.update_discriminator(batch)  # first: rewards come from a D that has seen this round
        batch = self.relabel_rewards(batch)  # the only reward that the learner sees
        metrics |= self.diagnose(batch)
        self.alarms.watch(metrics, self.discriminator.is_classifier)
        metrics |= self.update_learner(batch)
        self.log_round(batch, metrics)

    def update_discriminator(self, batch: Round) -> dict[str, Tensor]:
        """Take `discriminator_steps` steps, each on as many pairs of the expert as of the learner."""
        self.pairs.add_round(batch, self.discriminator.absorbing)
        columns = self.pairs.draw(self.discriminator_steps, self.discriminator_batch_size, self._log_prob)
        set_round_rate(self.discriminator_descent, self)
        means = self.discriminator_descent.steps(*columns).mean(0)
        return name_statistics(means, self.discriminator.is_classifier)

    def relabel_rewards(self, batch: Round) -> Round:
        """Pay the round by the discriminator, by default r = −log(1 − D)."""
        if self.discriminator.needs_log_prob and not self.learner.replays:
            batch = with_log_prob(batch, self._log_prob)
        return super().relabel_rewards(batch)

    @torch.no_grad()
    def _log_prob(self, observation: Tensor, action: Tensor) -> Tensor:
        """Log π(a | s) `[N]` of executed actions under the current policy; zeros if the discriminator ignores it."""
        if not self.discriminator.needs_log_prob:
            return torch.zeros(len(observation), device=self.device)
        return self.policy.executed_log_prob(self.policy.head(observation), action)

    def diagnose(self, batch: Round) -> dict[str, Tensor]:
        """Rewards, accuracy on held-out demonstrations, and once an epoch the distance of the occupancies."""
        distances = self.action_features if self.trainer.is_last_batch else None
        return diagnose_round(batch, self.discriminator, self.pairs, self._log_prob, self.learner, distances)

    # Building

    def build_reward(self, observation_space: Space[Any], action_space: Space[Any]) -> RewardModel:
        """The discriminator."""
        return self._discriminator_factory(observation_space, action_space)

    def build(self, observation_space: Space[Any], action_space: Space[Any], policy: Policy | None) -> None:
        """Build discriminator, learner and policy, with one discount."""
        self.action_features = ActionFeatures(action_space)
        super().build(observation_space, action_space, policy)
        mine, its = self.learner.gamma, self.discriminator.gamma
        if self.attached and self.discriminator.uses_gamma and mine != its:
            raise ConfigError(
                f"model.learner discounts by gamma {mine}, model.discriminator by {its}; set both to the same gamma"
            )

    def configure_optimizers(self) -> list[Optimizer]:
        """Return the optimizers of learner and discriminator, and load the expert's pairs."""
        optimizers = super().configure_optimizers()
        self.pairs.take_demonstrations(self.demonstrations, self.discriminator.absorbing)
        if (earlier := self.restored_round_state()) is None:
            self.action_features.fit(self.demonstrations.train.action)
        else:
            self.pairs.load_state(earlier, self.device)
        self.discriminator_descent = Descent(
            self.discriminator,
            [parameter for parameter in self.discriminator.parameters() if parameter.requires_grad],
            self.discriminator_learning_rate,
            optimization=self.discriminator_optimization,
            traced=is_traceable(self.discriminator),
            compiled=self.learner.compile_gradient,
        )
        return [*optimizers, self.discriminator_descent.optimizer]

    @property
    def descents(self) -> Sequence[Descent]:
        """The learner's and the discriminator's."""
        own = [self.discriminator_descent] if hasattr(self, "discriminator_descent") else []
        return [*super().descents, *own]

    def round_state(self) -> list[Any]:
        """Pairs of the earlier rounds."""
        return self.pairs.state()
