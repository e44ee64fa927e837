"""`RolloutDataModule`: rounds of the current policy in its environments, for methods that learn from them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch.distributed as dist
from gymnasium.vector import VectorEnv
from lightning.pytorch.utilities import rank_zero_warn
from lightning_utilities.core.rank_zero import rank_zero_info

from lit_imitation.data.module import EnvironmentDataModule, check_at_least
from lit_imitation.envs import episode_limit
from lit_imitation.errors import ConfigError, LitImitationError, TrainingError
from lit_imitation.policies.base import Explorer
from lit_imitation.rollout import Round, rounds
from lit_imitation.utils.distributed import world_size
from lit_imitation.utils.seeding import derive_seed

LIGHTNING_MAX_EPOCHS = 1000
"""What Lightning puts for `max_epochs` where nobody set a limit: none beside `env_steps`."""


class RolloutDataModule(EnvironmentDataModule):
    """Rounds `[time, env]` of whatever policy the Trainer holds when they are played.

    Every epoch starts with a reset of all environments, seeded by seed, process and epoch. So a run goes on exactly
    from a checkpoint, which falls at an epoch's end, although most simulators cannot save their state; the episodes
    that run at that moment are cut, as `truncated` would cut them.

    Args:
        env_id: ID of a registered Gymnasium environment, or `module:Id-v0`.
        env_steps: Number of training steps over all environments, rounded up to whole epochs. If `trainer.max_epochs`
            or `trainer.max_steps` (one step is one round) is given too, the limit that is reached first ends the run.
            With `null`, only the trainer's limits count.
        steps_per_round: Steps of each environment between two updates.
        rounds_per_epoch: Rounds in one epoch. Validation and checkpoints fall between epochs.
        num_envs: Number of environments that step in parallel, over all processes.
        **environment: Arguments of `EnvironmentDataModule`.
    """

    def __init__(
        self,
        env_id: str,
        *,
        env_steps: int | None = None,
        steps_per_round: int = 256,
        rounds_per_epoch: int = 10,
        num_envs: int = 8,
        **environment: Any,
    ) -> None:
        super().__init__(env_id, num_envs=num_envs, **environment)
        check_at_least(1, env_steps=env_steps, steps_per_round=steps_per_round, rounds_per_epoch=rounds_per_epoch)
        self.env_steps, self.steps_per_round, self.rounds_per_epoch = env_steps, steps_per_round, rounds_per_epoch
        self._training_envs: VectorEnv[Any, Any, Any] | None = None
        self._max_epochs: int | None = None  # of the Trainer, while `env_steps` sets another

    def setup(self, stage: str) -> None:
        """Turn `env_steps` into epochs."""
        assert self.trainer is not None
        if stage != "fit":
            return
        world = self.trainer.world_size
        if self.num_envs % world:
            raise ConfigError(f"data.num_envs {self.num_envs} cannot be shared out equally over {world} processes")
        if self.env_steps is not None and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._limit_epochs(self.env_steps)
        if (limit := episode_limit(self.env_id, **self.env_kwargs)) is not None:
            self.check_epoch(limit)

    def check_epoch(self, episode: int) -> None:
        """Warn where an epoch ends before an episode of so many steps can."""
        steps = self.rounds_per_epoch * self.steps_per_round
        if steps < episode:
            rank_zero_warn(
                f"an epoch is {steps} steps of each environment (data.rounds_per_epoch {self.rounds_per_epoch} of "
                f"data.steps_per_round {self.steps_per_round}), after which all are reset, but an episode takes up to "
                f"{episode} steps: what comes later in it is never learned from. Set data.rounds_per_epoch to "
                f"{-(-episode // self.steps_per_round)} or more"
            )

    def _limit_epochs(self, env_steps: int) -> None:
        """End the run after `env_steps`, or where the Trainer does if that is earlier, and say so."""
        assert self.trainer is not None
        loop, per_round = self.trainer.fit_loop, self.steps_per_round * self.num_envs
        epochs = -(-env_steps // (self.rounds_per_epoch * per_round))
        given, max_steps = loop.max_epochs, loop.max_steps  # a step of Lightning's is a round here
        ends = {f"trainer.max_steps {max_steps}": max_steps} if max_steps >= 0 else {}
        if given is not None and given >= 0 and given != LIGHTNING_MAX_EPOCHS:
            ends[f"trainer.max_epochs {given}"] = given * self.rounds_per_epoch
            loop.max_epochs = min(epochs, given)
        else:
            loop.max_epochs = epochs
            if given == LIGHTNING_MAX_EPOCHS < epochs:
                rank_zero_info(
                    f"data.env_steps {env_steps} ends the run after {epochs} epochs; trainer.max_epochs {given}, "
                    "Lightning's default, does not"
                )
        self._max_epochs = given
        first = min(ends, key=ends.__getitem__, default="")
        if ends and ends[first] < epochs * self.rounds_per_epoch:
            rank_zero_info(
                f"{first} ends the run after {ends[first] * per_round} environment steps, before data.env_steps "
                f"{env_steps}; leave it out to train for all of them"
            )

    def train_dataloader(self) -> Rounds:
        """The rounds of one epoch."""
        return Rounds(self)

    def training_envs(self, seed: int) -> VectorEnv[Any, Any, Any]:
        """This process's environments, kept open from one epoch to the next."""
        if self._training_envs is None:
            assert self.trainer is not None
            self._training_envs = self.make(self.num_envs // self.trainer.world_size, seed)
        return self._training_envs

    def teardown(self, stage: str) -> None:
        """Close the environments, and leave the Trainer its own limit."""
        super().teardown(stage)
        if stage == "fit" and self._max_epochs is not None and self.trainer is not None:
            self.trainer.fit_loop.max_epochs, self._max_epochs = self._max_epochs, None
        if self._training_envs is not None:
            self._training_envs.close()
            self._training_envs = None


class Rounds:
    """A loader of the rounds of one epoch."""

    def __init__(self, datamodule: RolloutDataModule) -> None:
        self.datamodule = datamodule

    def __len__(self) -> int:
        """Rounds of an epoch."""
        return self.datamodule.rounds_per_epoch

    def __iter__(self) -> Iterator[Round]:
        # A generator: Lightning asks for the iterator more than once, and before it knows the epoch of a resumed run;
        # what is here runs when the first round is asked for.
        data, trainer = self.datamodule, self.datamodule.trainer
        assert trainer is not None
        seed = derive_seed(data.seed, "rounds", trainer.global_rank, trainer.current_epoch)
        explorer: Explorer = trainer.lightning_module.explorer()  # type: ignore[operator]
        envs = data.training_envs(seed)
        played = rounds(envs, explorer, explorer.drawn, data.steps_per_round, len(self), seed)
        for _ in range(len(self)):
            failure: LitImitationError | None = None
            try:
                one = next(played)
            except LitImitationError as error:
                failure = error
            if world_size() > 1:
                _agree(failure)
            if failure is not None:
                raise failure
            yield one


def _agree(failure: LitImitationError | None) -> None:
    """Stop on all processes if an environment of any failed: the others would wait for it for ever."""
    failures: list[str | None] = [None] * world_size()
    dist.all_gather_object(failures, None if failure is None else str(failure))
    for process, text in enumerate(failures):
        if text is not None:
            raise TrainingError(f"process {process}: {text}") from failure
