"""`RolloutDataModule`: rounds of the current policy, for methods that learn by interaction."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch.distributed as dist
from gymnasium.vector import VectorEnv
from lightning.pytorch.utilities import rank_zero_warn
from lightning_utilities.core.rank_zero import rank_zero_info

from lit_imitation.data.module import EnvironmentDataModule
from lit_imitation.envs import episode_limit
from lit_imitation.errors import ConfigError, LitImitationError, TrainingError
from lit_imitation.policies.base import Explorer
from lit_imitation.rollout import Round, rounds
from lit_imitation.utils.distributed import world_size
from lit_imitation.utils.ranges import check_at_least
from lit_imitation.utils.seeding import derive_seed

LIGHTNING_MAX_EPOCHS = 1000
"""Lightning's `max_epochs` when the user sets no limit; `env_steps` replaces it."""


class RolloutDataModule(EnvironmentDataModule):
    """Rounds `[time, env]` of the current policy in training environments, and environments for evaluation.

    Every epoch starts with a reset of all environments, seeded by seed, process and epoch. Checkpoints fall between
    epochs, so a resumed run continues exactly although most simulators cannot save their state. The episodes that are
    running at the end of an epoch are cut off, like truncated ones.

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
        check_at_least(
            "data", 1, env_steps=env_steps, steps_per_round=steps_per_round, rounds_per_epoch=rounds_per_epoch
        )
        self.env_steps, self.steps_per_round, self.rounds_per_epoch = env_steps, steps_per_round, rounds_per_epoch
        self._training_envs: VectorEnv[Any, Any, Any] | None = None
        self._max_epochs: int | None = None  # the Trainer's own limit, while `env_steps` replaces it

    def setup(self, stage: str) -> None:
        """Turn `env_steps` into epochs."""
        assert self.trainer is not None
        if stage != "fit":
            return
        world = self.trainer.world_size
        if self.num_envs % world:
            raise ConfigError(f"data.num_envs {self.num_envs} cannot be divided equally among {world} processes")
        if self.env_steps is not None and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._limit_epochs(self.env_steps)
        if (limit := episode_limit(self.env_id, **self.env_kwargs)) is not None:
            self.check_epoch(limit)

    def check_epoch(self, episode: int) -> None:
        """Warn if an epoch has fewer steps of each environment than an episode can have."""
        steps = self.rounds_per_epoch * self.steps_per_round
        if steps < episode:
            rank_zero_warn(
                f"an epoch is {steps} steps of each environment (data.rounds_per_epoch {self.rounds_per_epoch} times "
                f"data.steps_per_round {self.steps_per_round}), and then all are reset, but an episode takes up to "
                f"{episode} steps: the end of a long episode is never learned from. Set data.rounds_per_epoch to "
                f"{-(-episode // self.steps_per_round)} or more"
            )

    def _limit_epochs(self, env_steps: int) -> None:
        """Limit the run to `env_steps`; report which limit ends it if the Trainer has one too."""
        assert self.trainer is not None
        loop, per_round = self.trainer.fit_loop, self.steps_per_round * self.num_envs
        epochs = -(-env_steps // (self.rounds_per_epoch * per_round))
        given, max_steps = loop.max_epochs, loop.max_steps  # a Lightning step is a round
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
        """This process's training environments, kept open from one epoch to the next."""
        if self._training_envs is None:
            assert self.trainer is not None
            self._training_envs = self.make(self.num_envs // self.trainer.world_size, seed)
        return self._training_envs

    def teardown(self, stage: str) -> None:
        """Close the environments, and restore the Trainer's own limit."""
        super().teardown(stage)
        if stage == "fit" and self._max_epochs is not None and self.trainer is not None:
            self.trainer.fit_loop.max_epochs, self._max_epochs = self._max_epochs, None
        if self._training_envs is not None:
            self._training_envs.close()
            self._training_envs = None


class Rounds:
    """Loader of the rounds of one epoch."""

    def __init__(self, datamodule: RolloutDataModule) -> None:
        self.datamodule = datamodule

    def __len__(self) -> int:
        """Number of rounds in an epoch."""
        return self.datamodule.rounds_per_epoch

    def __iter__(self) -> Iterator[Round]:
        # A generator, because Lightning calls this more than once, and before it knows the epoch of a resumed run. The
        # code below runs only when the first round is requested.
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
    """Stop all processes if an environment of one failed; the others would wait for it forever."""
    failures: list[str | None] = [None] * world_size()
    dist.all_gather_object(failures, None if failure is None else str(failure))
    for process, text in enumerate(failures):
        if text is not None:
            raise TrainingError(f"process {process}: {text}") from failure
