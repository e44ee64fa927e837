"""`RoundMethod`: what methods share that play rounds: a learner (PPO or SAC), a reward, and their state."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from gymnasium import Space
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.optim import Optimizer

from lit_imitation.data.imitation_module import ImitationDataModule
from lit_imitation.data.rollout_module import RolloutDataModule
from lit_imitation.errors import ConfigError, TrainingError
from lit_imitation.experts.base import space_mismatch
from lit_imitation.methods.checkpoints import spaces_of
from lit_imitation.methods.method import Method
from lit_imitation.optim.descent import Descent
from lit_imitation.policies import Policy, PolicyFactory, load_policy
from lit_imitation.policies.base import Explorer
from lit_imitation.policies.checkpoints import check_weights, describe
from lit_imitation.rewards import LearnableReward, RewardModel
from lit_imitation.rl import PPO, LearnerFactory
from lit_imitation.rollout import Round
from lit_imitation.transitions import Transitions
from lit_imitation.utils.descriptions import Describable, build
from lit_imitation.utils.distributed import all_reduce, gather_to_first


class RoundMethod(Method):
    """Plays rounds `[time, env]` with the current policy, rewards them, and lets a learner improve the policy.

    A subclass composes `training_step` from `relabel_rewards`, `update_learner` and `log_round`, and says in
    `build_reward` what pays. One that trains on demonstrations sets `needs_demonstrations`, and one that learns its
    reward from them `learns_reward` too.

    Args:
        learner: Builds the learner from the two spaces and the policy to improve; by default `PPO`.
        policy: Builds the policy; by default the learner's own choice.
        start: Directory or checkpoint of a policy to start from, such as a clone.
    """

    shown = ("return_mean",)  # the held-out loss may rise as the policy improves
    saves_between_blocks = False
    optimization_option = "model.learner"
    needs_demonstrations: ClassVar[bool] = False
    """Whether it trains on demonstrations, which the DataModule then has to hold."""
    learns_reward: ClassVar[bool] = False
    """Whether it learns its reward: its inputs are then scaled to the demonstrations, and checkpoints hold it."""
    finite: ClassVar[tuple[str, ...]] = ("loss",)
    """Figures of a round that must be finite, or training stops."""

    def __init__(
        self, learner: LearnerFactory | None = None, policy: PolicyFactory | None = None, start: str | None = None
    ) -> None:
        super().__init__(policy)
        if policy is not None and start is not None:
            raise ConfigError("model.policy and model.start both say where the policy comes from; leave one out")
        self._given_policy, self.start = policy, start
        self._learner_factory: LearnerFactory = learner or PPO
        self.reward: RewardModel | None = None
        self._origin = {"given": False, "trained": False, "fitted": False, "fresh": False}
        self._unbuilt: ConfigError | None = None
        self._past: list[Any] | None = None

    # Building

    def configure_model(self) -> None:
        """Build reward, learner and policy once the spaces are known."""
        if hasattr(self, "policy") or not self.attached:
            return
        spaces = self.datamodule.spaces
        try:
            policy = self._starting_policy(*spaces)
        except ConfigError as error:  # a checkpoint of this run, about to be read, has what `start` had
            self._unbuilt = error
            return
        try:
            self.build(*spaces, policy)
        except ConfigError as error:
            if self.start is None or policy is None:
                raise
            raise ConfigError(f"model.start: {policy.source}; {error}") from error

    def build(self, observation_space: Space[Any], action_space: Space[Any], policy: Policy | None) -> None:
        """Build the reward, and the learner around this policy."""
        if self.reward is None:
            self.reward = self.build_reward(observation_space, action_space)
        if policy is not None:
            standardize = policy.encoder.standardize
            fitted = standardize is not None and standardize.fitted
            self._origin = {"given": True, "trained": policy.trained, "fitted": fitted, "fresh": policy.fresh}
        self.learner = self._learner_factory(observation_space, action_space, policy)
        self.policy = self.learner.policy
        if self.reward is not None:
            self.learner.reward = self.reward.reward

    def build_reward(self, observation_space: Space[Any], action_space: Space[Any]) -> RewardModel | None:
        """Model of the reward; None for the environment's own."""
        return None

    def _starting_policy(self, observation_space: Space[Any], action_space: Space[Any]) -> Policy | None:
        if self.start is None:
            if self._given_policy is None:
                return None
            policy = self._given_policy(observation_space, action_space)
            own = policy.encoder.standardize
            policy.fresh = not policy.trained and not (own is not None and own.fitted)
            return policy
        policy = load_policy(self.start).train()
        self.check_spaces(f"model.start: {policy.source}; it", (policy.observation_space, policy.action_space))
        return policy

    def check_spaces(self, what: str, made_for: tuple[Space[Any], Space[Any]]) -> None:
        """Refuse what comes from another run and does not fit this environment."""
        for one, given, bounds in zip(made_for, self.datamodule.spaces, (False, True), strict=True):
            if space_mismatch(one, given, bounds=bounds):
                raise ConfigError(f"{what} was made for {one}; {self.datamodule.env_id} has {given}")

    def setup(self, stage: str) -> None:
        """Check the DataModule, build, and have every round logged unless nothing is."""
        data, name = self.datamodule, type(self).__name__
        if stage == "fit" and self.needs_demonstrations and not isinstance(data, ImitationDataModule):
            raise ConfigError(
                f"{name} learns from demonstrations and rollouts; {type(data).__name__} has not both: use "
                "lit_imitation.ImitationDataModule"
            )
        self.configure_model()
        if stage != "fit":
            return
        if not isinstance(data, RolloutDataModule):
            raise ConfigError(f"{name} learns from rollouts; {type(data).__name__} gives none")
        if self.trainer.log_every_n_steps:  # type: ignore[attr-defined]
            self.trainer.log_every_n_steps = 1  # type: ignore[attr-defined]  # a step of Lightning's is a round here

    @property
    def demonstrations(self) -> ImitationDataModule:
        """DataModule of a method that needs demonstrations."""
        assert isinstance(self.datamodule, ImitationDataModule)
        return self.datamodule

    def configure_optimizers(self) -> list[Optimizer]:
        """The learner's; a learned reward takes its inputs' scale and the units of actions from the demonstrations."""
        if self._unbuilt is not None and not hasattr(self, "policy"):
            raise self._unbuilt
        optimizers = self.learner.optimizers()
        if self.learns_reward:
            assert isinstance(self.reward, LearnableReward)
            train, encoder = self.demonstrations.train, self.reward.features.encoder
            if encoder.standardize is not None and not encoder.standardize.fitted:
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

    # Acts of a round

    def explorer(self) -> Explorer:
        """What acts in the rounds of an epoch, which starts with a reset of the environments."""
        self.learner.begin()
        return self.learner.explorer()

    def share_normalizer(self) -> None:
        """Let the reward see observations through the policy's statistics, once the policy has its own."""
        assert isinstance(self.reward, LearnableReward)
        own, its = self.policy.encoder.standardize, self.reward.features.encoder.standardize
        if own is not None and its is not None and own.fitted:
            its.load_state_dict(own.state_dict())

    def relabel_rewards(self, batch: Round) -> Round:
        """The round with the rewards of the model, if there is one and the learner does not ask it by itself."""
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
        return self.learner.update(batch, self.progress)

    @property
    def progress(self) -> float:
        """Share of the training that is over, in [0, 1); 0 for a run without an end."""
        by_epochs = len(self.trainer.train_dataloader) * (self.trainer.max_epochs or -1)  # type: ignore[arg-type]
        rounds = min((limit for limit in (by_epochs, self.trainer.max_steps) if limit > 0), default=math.inf)
        return self.trainer.global_step / rounds

    def schedule_rate(self, descent: Descent) -> None:
        """Set the learning rate of the round by the schedule of a reward's or discriminator's optimizer."""
        if descent.optimization.varies:
            descent.set_rate(descent.learning_rate * descent.optimization.rate(self.progress, descent.taken))

    def log_round(self, batch: Round, metrics: dict[str, Tensor]) -> None:
        """Log the round, and count its steps over all processes.

        Raises:
            TrainingError: one of the figures in `finite` is not.
        """
        returns, lengths = ([float(episode[i]) for episode in batch.episodes] for i in (2, 1))
        counts = torch.tensor([sum(returns), sum(lengths), len(returns)], dtype=torch.float32, device=self.device)
        watched = {name: metrics.get(name, counts.new_zeros(())) for name in self.finite}
        steps = batch.valid.sum()[None]
        sums = all_reduce(torch.cat([counts, steps.float(), torch.stack(list(watched.values())).detach().float()]))
        total_return, total_length, episodes, steps, *found = sums.tolist()  # the round's one wait for the device
        self.env_steps += int(steps)
        for name, value in zip(watched, found, strict=True):
            if not math.isfinite(value):
                raise TrainingError(
                    f"the {name.replace('_', ' ')} is {value} after round {self.learner.rounds} ({self.env_steps} "
                    f"environment steps)\n{self.last_good()}"
                )
        self.count_steps(1)
        if episodes:
            metrics["return_mean"] = torch.tensor(total_return / episodes)
            metrics["length_mean"] = torch.tensor(total_length / episodes)
        metrics["env_steps"] = torch.tensor(float(self.env_steps))
        self.log_dict({f"train/{name}": value for name, value in metrics.items()}, sync_dist=True)

    def count_gradient_steps(self) -> int:
        """The learner's count."""
        return self.learner.gradient_steps

    def on_train_start(self) -> None:
        """Say why the first round takes longer where gradients are compiled."""
        super().on_train_start()
        if self.learner.compile_gradient:
            rank_zero_info(
                "compiling the gradients: the first round usually takes 20 to 60 seconds longer, during which the "
                "progress stays at 0 (--model.learner.compile false turns this off)"
            )

    # Checkpoints

    def past(self) -> list[Any]:
        """What of past rounds a checkpoint needs, of this process: tensors and primitives."""
        return []

    def resumed(self) -> list[Any] | None:
        """What `past` gave on this process when the checkpoint was written; None if training starts anew.

        Raises:
            ConfigError: the checkpoint is that of another number of processes.
        """
        if self._past is None:
            return None
        if len(self._past) != self.trainer.world_size:
            raise ConfigError(
                f"the checkpoint is that of {len(self._past)} processes; resume with {len(self._past)}, not "
                f"{self.trainer.world_size}"
            )
        mine: list[Any] = self._past[self.global_rank]
        return mine

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what the learner carries from round to round, and a learned reward with its past."""
        checkpoint["rounds"] = self.learner.rounds
        checkpoint["learner"] = self.learner.state()
        if self.learns_reward:
            checkpoint["reward"] = describe(self.reward)
        checkpoint["past"] = gather_to_first(self.past())
        super().on_save_checkpoint(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the state; if the policy to start from is missing, start from the checkpoint's."""
        if not hasattr(self, "policy") and self._unbuilt is not None:
            if "origin" not in checkpoint.get("method", {}):
                raise self._unbuilt
            self.rebuild(checkpoint)
        super().on_load_checkpoint(checkpoint)
        self.learner.rounds, self.learner.gradient_steps = checkpoint["rounds"], checkpoint["gradient_steps"]
        if self.attached and self.trainer.state.fn == "fit":  # a replay buffer is of no use elsewhere
            self.learner.load_state(checkpoint.get("learner", {}))
        self._past = checkpoint["past"]

    def parts(self) -> dict[str, Describable | None]:
        """Learner, reward by any name, and the policy if one was given."""
        learned = {"reward": self.reward, "discriminator": self.reward} if self.learns_reward else {}
        return super().parts() | {"learner": self.learner} | learned

    def description(self) -> dict[str, Any]:
        """Description of the method, with the state of the policy at the start."""
        return super().description() | {"origin": dict(self._origin)}

    def rebuild(self, checkpoint: dict[str, Any]) -> None:
        """Build learner and policy as they were at the start of the checkpoint's run."""
        spaces, origin, policy = spaces_of(checkpoint), checkpoint["method"]["origin"], None
        if self._given_policy is not None:
            policy = self._given_policy(*spaces)
        elif origin["given"]:
            policy = build(checkpoint["policy"], Policy, named=[self._given_policy])  # type: ignore[type-abstract]
        if policy is not None and origin["given"]:
            policy.trained, policy.fresh = origin["trained"], origin["fresh"]
            if origin["fitted"]:
                state = checkpoint["state_dict"]
                weights = {k.removeprefix("policy."): v for k, v in state.items() if k[:7] == "policy."}
                check_weights(weights, policy, "the checkpoint's policy")
                policy.load_state_dict(weights)
        self.build(*spaces, policy)
