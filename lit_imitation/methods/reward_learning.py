"""What methods share that learn a reward from demonstrations while a learner learns a policy by it."""

from __future__ import annotations

from typing import Any

from gymnasium import Space
from torch.optim import Optimizer

from lit_imitation.data.imitation_module import ImitationDataModule
from lit_imitation.errors import ConfigError
from lit_imitation.methods.rl import RL
from lit_imitation.policies import Policy, PolicyFactory
from lit_imitation.policies.checkpoints import describe
from lit_imitation.rewards import LearnableReward, RewardFactory
from lit_imitation.rl import LearnerFactory
from lit_imitation.utils.descriptions import Describable
from lit_imitation.utils.distributed import gather_to_first


class RewardLearning(RL):
    """Rounds of: play, improve the reward by the round and the demonstrations, reward the round, improve the policy.

    A subclass defines what improves the reward, in `rewarded`, and what of past rounds it needs, in `past`.

    Args:
        reward: builds the reward from the two spaces.
        learner: builds the learner; by default `PPO`.
        policy: builds the policy; by default the learner's own choice.
        start: directory or checkpoint of a policy to start from, such as a clone.
        learning_rate: of the reward's Adam.
    """

    def __init__(
        self,
        reward: RewardFactory,
        learner: LearnerFactory | None,
        policy: PolicyFactory | None,
        start: str | None,
        learning_rate: float,
    ) -> None:
        super().__init__(learner, policy, None, start)
        if not learning_rate > 0.0:
            raise ConfigError(f"model.learning_rate is {learning_rate}; it must be above 0")
        self._reward_factory, self.learning_rate = reward, learning_rate
        self._resumed: list[Any] | None = None

    @property
    def method(self) -> str:
        """The method's name, not the learner's."""
        return type(self).__name__.lower()

    @property
    def learned(self) -> LearnableReward:
        """What the learner is rewarded by."""
        assert isinstance(self.reward, LearnableReward)
        return self.reward

    def build(self, observation_space: Space[Any], action_space: Space[Any], policy: Policy | None) -> None:
        """Reward, learner and policy for these spaces."""
        if self.reward is None:
            self.reward = self._reward_factory(observation_space, action_space)
        super().build(observation_space, action_space, policy)

    def parts(self) -> dict[str, Describable | None]:
        """As of every learner's method, and the reward, by whatever name."""
        return super().parts() | {"reward": self.reward, "discriminator": self.reward}

    def setup(self, stage: str) -> None:
        """Check what it takes to train."""
        data = self.datamodule
        if stage == "fit" and not isinstance(data, ImitationDataModule):
            raise ConfigError(
                f"{type(self).__name__} learns from demonstrations beside rollouts; {type(data).__name__} has not "
                "both: use lit_imitation.ImitationDataModule"
            )
        super().setup(stage)

    def configure_optimizers(self) -> list[Optimizer]:
        """The learner's; the demonstrations say how the reward reads observations, and in which units actions are."""
        optimizers = super().configure_optimizers()
        data, encoder = self.datamodule, self.learned.features.encoder
        assert isinstance(data, ImitationDataModule)
        if encoder.standardize is not None and not encoder.standardize.fitted:
            encoder.fit(data.train.observation)
        if self._resumed is None:  # a checkpoint has the units already
            self.learned.fit_actions(data.train.action)
            if not self.policy.trained:
                self.policy.fit_actions(data.train.action)
        return optimizers

    def _share_normalizer(self) -> None:
        """Reward and policy see the observations through the same statistics, once the policy has its own."""
        own, its = self.policy.encoder.standardize, self.learned.features.encoder.standardize
        if own is not None and its is not None and own.fitted:
            its.load_state_dict(own.state_dict())

    def past(self) -> list[Any]:
        """What of past rounds a checkpoint needs, of this process: tensors and primitives."""
        return []

    def resumed(self) -> list[Any] | None:
        """What `past` gave on this process when the checkpoint was written, if training goes on from one.

        Raises:
            ConfigError: the checkpoint is that of another number of processes.
        """
        if self._resumed is None:
            return None
        if len(self._resumed) != self.trainer.world_size:
            raise ConfigError(
                f"the checkpoint is that of {len(self._resumed)} processes; go on with as many, not "
                f"{self.trainer.world_size}"
            )
        mine: list[Any] = self._resumed[self.global_rank]
        return mine

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """As for every method; and the reward, by which `load_reward` builds it again, and what `past` gives."""
        checkpoint["reward"] = describe(self.learned)
        checkpoint["past"] = gather_to_first(self.past())
        super().on_save_checkpoint(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The inverse."""
        super().on_load_checkpoint(checkpoint)
        self._resumed = checkpoint["past"]
