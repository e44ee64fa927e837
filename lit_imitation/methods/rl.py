"""Reinforcement learning: a learner under a reward, the environment's own or a model of one."""

from __future__ import annotations

import math
from typing import Any

import torch
from gymnasium import Space
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.optim import Optimizer

from lit_imitation.data.rollout_module import RolloutDataModule
from lit_imitation.errors import ConfigError, TrainingError
from lit_imitation.experts.base import space_mismatch
from lit_imitation.methods.base import ImitationModule
from lit_imitation.methods.checkpoints import spaces_of
from lit_imitation.policies import Policy, PolicyFactory, load_policy
from lit_imitation.policies.base import Explorer
from lit_imitation.policies.checkpoints import check_weights
from lit_imitation.rewards import AdversarialReward, LearnedReward, RewardModel, load_reward
from lit_imitation.rl import PPO, LearnerFactory
from lit_imitation.rollout import Round
from lit_imitation.utils.descriptions import Describable, build
from lit_imitation.utils.distributed import all_reduce
from lit_imitation.utils.precision import without_autocast

WATCHED = ("discriminator_loss", "discriminator_logit_expert", "discriminator_logit_learner", "reward_loss", "loss")
"""What a round may log that has to be finite."""


class RL(ImitationModule):
    """Maximize E_π[Σ_t γᵗ r(s_t, a_t)], round by round: play, reward, improve.

    The learner is how the policy improves, `PPO` or `SAC`; the reward is the environment's own unless a model of
    one is given. A policy that was trained before, by whatever method, is where it starts if one is named.

    Args:
        learner: builds the learner from the two spaces and the policy it shall improve; by default `PPO`. (No class
            stands as the default: the command line would hand its arguments on to another one, where names agree.)
        policy: builds the policy; by default the learner's own choice.
        reward: a model of the reward, in place of the environment's own; or directory or checkpoint of a run that
            learned one.
        start: directory or checkpoint of a policy to start from.
    """

    precisions = ("32-true", "bf16-mixed")  # the gradients of float16 would have to be scaled
    shown = ("return_mean",)  # held-out loss is not what these methods lower: it may rise as the policy improves

    def __init__(
        self,
        learner: LearnerFactory | None = None,
        policy: PolicyFactory | None = None,
        reward: RewardModel | str | None = None,
        start: str | None = None,
    ) -> None:
        super().__init__(policy)
        if policy is not None and start is not None:
            raise ConfigError("model.policy and model.start both say where the policy comes from; leave one out")
        self.automatic_optimization = False
        self._given_policy, self.start = policy, start
        self._learner_factory: LearnerFactory = learner or PPO
        self.reward: RewardModel | None = load_reward(reward) if isinstance(reward, str) else reward
        if isinstance(reward, str) and self.arguments.get("reward") == reward:  # described without the file
            self.arguments["reward"] = self.reward
        self._origin = {"given": False, "trained": False, "fitted": False, "fresh": False}
        self._unbuilt: ConfigError | None = None

    @property
    def method(self) -> str:
        """The learner's name."""
        return type(self.learner).__name__.lower()

    def configure_model(self) -> None:
        """Build learner and policy, once the spaces are known."""
        if hasattr(self, "policy") or self._trainer is None:
            return
        spaces = self.datamodule.spaces
        if isinstance(self.reward, LearnedReward):
            self._check_spaces(f"model.reward: {self.reward.source}; it", self.reward.spaces)
        try:
            policy = self._policy(*spaces)
        except ConfigError as error:  # a checkpoint of this run, about to be read, has what `start` had
            self._unbuilt = error
            return
        try:
            self.build(*spaces, policy)
        except ConfigError as error:
            if self.start is None or policy is None:
                raise
            raise ConfigError(f"model.start: {policy.source}; {error}") from error
        learned = self.reward.model if isinstance(self.reward, LearnedReward) else None
        if isinstance(learned, AdversarialReward) and learned.absorbing and learned.gamma != self.learner.gamma:
            raise ConfigError(
                f"model.reward pays for what comes after an end too, discounted by its gamma {learned.gamma}; "
                f"model.learner has gamma {self.learner.gamma}: give it the reward's"
            )

    def build(self, observation_space: Space[Any], action_space: Space[Any], policy: Policy | None) -> None:
        """The learner for these spaces, around this policy."""
        if policy is not None:
            standardize = policy.encoder.standardize
            fitted = standardize is not None and standardize.fitted
            self._origin = {"given": True, "trained": policy.trained, "fitted": fitted, "fresh": policy.fresh}
        self.learner = self._learner_factory(observation_space, action_space, policy)
        self.policy = self.learner.policy
        if self.reward is not None:
            self.learner.reward = self.reward.reward

    def parts(self) -> dict[str, Describable | None]:
        """Learner, and the policy if one was given."""
        return super().parts() | {"learner": self.learner}

    def description(self) -> dict[str, Any]:
        """As of every method, and what the learner made of its policy at the start depends on."""
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

    def _policy(self, observation_space: Space[Any], action_space: Space[Any]) -> Policy | None:
        """The policy to begin with, where somebody named one."""
        if self.start is None:
            if self._given_policy is None:
                return None
            policy = self._given_policy(observation_space, action_space)
            own = policy.encoder.standardize
            policy.fresh = not policy.trained and not (own is not None and own.fitted)
            return policy
        policy = load_policy(self.start).train()
        self._check_spaces(f"model.start: {policy.source}; it", (policy.observation_space, policy.action_space))
        return policy

    def _check_spaces(self, what: str, made_for: tuple[Space[Any], Space[Any]]) -> None:
        """What comes from another run must fit this one's environment."""
        for one, given, bounds in zip(made_for, self.datamodule.spaces, (False, True), strict=True):
            if space_mismatch(one, given, bounds=bounds):
                raise ConfigError(f"{what} was made for {one}; {self.datamodule.env_id} has {given}")

    def setup(self, stage: str) -> None:
        """Check what it takes to train, and have every round logged, unless nothing is."""
        super().setup(stage)
        self.configure_model()
        if stage != "fit":
            return
        if not isinstance(self.datamodule, RolloutDataModule):
            raise ConfigError(f"RL learns from rollouts; {type(self.datamodule).__name__} gives none")
        if self.trainer.log_every_n_steps:  # type: ignore[attr-defined]
            self.trainer.log_every_n_steps = 1  # type: ignore[attr-defined]  # a step of Lightning's is a round here

    def on_train_start(self) -> None:
        """Say why the first round takes longer where gradients are compiled."""
        super().on_train_start()
        if self.learner.compile_gradient:
            rank_zero_info(
                "compiling the gradients: the first round usually takes 20 to 60 seconds longer, during which the "
                "progress stays at 0 (--model.learner.compile false turns this off)"
            )

    def explorer(self) -> Explorer:
        """What acts in the rounds of an epoch, which starts with a reset of the environments."""
        self.learner.begin()
        return self.learner.explorer()

    @without_autocast
    def training_step(self, batch: Round, batch_idx: int) -> None:
        """One round `[time, env]`: reward it, improve the policy by it, log what came out."""
        learned, batch = self.rewarded(batch)
        # Without an end (`max_epochs: -1`) nothing is ever over, and nothing annealed.
        by_epochs = len(self.trainer.train_dataloader) * (self.trainer.max_epochs or -1)  # type: ignore[arg-type]
        rounds = min((limit for limit in (by_epochs, self.trainer.max_steps) if limit > 0), default=math.inf)
        logged = learned | self.learner.update(batch, self.trainer.global_step / rounds)
        self._count(batch, logged)
        self.log_dict({f"train/{name}": value for name, value in logged.items()}, sync_dist=True)

    def rewarded(self, batch: Round) -> tuple[dict[str, Tensor], Round]:
        """What to log, and the round with the rewards that the policy shall learn from."""
        if self.reward is None or self.learner.replays:  # which asks for them itself
            return {}, batch
        rollout = batch.rollout.clone(recurse=False)
        with torch.no_grad():
            rollout.reward = self.reward.reward(batch.rollout)
        return {}, batch._replace(rollout=rollout)

    def count_gradient_steps(self) -> int:
        """The learner's own count."""
        return self.learner.gradient_steps

    def configure_optimizers(self) -> list[Optimizer]:
        """The learner's."""
        if self._unbuilt is not None and not hasattr(self, "policy"):
            raise self._unbuilt
        return self.learner.optimizers()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Where the policy to start from is gone, take the checkpoint's."""
        if not hasattr(self, "policy") and self._unbuilt is not None:
            if "origin" not in checkpoint.get("method", {}):
                raise self._unbuilt
            self.rebuild(checkpoint)
        super().on_load_checkpoint(checkpoint)
        self.learner.rounds, self.learner.gradient_steps = checkpoint["rounds"], checkpoint["gradient_steps"]
        if self._trainer is not None and self._trainer.state.fn == "fit":  # a replay buffer is of no use elsewhere
            self.learner.load_state(checkpoint.get("learner", {}))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """As every method, and what the learner carries from one round to the next."""
        checkpoint["rounds"] = self.learner.rounds
        checkpoint["learner"] = self.learner.state()
        super().on_save_checkpoint(checkpoint)

    def _count(self, batch: Round, logged: dict[str, Tensor]) -> None:
        """Count the round's steps and episodes over all processes, and stop if the loss is no longer finite."""
        returns, lengths = ([float(episode[i]) for episode in batch.episodes] for i in (2, 1))
        counts = torch.tensor([sum(returns), sum(lengths), len(returns)], dtype=torch.float32, device=self.device)
        watched = {name: logged.get(name, counts.new_zeros(())) for name in WATCHED}
        steps = batch.valid.sum()[None]
        sums = all_reduce(torch.cat([counts, steps.float(), torch.stack(list(watched.values())).detach().float()]))
        # The learner's one wait for the device in a round.
        total_return, total_length, episodes, steps, *found = sums.tolist()
        self.env_steps += int(steps)
        for name, value in zip(watched, found, strict=True):
            if not math.isfinite(value):
                raise TrainingError(
                    f"the {name.replace('_', ' ')} is {value} after round {self.learner.rounds} ({self.env_steps} "
                    f"environment steps)\n{self._last_good()}"
                )
        # Lightning saves no checkpoint where no optimizer step was counted, and counts those of its own wrapper alone.
        progress = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        progress.increment_ready()
        progress.increment_completed()
        if episodes:
            logged["return_mean"] = torch.tensor(total_return / episodes)
            logged["length_mean"] = torch.tensor(total_length / episodes)
        logged["env_steps"] = torch.tensor(float(self.env_steps))
