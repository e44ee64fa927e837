"""Sources of demonstrations: one reader per format, the same columns from each, and no code run from any file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from lit_imitation.data.array_files import FORMATS, read_file
from lit_imitation.data.columns import UNREADABLE, Columns
from lit_imitation.data.episodes import Episode, Recording, Span, to_columns
from lit_imitation.data.foreign_files import name_file
from lit_imitation.data.hugging_face import read_hugging_face
from lit_imitation.data.keyed_files import NAMES, ONLY, is_keyed, is_plain, open_keyed
from lit_imitation.data.lerobot_datasets import is_lerobot, open_lerobot
from lit_imitation.data.minari_datasets import open_minari, read_minari
from lit_imitation.data.robomimic_files import is_robomimic, open_robomimic
from lit_imitation.data.zarr_stores import is_zarr, open_zarr
from lit_imitation.errors import DemonstrationError
from lit_imitation.utils.files import expand_user
from lit_imitation.utils.integrity import check_file
from lit_imitation.utils.trust import refuse_url

DAMAGED = (*UNREADABLE, TypeError, AttributeError, LookupError, RecursionError)
"""Exceptions that a reader's own checks may miss."""
Opener = Callable[[], AbstractContextManager[Recording]]


def read_columns(
    source: str,
    observation_space: gymnasium.Space[Any] | None = None,
    observation_keys: Sequence[str] | None = None,
    filter_key: str = "",
    *,
    successors: bool = True,
) -> Columns:
    """Read the columns of a file, a folder, `minari:ID` or `hf:NAME`.

    Args:
        source: Path or name of the source.
        observation_space: The environment's observation space, if there is one. If it was flattened from a Dict or
            Tuple, the dataset's observations are flattened as it says.
        observation_keys: Keys to read from observations that are dictionaries, in this order; see `to_columns`.
        filter_key: Filter key of a robomimic file.
        successors: Read the successors of observations with images.

    Raises:
        DemonstrationError: The source is missing, damaged, of another format than its name says, lacks a key, or has
            other observation keys than the environment.
        MissingExtraError: The source's library is not installed.
    """
    refuse_url(source, "demonstrations", DemonstrationError)
    path = expand_user(source.removeprefix("minari:").removeprefix("hf:"))
    try:
        opener = _structured(source, path, filter_key)
        if opener is None and source.startswith("minari:") and observation_keys is not None:
            opener = partial(open_minari, source)
        if opener is not None:
            with opener() as recording:
                return to_columns(recording, observation_space, observation_keys, successors=successors)
        columns = _read_plain(source, observation_space, successors)
    except DAMAGED as error:
        raise DemonstrationError(f"{source}: cannot be read ({type(error).__name__}: {error})") from error
    if observation_keys is not None:
        raise DemonstrationError(
            f"{source}: its observations are one array without keys: leave out data.observation_keys {observation_keys}"
        )
    return columns


def _read_plain(source: str, observation_space: gymnasium.Space[Any] | None, successors: bool = True) -> Columns:
    if source.startswith("minari:"):
        return read_minari(source, observation_space, successors=successors)
    return read_hugging_face(source) if source.startswith("hf:") else read_file(source)


def _structured(source: str, path: Path, filter_key: str, lenient: bool = False) -> Opener | None:
    """Reader of a source whose observations are dictionaries; None if they are one array, or it is no such source."""
    opener: Opener | None = None
    if source.startswith(("minari:", "hf:")) or not path.exists():
        return None
    if path.is_dir():
        if is_lerobot(path):
            opener = partial(open_lerobot, source, path)
        elif is_zarr(path):
            opener = partial(open_zarr, source, path)
    else:
        check_file(path, DemonstrationError)
        kind = FORMATS.get(path.suffix.lower())
        try:
            if path.suffix.lower() == ".zip" and is_zarr(path):
                opener = partial(open_zarr, source, path)
            elif kind is not None and _holds(kind, path):
                if kind == "hdf5" and is_robomimic(path):
                    return partial(open_robomimic, source, path, filter_key)
                if is_keyed(path, kind) and name_file(path) is None:
                    opener = partial(open_keyed, source, path, kind, lenient=lenient)
        except UNREADABLE:  # `read_file` says what is wrong
            return None
    if filter_key:
        raise DemonstrationError(f"{source}: data.filter_key {filter_key} is for robomimic files, and this is none")
    return opener


def _holds(kind: str, path: Path) -> bool:
    """Whether a file has the format that its name says."""
    with path.open("rb") as file:
        head = file.read(8)
    return head.startswith(b"PK") if kind == "npz" else head == b"\x89HDF\r\n\x1a\n"


def _plain(source: str, path: Path, lenient: bool) -> Opener | None:
    """Reader of D4RL's layout, complete or not, whose arrays stay on disk; None for other sources."""
    kind = FORMATS.get(path.suffix.lower()) if not source.startswith("hf:") and path.is_file() else None
    try:
        fits = kind is not None and _holds(kind, path) and is_plain(path, kind)
    except UNREADABLE:  # `read_file` says what is wrong
        return None
    return partial(open_keyed, source, path, kind, lenient=lenient) if kind is not None and fits else None


@contextmanager
def open_recording(source: str, filter_key: str = "", *, lenient: bool = False) -> Iterator[Recording]:
    """Open any source as a recording; observations without keys get the key `observations`.

    Args:
        source: Path or name of the source.
        filter_key: Filter key of a robomimic file.
        lenient: List missing keys of D4RL's layout among the faults instead of raising an error.

    Raises:
        DemonstrationError: The source is missing, damaged, or of another format than its name says.
        MissingExtraError: The source's library is not installed.
    """
    refuse_url(source, "demonstrations", DemonstrationError)
    path = expand_user(source.removeprefix("minari:").removeprefix("hf:"))
    try:
        opener = _structured(source, path, filter_key, lenient)
        if opener is None:
            opener = partial(open_minari, source) if source.startswith("minari:") else _plain(source, path, lenient)
        if opener is not None:
            with opener() as recording:
                yield recording
        else:
            yield from_columns(source, _read_plain(source, None))
    except DAMAGED as error:
        raise DemonstrationError(f"{source}: cannot be read ({type(error).__name__}: {error})") from error


def from_columns(source: str, columns: Columns) -> Recording:
    """Recording of columns in memory, with one observation."""
    arrays = columns.arrays
    done = arrays["terminals"].reshape(-1).astype(bool) | arrays["timeouts"].reshape(-1).astype(bool)
    ends = [*(np.flatnonzero(done[:-1]) + 1), len(done)] if len(done) else []
    episodes = []
    for index, (start, stop) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        spans = {key: Span(rows, int(start), int(stop)) for key, rows in arrays.items() if rows.shape[:1] == done.shape}
        if missing := [key for key in ("observations", "actions") if key not in spans]:
            raise DemonstrationError(
                f"{columns.where(missing[0], None)} has {len(arrays[missing[0]])} rows, but 'terminals' {len(done)}"
            )
        episodes.append(
            Episode(
                f"episode {index}",
                {ONLY: spans["observations"]},
                spans["actions"],
                spans.get("rewards"),
                np.asarray(spans["terminals"][:]).reshape(-1).astype(bool),
                np.asarray(spans["timeouts"][:]).reshape(-1).astype(bool),
                {ONLY: spans["next_observations"]} if "next_observations" in spans else {},
            )
        )
    kind = "Hugging Face dataset" if source.startswith("hf:") else "the imitation library's layout"
    return Recording(source, kind, episodes, columns.metadata, NAMES)
