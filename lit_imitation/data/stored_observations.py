"""Observations that stay on disk, read by row."""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from lit_imitation.data.checks import fit_part
from lit_imitation.data.columns import UNREADABLE, Array, Columns
from lit_imitation.data.episodes import Recording, Rows
from lit_imitation.errors import DemonstrationError, LitImitationError, MissingExtraError

PIECE = 2**23
"""Bytes that are read at once in a pass over all observations."""
NEARBY = 2**18
"""Bytes between two rows up to which it is faster to read these too than to read twice."""
MOST_NEARBY = 32
"""Largest number of rows for which this holds if they lie in the same chunk, which is unpacked at each reading."""
DAMAGED = (*UNREADABLE, TypeError, AttributeError, LookupError)
"""Exceptions of a file that was changed while it was read."""


class StoredRows:
    """Column of observations `[N, ...]` of one source, read when it is sliced.

    Every thread and process opens the source for itself, so that no handle is shared.

    Args:
        reopen: Opens the recording.
        recording: The recording, open.
        read: Reads all observations of a recording with the same keys as rows of one array.
    """

    def __init__(
        self,
        reopen: Callable[[], AbstractContextManager[Recording]],
        recording: Recording,
        read: Callable[[Recording], Array],
    ) -> None:
        self.source, self.names = recording.source, [episode.name for episode in recording.episodes]
        self.reopen, self.read = reopen, read
        self.ends = np.cumsum([episode.action.shape[0] for episode in recording.episodes])
        """`[episodes]`: row after the last one of each episode."""
        first = recording.episodes[0]
        row = read(recording._replace(episodes=[first.part(0, 1)]))
        self.shape: tuple[int, ...] = (int(self.ends[-1]), *row.shape[1:])
        self.dtype: np.dtype[Any] = row.dtype
        self.ndim = len(self.shape)
        largest = max(first.observation.values(), key=lambda rows: math.prod(rows.shape[1:]) * rows.dtype.itemsize)
        self.together = _rows_of_chunk(largest)
        """Number of rows of the largest observation that are stored together, so that one is not read by itself."""
        self._opened: dict[tuple[int, int], tuple[ExitStack, Recording]] = {}

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Size in memory."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def piece(self) -> int:
        """Number of rows that a pass over all of them reads at once."""
        return max(1, PIECE // (self.nbytes // len(self)))

    def __getitem__(self, rows: slice) -> Array:
        """Read rows `start` to `stop`, of one episode or several.

        Raises:
            DemonstrationError: They cannot be read, because the source is damaged, or has changed since it was opened.
        """
        start, stop, _ = rows.indices(len(self))
        first, last = (int(np.searchsorted(self.ends, row, "right")) for row in (start, max(stop - 1, start)))
        begins = np.append(0, self.ends)
        try:
            episodes = self._recording().episodes
            parts = [
                episodes[i].part(max(start - int(begins[i]), 0), min(stop, int(begins[i + 1])) - int(begins[i]))
                for i in range(first, last + 1)
            ]
            found = self.read(self._recording()._replace(episodes=parts, columns={}))
            if len(found) != stop - start:
                raise ValueError(f"{len(found)} rows instead of {stop - start}")
        except MissingExtraError:
            raise
        except (*DAMAGED, LitImitationError) as error:
            where = self.names[first] if first == last else f"{self.names[first]} to {self.names[last]}"
            raise DemonstrationError(
                f"{self.source}: the observations of {where} cannot be read ({type(error).__name__}: {error}). If the "
                "file was moved, changed, or cut after training began, restore it and resume the run"
            ) from error
        return found

    def _recording(self) -> Recording:
        """The recording, as this thread opened it."""
        key = os.getpid(), threading.get_ident()
        if key not in self._opened:
            stack = ExitStack()
            recording = stack.enter_context(self.reopen())
            lengths = np.diff(self.ends, prepend=0).tolist()
            if [episode.action.shape[0] for episode in recording.episodes] != lengths:
                stack.close()
                raise ValueError("it holds other episodes than before")
            self._opened[key] = stack, recording
            weakref.finalize(self, _close, os.getpid(), stack)
        return self._opened[key][1]

    def close(self) -> None:
        """Close what this process has opened."""
        for (process, _), (stack, _) in self._opened.items():
            _close(process, stack)
        self._opened = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": {}}


def _close(process: int, stack: ExitStack) -> None:
    """Close a recording in the process that opened it; a fork only has a copy of its handle."""
    if process == os.getpid():
        stack.close()


def _rows_of_chunk(rows: Rows) -> int:
    chunks = getattr(rows, "chunks", None)
    return int(chunks[0]) if chunks else 1


class StoredObservations:
    """Observations `[N, *obs]` of one or several sources on disk, read by row number as tensors that fit their space.

    Args:
        sources: Columns whose observations are `StoredRows`.
        space: Space of the observations.
    """

    def __init__(self, sources: Sequence[Columns], space: gymnasium.Space[Any]) -> None:
        self.sources, self.space = sources, space
        self.starts = np.cumsum([0, *(len(columns.arrays["observations"]) for columns in sources)])
        row = self.example()
        self.shape: tuple[int, ...] = row.shape[1:]
        self.dtype = torch.from_numpy(row).dtype
        self.together = max(rows.together for rows in self._stored)
        self._nearby = max(NEARBY // self.row_bytes, min(self.together, MOST_NEARBY), 1)

    @property
    def _stored(self) -> list[StoredRows]:
        return [columns.arrays["observations"] for columns in self.sources]  # type: ignore[misc]

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def row_bytes(self) -> int:
        """Size of one observation."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Size of all observations."""
        return len(self) * self.row_bytes

    def example(self) -> Array:
        """The first observation, `[1, *obs]`."""
        return self._slice(0, 1)

    def read(self, rows: Tensor, pinned: bool = False) -> Tensor:
        """Read observations `[..., *obs]` of row numbers `[...]`, in the order of the file.

        Rows nearby are read together. Values are checked as before training.

        Args:
            rows: Row numbers.
            pinned: Whether the result lies in memory from which a GPU copies without waiting.

        Raises:
            DemonstrationError: A row cannot be read, or has values that do not fit the space.
        """
        numbers = rows.reshape(-1).numpy()
        found = torch.empty((*rows.shape, *self.shape), dtype=self.dtype, pin_memory=pinned)
        flat = found.view(-1, *self.shape).numpy()
        order = np.argsort(numbers, kind="stable")
        ordered = numbers[order]
        source = np.searchsorted(self.starts, ordered, "right")
        apart = (np.diff(ordered) > self._nearby) | (np.diff(source) > 0)
        for part in np.split(np.arange(len(order)), np.flatnonzero(apart) + 1) if len(order) else []:
            for piece in self._pieces(ordered, part):
                first = int(ordered[piece[0]])
                flat[order[piece]] = self._slice(first, int(ordered[piece[-1]]) + 1)[ordered[piece] - first]
        return found

    def _pieces(self, ordered: Array, part: Array) -> Iterator[Array]:
        """Positions of nearby rows, cut so that little is in memory twice."""
        number = (ordered[part] - ordered[part[0]]) // max(1, PIECE // self.row_bytes)
        yield from np.split(part, np.flatnonzero(np.diff(number)) + 1)

    def _slice(self, start: int, stop: int) -> Array:
        """Rows `start` to `stop` of one source, checked and in the dtype and shape of the space."""
        number = int(np.searchsorted(self.starts, start, "right")) - 1
        offset = int(self.starts[number])
        return fit_part(self.sources[number], self.space, start - offset, stop - offset)

    def close(self) -> None:
        """Close the files that this process has opened."""
        for rows in self._stored:
            rows.close()


class StoredSelection:
    """Some of the observations on disk; iteration reads them as `[n, *obs]`, a bounded number at a time.

    Args:
        stored: All observations.
        rows: Row numbers `[N]`.
    """

    def __init__(self, stored: StoredObservations, rows: Tensor) -> None:
        self.stored, self.rows = stored, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Tensor]:
        for part in torch.split(self.rows, max(1, PIECE // self.stored.row_bytes)):
            yield self.stored.read(part)
