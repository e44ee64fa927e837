"""Reader of LeRobot's folders, versions 2.1 (a parquet file per episode) and 3.0 (many episodes per file)."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lit_imitation.data.columns import Metadata, read_json, require_keys
from lit_imitation.data.episodes import Episode, Recording, Rows, Span, episode_flags
from lit_imitation.data.foreign_files import READ_VERSIONS, name_version
from lit_imitation.data.parquet_columns import EncodedImages, ParquetColumn, ParquetFile
from lit_imitation.data.video_frames import VideoFrames
from lit_imitation.errors import DemonstrationError, require
from lit_imitation.utils.integrity import check_file, check_within

NAMES = {"observation": "observation", "action": "action", "reward": "next.reward"}
REWARD, DONE, TRUNCATED = "next.reward", "next.done", "next.truncated"
LARGEST_TABLE = 2**28
"""Largest size, in bytes, of the table of episodes of version 2.1."""


def is_lerobot(path: Path) -> bool:
    """Whether a folder holds `meta/info.json` of a version that is read."""
    info = path / "meta/info.json"
    if not info.is_file():
        return False
    check_within(info, path, DemonstrationError)
    version = read_json(str(path), info).get("codebase_version")
    if version not in READ_VERSIONS:
        raise DemonstrationError(f"{path}: this is {name_version(str(version)[:20])}")
    return True


class _Place(NamedTuple):
    """Where an episode lies."""

    number: int
    length: int
    row: Mapping[str, Any]
    """Its row in the table of episodes."""


@contextmanager
def open_lerobot(source: str, path: Path) -> Iterator[Recording]:
    """Open `meta/info.json`, the table of episodes, and the parquet and video files that they name.

    Observations are the features whose names begin with `observation`, under their full names. An episode is terminated
    if its last row has `next.done` without `next.truncated`, and truncated otherwise. Parquet files are read by row
    group, images and videos when they are sliced.

    Args:
        source: Name of the source in messages.
        path: The folder.

    Raises:
        DemonstrationError: A file is missing, lies outside the folder, or lacks actions; a template, feature or length
            does not fit; or an image is stored as a path to another file.
        MissingExtraError: pyarrow is not installed.
    """
    require("pyarrow.parquet", "lerobot", source)
    info = read_json(source, path / "meta/info.json")
    features = info.get("features")
    if not isinstance(features, dict) or not all(isinstance(one, dict) for one in features.values()):
        raise DemonstrationError(f"{source}: 'features' of meta/info.json is not a table of features")
    require_keys(f"{source}: meta/info.json, features", ("action",), features)
    folder = _Folder(source, path, info, features)
    places = folder.episodes_2() if info["codebase_version"] == "v2.1" else folder.episodes_3()
    if not places:
        raise DemonstrationError(f"{source}: this LeRobot folder lists no episodes")
    faults = []
    for key, count in (("total_episodes", len(places)), ("total_frames", sum(one.length for one in places))):
        if key in info and info[key] != count:
            faults.append(f"meta/info.json: '{key}' is {info[key]!r:.40}, but the table of episodes has {count}")
    metadata: Metadata = {"robot_type": info["robot_type"][:80]} if isinstance(info.get("robot_type"), str) else {}
    kind = f"LeRobot {info['codebase_version']}"
    yield Recording(source, kind, [folder.episode(place) for place in places], metadata, NAMES, faults)


class _Folder:
    """Files of a dataset, each opened once.

    Args:
        source: Name of the source in messages.
        path: The folder.
        info: Content of `meta/info.json`.
        features: Its features.
    """

    def __init__(self, source: str, path: Path, info: Mapping[str, Any], features: Mapping[str, Any]) -> None:
        self.source, self.path, self.info, self.features = source, path, info, features
        self.version_2 = info["codebase_version"] == "v2.1"
        self.opened: dict[Path, ParquetFile] = {}
        self.starts: dict[Path, dict[int, tuple[int, int]]] = {}

    def episodes_2(self) -> list[_Place]:
        """Rows of `meta/episodes.jsonl`."""
        file = self.inside("meta/episodes.jsonl", LARGEST_TABLE)
        rows = []
        with file.open("rb") as lines:
            for number, line in enumerate(lines):
                try:
                    row = json.loads(line) if line.strip() else None
                except (ValueError, RecursionError) as error:
                    raise DemonstrationError(
                        f"{self.source}: {file}, line {number + 1} is not JSON ({error})"
                    ) from error
                if row is not None:
                    rows.append(row)
        return self.places(rows, file)

    def episodes_3(self) -> list[_Place]:
        """Rows of `meta/episodes/*/*.parquet`, without the statistics."""
        files = sorted((self.path / "meta/episodes").glob("*/*.parquet"))
        if not files:
            raise DemonstrationError(f"{self.source}: no table of episodes, meta/episodes/chunk-000/file-000.parquet")
        rows: list[Any] = []
        for file in files:
            table = self.parquet(self.inside(str(file.relative_to(self.path))))
            names = [name for name in table.names if not name.startswith(("stats/", "tasks"))]
            rows += table.read(names).to_pylist()
        return self.places(rows, self.path / "meta/episodes")

    def places(self, rows: list[Any], file: Path) -> list[_Place]:
        """Check the rows of the table of episodes, and sort them by number."""
        found: dict[int, _Place] = {}
        for row in rows:
            held = row if isinstance(row, dict) else {}
            number, length = held.get("episode_index"), held.get("length")
            if (
                not isinstance(number, int)
                or not isinstance(length, int)
                or not 0 <= min(number, length) <= max(number, length) < 2**40
                or number in found
            ):
                raise DemonstrationError(
                    f"{self.source}: {file} has an episode without 'episode_index' and 'length', or twice: {row!r:.80}"
                )
            found[number] = _Place(number, length, held)
        return [found[index] for index in sorted(found)]

    def episode(self, place: _Place) -> Episode:
        """One episode; only its flags are read."""
        file = self.inside(self.file("data_path", place, ""))
        start, stop = self.rows(file, place)
        held: dict[str, Rows] = {}
        for key, feature in self.features.items():
            if key not in ("action", REWARD, DONE, TRUNCATED) and not key.startswith("observation"):
                continue
            if feature.get("dtype") == "video":
                held[key] = self.video(key, place)
            else:
                held[key] = Span(self.column(file, key, feature), start, stop)
        last = slice(max(stop - start - 1, 0), None)
        done, cut = (key in held and bool(np.asarray(held.pop(key)[last]).any()) for key in (DONE, TRUNCATED))
        action, reward = held.pop("action"), held.pop(REWARD, None)
        return Episode(f"episode {place.number}", held, action, reward, *episode_flags(stop - start, done and not cut))

    def column(self, file: Path, key: str, feature: Mapping[str, Any]) -> Rows:
        """One feature of all rows of a parquet file."""
        table = self.parquet(file)
        if key not in table.names:
            raise DemonstrationError(f"{self.source}: {file} has no column '{key}', which meta/info.json lists")
        if feature.get("dtype") == "image":
            return EncodedImages(table, key, self.shape(key, feature))
        shape = feature.get("shape")
        if not isinstance(shape, list) or not all(type(n) is int and 0 < n < 2**32 for n in shape):
            raise DemonstrationError(f"{self.source}: the feature '{key}' has shape {shape!r:.80}; numbers are needed")
        return ParquetColumn(table, key, self.dtype(key, feature), () if shape == [1] else tuple(shape))

    def video(self, key: str, place: _Place) -> Rows:
        """Frames of one camera in one episode."""
        file = self.inside(self.file("video_path", place, key))
        fps = self.info.get("fps")
        start = place.row.get(f"videos/{key}/from_timestamp", 0.0)
        if not isinstance(fps, int | float) or not 0 < fps < 1e6 or not isinstance(start, int | float):
            raise DemonstrationError(f"{self.source}: 'fps' is {fps!r:.40} and '{key}' starts at {start!r:.40} seconds")
        return VideoFrames(
            self.source, file, self.shape(key, self.features[key]), place.length, float(start), float(fps)
        )

    def rows(self, file: Path, place: _Place) -> tuple[int, int]:
        """First row of an episode in its file, and the row after its last, by the column `episode_index`."""
        if file not in self.starts:
            column = ParquetColumn(self.parquet(file), "episode_index", np.dtype(np.int64), ())
            numbers = np.asarray(column[:]).reshape(-1)
            cuts = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)] if len(numbers) else [0]
            spans = [(int(numbers[a]), (a, b)) for a, b in itertools.pairwise(cuts)]
            self.starts[file] = dict(spans)
            if len(self.starts[file]) < len(spans):
                raise DemonstrationError(f"{self.source}: {file} holds an episode in several pieces ('episode_index')")
        span = self.starts[file].get(place.number)
        if span is None or span[1] - span[0] != place.length:
            found = "no rows" if span is None else f"{span[1] - span[0]} rows"
            raise DemonstrationError(
                f"{self.source}: lengths differ: {file} has {found} of episode {place.number}, but the table of "
                f"episodes says {place.length}"
            )
        return span

    def file(self, key: str, place: _Place, camera: str) -> str:
        """Path of an episode's file from the template `data_path` or `video_path`."""
        kind = f"videos/{camera}" if camera else "data"
        size = self.info.get("chunks_size", 1000)
        values: dict[str, Any] = {"video_key": camera, "episode_index": place.number}
        if self.version_2:
            values["episode_chunk"] = place.number // size if type(size) is int and size > 0 else 0
        else:
            values |= {name: place.row.get(f"{kind}/{name}") for name in ("chunk_index", "file_index")}
        template = self.info.get(key)
        if not isinstance(template, str):
            raise DemonstrationError(f"{self.source}: '{key}' of meta/info.json is {template!r:.80}; a path is needed")

        def fill(match: re.Match[str]) -> str:
            value, width = values.get(match[1]), match[2]
            if not isinstance(value, int if width else int | str) or isinstance(value, bool):
                raise DemonstrationError(f"{self.source}: '{key}' of meta/info.json: {match[0]} is {value!r:.40}")
            return f"{value:0{width}d}" if width else str(value)

        filled = re.sub(r"\{(\w+)(?::0(\d)d)?\}", fill, template)
        if re.search(r"[{}\\]|\.\.|^/|^~", filled):
            raise DemonstrationError(
                f"{self.source}: '{key}' of meta/info.json is {template[:80]!r}, which is not a path in this folder"
            )
        return filled

    def inside(self, name: str, largest: int | None = None) -> Path:
        """A regular file of this folder."""
        file = self.path / name
        check_within(file, self.path, DemonstrationError)
        return check_file(file, DemonstrationError, largest)

    def parquet(self, file: Path) -> ParquetFile:
        """An open parquet file."""
        if file not in self.opened:
            self.opened[file] = ParquetFile(self.source, file, keep=not self.version_2)
        return self.opened[file]

    def shape(self, key: str, feature: Mapping[str, Any]) -> tuple[int, int, int]:
        """`(height, width, channels)` of a camera, which `names` may list in another order."""
        shape, names = feature.get("shape"), feature.get("names")
        if not isinstance(shape, list) or len(shape) != 3 or not all(type(n) is int and 0 < n <= 2**14 for n in shape):
            raise DemonstrationError(
                f"{self.source}: the feature '{key}' has shape {shape!r:.80}; three numbers are needed"
            )
        first = isinstance(names, list) and str(names[0]).startswith("channel")
        return (shape[1], shape[2], shape[0]) if first else (shape[0], shape[1], shape[2])

    def dtype(self, key: str, feature: Mapping[str, Any]) -> np.dtype[Any]:
        """Type of a feature's numbers."""
        written = str(feature.get("dtype"))
        if not re.fullmatch(r"bool|u?int(8|16|32|64)|float(16|32|64)", written):
            raise DemonstrationError(f"{self.source}: the feature '{key}' holds {written[:40]}; numbers are needed")
        return np.dtype(written)
