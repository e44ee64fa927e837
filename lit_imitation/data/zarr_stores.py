"""Reader of Diffusion Policy's zarr stores (Chi et al. 2023, arXiv:2303.04137): its `ReplayBuffer` on disk, zarr v2."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lit_imitation.data.columns import LARGEST_JSON, Array, require_keys
from lit_imitation.data.episodes import Episode, Recording, Rows, Span, episode_flags
from lit_imitation.errors import DemonstrationError, require
from lit_imitation.utils.integrity import FREE_BYTES, MAX_RATIO, check_file, check_within

FORMAT = "Diffusion Policy zarr"
NAMES = {"observation": "data", "action": "data/action", "reward": "data/reward"}
ACTIONS, REWARDS = ("action", "actions"), ("reward", "rewards")
ENDS = "meta/episode_ends"
COMPRESSORS = ("blosc", "zstd", "lz4", "zlib", "gzip")
"""Compressors that are decoded. The first three write the size of their output into each chunk, where it is checked;
that of zlib and gzip is bounded by the size of the chunk."""
MOST_CHUNKS = 10**7
"""Largest number of chunks of an array."""


def is_zarr(path: Path) -> bool:
    """Whether a folder or `.zip` file is a zarr v2 store with `data` and `meta/episode_ends`."""
    if path.is_dir():
        return (path / ENDS / ".zarray").exists()
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return f"{ENDS}/.zarray" in archive.namelist()


@contextmanager
def open_zarr(source: str, path: Path) -> Iterator[Recording]:
    """Open `data/<key>` `[N, ...]` and `meta/episode_ends`, the row after the last one of each episode.

    `data/action` holds the actions, `data/reward` the rewards if there are any, and all other keys observations. The
    layout does not say how an episode ended, so all are truncated.

    Args:
        source: Name of the source in messages.
        path: A folder, or a `.zarr.zip` file.

    Raises:
        DemonstrationError: The store lacks actions or ends, points outside, holds objects, is compressed by another
            codec, or declares more than its files can hold.
        MissingExtraError: zarr is not installed.
    """
    zarr = require("zarr", "zarr", source)
    files = _Files(path)
    keys = [name.removesuffix("/.zarray") for name in files.sizes if name.endswith("/.zarray")]
    arrays = [key for key in keys if key == ENDS or (key.startswith("data/") and key.count("/") == 1)]
    for key in arrays:
        _check_array(source, files, key)
    require_keys(source, ("data/action", ENDS), ["data/action" if key[5:] in ACTIONS else key for key in arrays])
    store = zarr.storage.ZipStore(path, mode="r") if path.is_file() else zarr.storage.LocalStore(path, read_only=True)
    try:
        held = {key: zarr.open_array(store, path=key, mode="r", zarr_format=2) for key in arrays}
        yield _recording(source, held)
    finally:
        store.close()


class _Files:
    """Names, sizes and first bytes of the files of a store.

    Args:
        path: A folder, or a zip file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.is_dir():
            for file in path.rglob("*"):
                check_within(file, path, DemonstrationError)
                if not file.is_dir():
                    check_file(file, DemonstrationError)
            found = (file for file in path.rglob("*") if file.is_file())
            self.sizes = {file.relative_to(path).as_posix(): file.stat().st_size for file in found}
            return
        check_file(path, DemonstrationError)
        with zipfile.ZipFile(path) as archive:
            self.sizes = {member.filename: member.file_size for member in archive.infolist()}
        total = path.stat().st_size
        if sum(self.sizes.values()) > max(MAX_RATIO * total, FREE_BYTES):
            raise DemonstrationError(f"{path}: its content would take more than {MAX_RATIO} times its {total:,} bytes")

    def heads(self, names: list[str], count: int) -> Iterator[bytes]:
        """First `count` bytes of each file."""
        if self.path.is_dir():
            for name in names:
                with (self.path / name).open("rb") as file:
                    yield file.read(count)
            return
        with zipfile.ZipFile(self.path) as archive:
            for name in names:
                with archive.open(name) as member:
                    yield member.read(count)


