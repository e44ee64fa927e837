"""Training examples whose observations are read from disk when they are indexed."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_imitation.data.stored_observations import StoredObservations
from lit_imitation.transitions import Transitions
from lit_imitation.windows import WindowedTransitions, Windows


class StreamedExamples:
    """Transitions or windows `[N]` in memory, with the row numbers of their observations on disk.

    Args:
        examples: Transitions or windows whose observations are row numbers.
        stored: The observations.
        target: Device of the examples that are handed over.
    """

    def __init__(
        self, examples: Transitions | WindowedTransitions, stored: StoredObservations, target: torch.device
    ) -> None:
        self.examples, self.stored, self.target = examples, stored, target

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def device(self) -> torch.device:
        """Device of the indices."""
        return torch.device("cpu")

    @property
    def example_bytes(self) -> int:
        """Size of the observations of one example."""
        windows = isinstance(self.examples, WindowedTransitions)
        return self.stored.row_bytes * (self.examples.size.observations if windows else 1)  # type: ignore[union-attr]

    def read(self, index: Tensor | slice) -> Transitions | Windows:
        """Examples `[...]` at `index: [...]`, in memory from which they are copied to the target without waiting."""
        found = self.examples[index]
        found.observation = self.stored.read(found.observation, pinned=self.target.type == "cuda")
        return found

    def __getitem__(self, index: Tensor | slice) -> Transitions | Windows:
        """Examples `[...]` at `index: [...]` on the target."""
        found = self.read(index)
        return found if self.target.type == "cpu" else found.to(self.target, non_blocking=True)
