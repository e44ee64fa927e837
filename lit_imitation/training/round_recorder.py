"""`RoundRecorder`: keeps everything that a policy saw while it learned, for offline reinforcement learning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from lit_imitation.data.columns import Metadata
from lit_imitation.data.demonstration_module import DemonstrationDataModule
from lit_imitation.data.demonstrations import LEARNER, Demonstrations, write_demonstrations
from lit_imitation.errors import ConfigError
from lit_imitation.methods import RoundMethod
from lit_imitation.rollout import Round
from lit_imitation.transitions import Transitions
from lit_imitation.utils.arguments import TypeChecked

FOLDER = "rounds"
"""Folder of the files in a run's directory."""


class RoundRecorder(TypeChecked, Callback):
    """Writes the transitions of each epoch of rounds to `DIR/rounds/epoch_N_P.npz`, N the epoch and P the process.

    Actions are those that were executed, rewards those of the environment. Episodes that were running at the end of an
    epoch are cut off there, as they are in training. A resumed run writes its epochs again. As demonstrations,
    `data.demonstrations: DIR/rounds` reads them, and `lit-imitation collect --replay DIR` makes one file of them.
    """

    def __init__(self) -> None:
        self._rounds: list[Round] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that the method plays rounds."""
        if not isinstance(pl_module, RoundMethod):
            raise ConfigError(f"RoundRecorder records rounds, but {type(pl_module).__name__} plays none: leave it out")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget an epoch that was cut off."""
        self._rounds = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep a round."""
        assert isinstance(pl_module, RoundMethod)
        rollout = batch.rollout.clone(recurse=False)
        rollout.action = pl_module.policy.clip(rollout.action.flatten(0, 1)).view_as(rollout.action)
        self._rounds.append(Round(rollout.cpu(), batch.valid.cpu(), []))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the epoch."""
        if not self._rounds or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        assert isinstance(pl_module, RoundMethod)
        data = pl_module.datamodule
        transitions = in_order_of_time(self._rounds)
        metadata: Metadata = {"env_id": data.env_id, "expert": pl_module.method, "seed": data.seed, "returns": LEARNER}
        name = f"epoch_{trainer.current_epoch:06d}_{trainer.global_rank}.npz"
        write_demonstrations(
            Path(trainer.default_root_dir) / FOLDER / name,
            Demonstrations(transitions, transitions.episode_returns(), metadata),
            data.observation_space,
        )
        self._rounds = []


def in_order_of_time(rounds: list[Round]) -> Transitions:
    """Successive rounds `[time, env]` as one flat record `[N]`, one environment after another.

    What is running at the end is cut off.
    """
    names = ("observation", "action", "reward", "terminated", "truncated", "next_observation")
    valid = torch.cat([one.valid for one in rounds]).T
    columns: dict[str, Any] = {
        name: torch.cat([getattr(one.rollout, name) for one in rounds]).transpose(0, 1)[valid] for name in names
    }
    record = Transitions(**columns, batch_size=[int(valid.sum())])
    ends = valid.sum(1).cumsum(0) - 1
    record.truncated[ends] |= ~record.terminated[ends]
    return record


def recorded(directory: Path, steps: int | None = None) -> tuple[Demonstrations, Any]:
    """What a run with `RoundRecorder` saw, in the order of its epochs, and the space of its observations.

    Args:
        directory: The run's directory.
        steps: Transitions from the start of training on, up to the end of the trajectory that contains the last of
            them; by default all.

    Raises:
        ConfigError: There are no recorded rounds.
    """
    folder = directory / FOLDER
    if not any(folder.glob("epoch_*.npz")):
        raise ConfigError(
            f"{directory}: no rounds were recorded; train with --trainer.callbacks+=lit_imitation.RoundRecorder"
        )
    data = DemonstrationDataModule(demonstrations=str(folder), val_fraction=0.0)
    observation_space = data.observation_space
    demonstrations = data.load()
    if steps is not None and steps < len(demonstrations.transitions):
        count = int(demonstrations.transitions.episode_index()[steps - 1]) + 1
        chosen = torch.arange(count)
        demonstrations = demonstrations._replace(
            transitions=demonstrations.transitions.select_episodes(chosen),
            episode_returns=demonstrations.episode_returns[:count],
        )
    return demonstrations, observation_space
