"""Rounds that a person labels: files to fill in, and labels read back."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from lit_imitation.data.columns import Metadata
from lit_imitation.data.demonstration_module import DemonstrationDataModule
from lit_imitation.data.demonstrations import LEARNER, read_demonstrations
from lit_imitation.methods.dagger.human_labels import HumanLabels, digest
from lit_imitation.transitions import Transitions


class LabelRequest(NamedTuple):
    """A round that waits for a person's labels."""

    instructions: str
    """What the person has to do before the run can continue."""
    digest: str
    """Digest of the states to label."""


def request_labels(
    human: HumanLabels, directory: Path, data: DemonstrationDataModule, states: Transitions, i: int, frames: Path | None
) -> LabelRequest:
    """Write the states of round `i` for labeling.

    Args:
        human: Writer of the files.
        directory: Directory of the run.
        data: DataModule of the run.
        states: States to label `[N]`.
        i: Number of the round.
        frames: Directory with images of the states, if they were rendered.
    """
    metadata: Metadata = {"env_id": data.env_id, "expert": "HumanLabels", "seed": data.seed, "round": i}
    metadata["returns"] = LEARNER
    folder = round_directory(directory, i)
    human.write(folder, states, metadata, frames)
    return LabelRequest(human.instructions(folder, directory, len(states), data.action_space), digest(states))


def read_labels(
    human: HumanLabels, directory: Path, data: DemonstrationDataModule, i: int, recorded: str | None
) -> tuple[Transitions, Tensor]:
    """The labeled states `[N]` of round `i`, and the learner's own actions `[N, *act]`.

    Args:
        human: Reader of the files.
        directory: Directory of the run.
        data: DataModule of the run.
        i: Number of the round.
        recorded: Digest of the states that were written.
    """
    folder = round_directory(directory, i)
    labeled = human.read(folder, *data.spaces, recorded)
    return labeled, read_demonstrations(str(folder / "states.npz"), *data.spaces).transitions.action


def round_directory(directory: Path, i: int) -> Path:
    """Directory of the files that a person gets and fills in for round `i`."""
    return directory / "to_label" / f"round_{i:03d}"
