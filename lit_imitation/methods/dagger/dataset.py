"""DAgger's dataset D: training and held-out splits that grow, and one demonstration file per round."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import torch
from lightning import Trainer

from lit_imitation.data.columns import Metadata
from lit_imitation.data.demonstration_module import DemonstrationDataModule
from lit_imitation.data.demonstrations import (
    LEARNER,
    Demonstrations,
    read_demonstrations,
    split,
    take,
    with_return,
    write_demonstrations,
)
from lit_imitation.errors import ConfigError
from lit_imitation.methods.dagger.records import RoundRecord
from lit_imitation.transitions import Transitions
from lit_imitation.utils.seeding import derive_seed


class Dataset:
    """D: the splits of the DataModule, and `DIR/dataset/round_003.npz` for each round.

    Args:
        trainer: Trainer of the run.
        data: DataModule whose splits grow.
        expert: Name of the expert in the metadata of the files.
    """

    def __init__(self, trainer: Trainer, data: DemonstrationDataModule, expert: str) -> None:
        self.trainer, self.data, self.expert = trainer, data, expert
        self.directory = Path(trainer.default_root_dir) / "dataset"

    def file(self, i: int) -> Path:
        """File of round `i`."""
        return self.directory / f"round_{i:03d}.npz"

    def sample_initial(self, episodes: int) -> None:
        """Keep this many of the demonstrations, drawn at random, for round 0."""
        data = self.data
        demonstrations = self._all()
        if episodes > len(demonstrations.episode_returns):
            raise ConfigError(
                f"DAggerCallback: initial_episodes is {episodes}, but there are "
                f"{len(demonstrations.episode_returns)} demonstrations; raise data.num_trajectories"
            )
        generator = torch.Generator().manual_seed(derive_seed(data.seed, "dagger", "initial"))
        train, held_out = split(take(demonstrations, episodes, generator), data.val_fraction, generator)
        device = data.train.device
        data.train, data.held_out = train.transitions.to(device), held_out.transitions.to(device)

    def start(self) -> int:
        """Write the demonstrations as round 0, and return their number of states.

        The dataset of an earlier run in this directory is renamed, so that no collected data are lost.
        """
        if self.trainer.is_global_zero and self.directory.is_dir() and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            names = (self.directory.with_name(f"dataset-{n}") for n in itertools.count(1))
            self.directory.rename(next(name for name in names if not name.exists()))
        demonstrations = self._all().transitions
        self._write(demonstrations, 0)
        return len(demonstrations)

    def add(self, labeled: Transitions, i: int) -> None:
        """D ← D ∪ the labeled states `[N]` of round `i`: write its file, and extend the splits."""
        if len(labeled):
            self._write(labeled, i)
            self._extend_splits(labeled, i)
        if self.trainer.is_global_zero:
            for partial in self.directory.glob(f"partial_{i:03d}_*.npz"):  # from an interrupted attempt
                partial.unlink()

    def restore(self, records: Sequence[RoundRecord]) -> None:
        """Extend the splits by the files of these rounds; the DataModule has loaded round 0."""
        for before, record in itertools.pairwise(records):
            i = record["round"]
            if record["dataset_size"] > before["dataset_size"]:  # a round without labels has no file
                self._extend_splits(read_demonstrations(str(self.file(i)), *self.data.spaces).transitions, i)

    def rescue(self, labeled: Transitions, i: int) -> str:
        """Save the labels of a round that failed; returns a sentence that names the file."""
        path = self.directory / f"partial_{i:03d}_{self.trainer.global_rank}.npz"
        self._write(labeled, i, path)
        return f"the {len(labeled)} labels of this round so far are in {path}"

    def _all(self) -> Demonstrations:
        transitions = Transitions.concatenate([self.data.train, self.data.held_out]).cpu()
        return Demonstrations(transitions, transitions.episode_returns(), {})

    def _extend_splits(self, labeled: Transitions, i: int) -> None:
        """Append a round to training and held-out split, in the fields that the demonstrations have."""
        data = self.data
        if data.train.weight is not None:
            labeled = labeled.clone(recurse=False)
            labeled.weight = torch.ones(len(labeled))
        generator = torch.Generator().manual_seed(derive_seed(data.seed, "dagger", "split", i))
        train, held_out = split(Demonstrations(labeled, labeled.episode_returns(), {}), data.val_fraction, generator)
        device = data.train.device
        data.train = Transitions.concatenate([data.train, train.transitions.to(device)])
        data.held_out = Transitions.concatenate([data.held_out, held_out.transitions.to(device)])

    def _write(self, labeled: Transitions, i: int, path: Path | None = None) -> None:
        # The first process writes the rounds; each process writes its own partial file.
        if self.trainer.fast_dev_run or (path is None and not self.trainer.is_global_zero):  # type: ignore[attr-defined]
            return
        data = self.data
        metadata: Metadata = {"env_id": data.env_id, "expert": self.expert, "seed": data.seed, "round": i}
        if i:
            metadata["returns"] = LEARNER
        metadata = with_return(metadata, data.expert_reference, data.eval_deterministic)
        demonstrations = Demonstrations(labeled, labeled.episode_returns(), metadata)
        write_demonstrations(path or self.file(i), demonstrations, data.observation_space)
