"""`RoundMethod`: base class of methods that play rounds, with a learner (PPO or SAC) and a reward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from gymnasium import Space
from torch import Tensor
from torch.optim import Optimizer

from lit_imitation.data.imitation_module import ImitationDataModule
from lit_imitation.errors import ConfigError, TrainingError
from lit_imitation.methods.checkpoints import last_good, spaces_of
from lit_imitation.methods.data_checks import check_round_data
from lit_imitation.methods.method import Method
from lit_imitation.methods.round_checkpoints import RoundCheckpoints
from lit_imitation.methods.round_totals import RoundTotals
from lit_imitation.methods.starting_policy import StartingPolicy
from lit_imitation.methods.steps import count_steps, round_progress
from lit_imitation.methods.trainer_options import announce_compilation, log_every_round
from lit_imitation.optim.descent import Descent
from lit_imitation.policies import Policy, PolicyFactory
from lit_imitation.policies.base import Explorer
from lit_imitation.rewards import LearnableReward, RewardModel
from lit_imitation.rl import PPO, LearnerFactory
from lit_imitation.rollout import Round
from lit_imitation.transitions import Transitions


class RoundMethod(RoundCheckpoints, Method):
    """Plays rounds `[time, env]` with the current policy, rewards them, and lets a learner improve the policy.

    A subclass composes `training_step` from `relabel_rewards`, `update_learner` and `log_round`, and says in
    `build_reward` what pays. One that trains on demonstrations sets `needs_demonstrations`, and one that learns its
    reward from them `learns_reward` too.

    Args:
        learner: Builds the learner from the two spaces and the policy to improve; by default `PPO`.
        policy: Builds the policy; by default the learner's own choice.
        start: Directory or checkpoint of a policy to start from, such as a clone.
    """

    progress_bar_metrics = ("return_mean",)  # the held-out loss may rise as the policy improves
    saves_between_blocks = False
    optimization_option = "model.learner.optimization"
    needs_demonstrations: ClassVar[bool] = False
    """Whether it trains on demonstrations, which the DataModule then has to hold."""
    learns_reward: ClassVar[bool] = False
    """Whether it learns its reward: its inputs are then scaled to the demonstrations, and checkpoints hold it."""
    finite_metrics: ClassVar[tuple[str, ...]] = ("loss",)
    """Metrics of a round; training stops if one is not finite."""

    def __init__(
        self, learner: LearnerFactory | None = None, policy: PolicyFactory | None = None, start: str | None = None
    ) -> None:
        super().__init__(policy)
        self.start, self.starting_policy = start, StartingPolicy(policy, start)
        self._learner_factory: LearnerFactory = learner or PPO
        self.reward: RewardModel | None = None

    @property
    def demonstrations(self) -> ImitationDataModule:
        """DataModule that holds the demonstrations: `train` and `held_out`, `Transitions` `[N]` each."""
        assert isinstance(self.datamodule, ImitationDataModule)
        return self.datamodule

    def explorer(self) -> Explorer:
        """What acts in the rounds of an epoch, which starts with a reset of the environments."""
        self.learner.begin()
        return self.learner.explorer()

    def share_normalizer(self) -> None:
        """Let the reward see observations through the policy's statistics, once the policy has its own."""
        assert isinstance(self.reward, LearnableReward)
        own, its = self.policy.encoder, self.reward.features.encoder
        same = [len(one.standardize.mean) for one in own.inputs] == [len(one.standardize.mean) for one in its.inputs]
        if own.fitted and same:
            its.copy_statistics(own)

    def relabel_rewards(self, batch: Round) -> Round:
        """Return the round with the reward model's rewards; a learner that replays calls the model itself."""
        if self.reward is None or self.learner.replays:
            return batch
        rollout = batch.rollout.clone(recurse=False)
        with torch.no_grad():
            rollout.reward = self.reward.reward(batch.rollout)
        return batch._replace(rollout=rollout)

    def update_learner(self, batch: Round, demonstrations: Transitions | None = None) -> dict[str, Tensor]:
        """Improve the policy by a rewarded round.

        Args:
            batch: Round whose rewards the learner sees.
            demonstrations: Rewarded transitions `[N]` that make up half of every minibatch of a learner that replays,
                such as `SAC`, drawn in proportion to their weights.

        Returns:
            The learner's figures.

        Raises:
            ConfigError: There are demonstrations, and the learner learns from its current round only, as `PPO` does.
        """
        if demonstrations is not None and not self.learner.replays:
            raise ConfigError(
                f"{type(self).__name__} replays demonstrations, and {type(self.learner).__name__} learns from its "
                "current round only: set model.learner to lit_imitation.SAC"
            )
        if self.learner.demonstrations is not demonstrations:
            self.learner.demonstrations = demonstrations
        return self.learner.update(batch, round_progress(self.trainer))

    def log_round(self, batch: Round, metrics: dict[str, Tensor]) -> None:
        """Log the round, and count its steps over all processes.

        Raises:
            TrainingError: A metric in `finite_metrics` is NaN or infinite.
        """
        totals = RoundTotals.gather(batch, metrics, self.finite_metrics)
        self.env_steps += totals.env_steps
        if found := totals.find_nonfinite():
            raise TrainingError(
                f"the {found} after round {self.learner.rounds} ({self.env_steps} environment steps)\n"
                f"{last_good(self.trainer)}"
            )
        count_steps(self.trainer, 1)  # Lightning's `global_step`, and so `max_steps`, counts rounds
        metrics |= totals.episodes | {"env_steps": torch.tensor(float(self.env_steps))}
        self.log_dict({f"train/{name}": value for name, value in metrics.items()}, sync_dist=True)

    # Building

    def setup(self, stage: str) -> None:
        """Check the DataModule, and build."""
        if stage == "fit":
            check_round_data(self.datamodule, type(self).__name__, self.needs_demonstrations)
            log_every_round(self.trainer)
        self.configure_model()

    def configure_model(self) -> None:
        """Build reward, learner and policy once the spaces are known."""
        if hasattr(self, "policy") or not self.attached:
            return
        policy = self.starting_policy.make(self.datamodule)
        if self.starting_policy.error is None:
            with self.starting_policy.name_source_in_errors(policy):
                self.build(*self.datamodule.spaces, policy)

    def build(self, observation_space: Space[Any], action_space: Space[Any], policy: Policy | None) -> None:
        """Build the reward, and the learner around this policy."""
        if self.reward is None:
            self.reward = self.build_reward(observation_space, action_space)
        self.starting_policy.record(policy)
        self.learner = self._learner_factory(observation_space, action_space, policy)
        self.policy = self.learner.policy
        if self.reward is not None:
            self.learner.reward = self.reward.reward

    def build_reward(self, observation_space: Space[Any], action_space: Space[Any]) -> RewardModel | None:
        """Model of the reward; None for the environment's own."""
        return None

    def rebuild(self, checkpoint: dict[str, Any]) -> None:
        """Build learner and policy as they were at the start of the checkpoint's run."""
        self.build(*spaces_of(checkpoint), self.starting_policy.restore(checkpoint))

    def configure_optimizers(self) -> list[Optimizer]:
        """Return the learner's optimizers, and fit a learned reward's inputs and units to the demonstrations."""
        if self.starting_policy.error is not None:
            raise self.starting_policy.error
        optimizers = self.learner.optimizers()
        if self.learner.compile_gradient:
            announce_compilation()
        if self.learns_reward:
            assert isinstance(self.reward, LearnableReward)
            train, encoder = self.demonstrations.train, self.reward.features.encoder
            if not encoder.fitted:
                encoder.fit(train.observation)
            if self._past is None:  # a checkpoint has the units already
                self.reward.fit_actions(train.action)
                if not self.policy.trained:
                    self.policy.fit_actions(train.action)
        return optimizers

    @property
    def descents(self) -> Sequence[Descent]:
        """The learner's."""
        return self.learner.descents if hasattr(self, "learner") else []