class _Layout(NamedTuple):
    """Checked content of a `.zarray` file."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]
    compressor: str


def _layout(source: str, files: _Files, key: str) -> _Layout:
    place = f"{source}: '{key}'"
    (text,) = files.heads([f"{key}/.zarray"], LARGEST_JSON)
    try:
        held = json.loads(text)
        shape, chunks = tuple(held["shape"]), tuple(held["chunks"])
        compressor, filters, written = held["compressor"], held.get("filters"), held["dtype"]
        name = "none" if compressor is None else compressor["id"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DemonstrationError(f"{place}: .zarray does not describe a zarr v2 array ({error!r:.200})") from error
    if not isinstance(written, str) or np.dtype(written if len(written) < 10 else "O").kind not in "biuf":
        raise DemonstrationError(f"{place} holds {written!r:.80}; numbers are needed, and objects are never opened")
    if name not in ("none", *COMPRESSORS) or filters:
        used = f"filters {filters!r:.80}" if filters else f"the codec {name!r:.40}"
        raise DemonstrationError(
            f"{place} is written with {used}, which is not read: write it with one of {', '.join(COMPRESSORS)}"
        )
    numbers = (*shape, *chunks)
    if not shape or len(shape) != len(chunks) or not all(type(n) is int and 0 <= n < 2**48 for n in numbers):
        raise DemonstrationError(f"{place} has shape {shape!r:.80} and chunks {chunks!r:.80}; whole numbers are needed")
    if not all(chunks) or math.prod(-(-n // c) for n, c in zip(shape, chunks, strict=True)) > MOST_CHUNKS:
        raise DemonstrationError(f"{place} has shape {list(shape)} in chunks of {list(chunks)}, which is not plausible")
    return _Layout(shape, chunks, np.dtype(written), name)


def _check_array(source: str, files: _Files, key: str) -> None:
    """Check that every chunk unpacks to the size that `.zarray` declares, before memory is allocated."""
    layout = _layout(source, files, key)
    chunks = [
        name for name in files.sizes if name.startswith(f"{key}/") and not name.rpartition("/")[2].startswith(".")
    ]
    size = math.prod(layout.chunks) * layout.dtype.itemsize
    declared = max(math.prod(layout.shape) * layout.dtype.itemsize, size)
    stored = sum(files.sizes[name] for name in chunks)
    if declared > FREE_BYTES and declared > MAX_RATIO * stored:
        raise DemonstrationError(
            f"{source}: '{key}' {list(layout.shape)} would take {declared:,} bytes, but its files have {stored:,}"
        )
    for name, head in zip(chunks, files.heads(chunks, 18), strict=True):
        unpacked = _unpacked_size(layout.compressor, head, files.sizes[name])
        if unpacked != size if unpacked is not None else files.sizes[name] > 2 * size + 2**16:
            raise DemonstrationError(
                f"{source}: the chunk {name} has {files.sizes[name]:,} bytes that unpack to {unpacked}, not to {size:,}"
            )


def _unpacked_size(compressor: str, head: bytes, size: int) -> int | None:
    """Bytes that a chunk unpacks to, from its header; None if the codec writes no size."""
    if compressor == "none":
        return size
    if compressor == "blosc":
        return int.from_bytes(head[4:8], "little")
    if compressor == "lz4":
        return int.from_bytes(head[:4], "little")
    if compressor == "zstd" and head[:4] == b"\x28\xb5\x2f\xfd":
        kind, single, names = head[4] >> 6, head[4] >> 5 & 1, (0, 1, 2, 4)[head[4] & 3]
        width = (single, 2, 4, 8)[kind]
        start = 5 + (1 - single) + names
        return int.from_bytes(head[start : start + width], "little") + (256 if kind == 1 else 0) if width else -1
    return None if compressor in ("zlib", "gzip") else -1


def _recording(source: str, held: dict[str, Rows]) -> Recording:
    ends = np.asarray(held.pop(ENDS)[:])
    if ends.ndim != 1 or ends.dtype.kind not in "iu" or not len(ends):
        raise DemonstrationError(f"{source}: '{ENDS}' holds {ends.dtype} {list(ends.shape)}; a list of rows is needed")
    ends = ends.astype(np.int64)
    if (np.diff(ends, prepend=0) <= 0).any():
        row = int((np.diff(ends, prepend=0) <= 0).argmax())
        raise DemonstrationError(
            f"{source}: '{ENDS}', row {row} is {ends[row]}: the ends of episodes must increase from 1"
        )
    arrays = {key.removeprefix("data/"): rows for key, rows in held.items()}
    action = next(arrays.pop(key) for key in ACTIONS if key in arrays)
    reward = next((arrays.pop(key) for key in REWARDS if key in arrays), None)
    faults = []
    for name, rows in [("action", action), *arrays.items(), *([("reward", reward)] if reward is not None else [])]:
        if rows.shape[0] < ends[-1]:
            raise DemonstrationError(
                f"{source}: lengths differ: 'data/{name}' has {rows.shape[0]} rows, but '{ENDS}' ends at {ends[-1]}"
            )
        if rows.shape[0] > ends[-1]:
            faults.append(
                f"'data/{name}' has {rows.shape[0] - ends[-1]} rows after the last episode, which are not read"
            )
    return Recording(
        source, FORMAT, [_episode(i, arrays, action, reward, ends) for i in range(len(ends))], {}, NAMES, faults
    )


def _episode(index: int, arrays: dict[str, Rows], action: Rows, reward: Rows | None, ends: Array) -> Episode:
    start, stop = int(ends[index - 1]) if index else 0, int(ends[index])
    return Episode(
        f"episode {index}",
        {key: Span(rows, start, stop) for key, rows in arrays.items()},
        Span(action, start, stop),
        None if reward is None else Span(reward, start, stop),
        *episode_flags(stop - start, terminated=False),
    )
