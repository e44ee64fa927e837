"""Reinforcement learning: PPO or SAC under a reward, the environment's own or a model of one."""

from __future__ import annotations

from typing import Any

from gymnasium import Space

from lit_imitation.errors import ConfigError
from lit_imitation.methods.data_checks import check_made_for
from lit_imitation.methods.rounds import RoundMethod
from lit_imitation.policies import PolicyFactory
from lit_imitation.rewards import AdversarialReward, LearnedReward, RewardModel, load_reward
from lit_imitation.rl import LearnerFactory
from lit_imitation.rollout import Round
from lit_imitation.utils.precision import without_autocast


class RL(RoundMethod):
    """Maximize E_π[Σ_t γᵗ r(s_t, a_t)], round by round: play, reward, improve.

    Args:
        learner: Builds the learner, `PPO` or `SAC`, from the two spaces and the policy to improve; by default `PPO`.
        policy: Builds the policy; by default the learner's own choice.
        reward: Model of the reward in place of the environment's own; or directory or checkpoint of a run that learned
            one.
        start: Directory or checkpoint of a policy to start from, trained by any method.
    """

    def __init__(
        self,
        learner: LearnerFactory | None = None,
        policy: PolicyFactory | None = None,
        reward: RewardModel | str | None = None,
        start: str | None = None,
    ) -> None:
        super().__init__(learner, policy, start)
        self.reward = load_reward(reward) if isinstance(reward, str) else reward
        if isinstance(reward, str) and self.arguments.get("reward") == reward:  # described without the file
            self.arguments["reward"] = self.reward

    @property
    def method(self) -> str:
        """Name of the learner."""
        return type(self.learner).__name__.lower()

    @without_autocast
    def training_step(self, batch: Round, batch_idx: int) -> None:
        """Learn from one round `[time, env]`."""
        batch = self.relabel_rewards(batch)
        metrics = self.update_learner(batch)
        self.log_round(batch, metrics)

    def build_reward(self, observation_space: Space[Any], action_space: Space[Any]) -> RewardModel | None:
        """The model that was given, if any."""
        return self.reward

    def configure_model(self) -> None:
        """Build learner and policy, and check that a learned reward was made for these spaces and discount."""
        if hasattr(self, "policy") or not self.attached:
            return
        if isinstance(self.reward, LearnedReward):
            check_made_for(f"model.reward: {self.reward.source}; it", self.reward.spaces, self.datamodule)
        super().configure_model()
        learned = self.reward.model if isinstance(self.reward, LearnedReward) else None
        if not hasattr(self, "learner") or not isinstance(learned, AdversarialReward) or not learned.absorbing:
            return
        if learned.gamma != self.learner.gamma:
            raise ConfigError(
                f"model.reward includes the rewards after the end of an episode, discounted by its gamma "
                f"{learned.gamma}; model.learner has gamma {self.learner.gamma}: set it to the reward's"
            )
