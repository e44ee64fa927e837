"""Callback that writes the trajectories of `predict` to a demonstration file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch.distributed as dist
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning_utilities.core.rank_zero import rank_zero_info

from lit_imitation.data.columns import Metadata
from lit_imitation.data.demonstrations import Demonstrations, write_demonstrations
from lit_imitation.data.module import EnvironmentDataModule
from lit_imitation.transitions import Transitions


class TrajectoryWriter(BasePredictionWriter):
    """Writes the trajectories of `predict` on all processes to `DIR/trajectories.npz`.

    Without an environment these are the recorded trajectories with the policy's actions, without rewards.
    """

    def __init__(self) -> None:
        super().__init__(write_interval="epoch")

    def write_on_epoch_end(
        self, trainer: Trainer, pl_module: LightningModule, predictions: Any, batch_indices: Any
    ) -> None:
        """Gather the trajectories of all processes and write them."""
        shares: list[Transitions] = list(predictions)
        if trainer.world_size > 1:
            gathered: list[Any] = [None] * trainer.world_size
            dist.all_gather_object(gathered, shares)
            shares = [share for process in gathered for share in process]
        if not trainer.is_global_zero:
            return
        transitions = Transitions.concatenate(shares)
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, EnvironmentDataModule)
        metadata: Metadata = {"expert": f"checkpoint:{trainer.ckpt_path}", "seed": data.seed}
        metadata["deterministic"] = data.eval_deterministic
        if data.env_id:
            metadata["env_id"] = data.env_id
        returns = transitions.episode_returns()
        path = Path(trainer.default_root_dir) / "trajectories.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_demonstrations(path, Demonstrations(transitions, returns, metadata), data.observation_space)
        what = f"mean return {float(returns.mean()):.2f}" if data.env_id else "the policy's actions at recorded states"
        rank_zero_info(f"{len(returns)} trajectories, {what}: {path}")
