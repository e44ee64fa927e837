"""Reader of Hugging Face datasets in the layout of the `imitation` library."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from lit_imitation.data.columns import FLAT, UNREADABLE, Array, Columns, episode_ends, join, read_json, require_keys
from lit_imitation.errors import DemonstrationError, require
from lit_imitation.utils.files import expand_user
from lit_imitation.utils.integrity import check_file, check_within

NESTED = FLAT[:3]
"""Hugging Face layout of the `imitation` library: one row per trajectory."""


def read_hugging_face(source: str) -> Columns:
    """Read the columns of `hf:NAME` or `hf:DIRECTORY`."""
    name = source.removeprefix("hf:")
    path = expand_user(name)
    if path.is_dir():
        _check_saved(source, path)
    elif not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or path.exists():
        raise DemonstrationError(f"{source}: cannot be read as a Hugging Face dataset: neither a directory nor a name")
    datasets = require("datasets", "hf", source)
    try:
        data = datasets.load_from_disk(str(path)) if path.is_dir() else datasets.load_dataset(name, split="train")
        if isinstance(data, datasets.DatasetDict):
            require_keys(f"{source} (splits)", ["train"], data)
            data = data["train"]
        require_keys(source, NESTED, data.column_names)
        # Only these columns are decoded: `infos`, if present, holds objects as text.
        columns = [*NESTED, *(["rews"] if "rews" in data.column_names else [])]
        table = data.select_columns(columns).with_format("arrow")[:]
    except (*UNREADABLE, TypeError, AttributeError, LookupError, RecursionError) as error:
        raise DemonstrationError(
            f"{source}: cannot be read as a Hugging Face dataset ({error}). A directory must be one that "
            "save_to_disk wrote; any other name is looked up on the hub"
        ) from error
    steps, rows = {}, {}
    for key in ("obs", "acts", *(["rews"] if "rews" in columns else [])):
        column = table[key].combine_chunks()
        if not _is_list(column):
            raise DemonstrationError(f"{source}: '{key}' holds {column.type}; a list of steps is needed in each row")
        _no_nulls(source, key, column)
        steps[key] = column.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
        rows[key] = _dense(source, key, column.flatten())
    if "rews" not in rows:
        steps["rews"], rows["rews"] = steps["acts"], np.zeros(int(steps["acts"].sum()), np.float32)
    wrong = (steps["obs"] != steps["acts"] + 1) | (steps["rews"] != steps["acts"])
    if wrong.any():
        row = int(wrong.argmax())
        raise DemonstrationError(
            f"{source}: lengths differ: row {row} has {steps['obs'][row]} 'obs', {steps['acts'][row]} 'acts' and "
            f"{steps['rews'][row]} 'rews'; a trajectory has one more 'obs' than 'acts', and as many 'rews' as 'acts'"
        )
    terminal = table["terminal"].combine_chunks()
    _no_nulls(source, "terminal", terminal)
    ends = episode_ends(source, terminal.to_numpy(zero_copy_only=False), steps["acts"])
    return join(source, rows["obs"], rows["acts"], rows["rews"], steps["acts"], *ends)


def _check_saved(source: str, directory: Path) -> None:
    """Check that a directory of `save_to_disk` names only its own files, because all named files are opened.

    Raises:
        DemonstrationError: It names or links to other files.
    """
    splits = [directory]
    if (directory / "dataset_dict.json").exists():
        splits = [directory / name for name in _names(source, directory, "dataset_dict.json", "splits")]
    for split in splits:
        check_within(split, directory, DemonstrationError)
        if not (split / "state.json").exists():
            continue  # the library reports it
        for name in [*_names(source, split, "state.json", "_data_files"), "dataset_info.json"]:
            check_within(split / name, directory, DemonstrationError)
            check_file(split / name, DemonstrationError)


def _names(source: str, directory: Path, file: str, key: str) -> list[str]:
    """The list of file names under `key` in a JSON file, each a name without a path."""
    held = read_json(source, directory / file).get(key)
    names: list[str] = []
    for one in held if isinstance(held, list) else [None]:
        name = one.get("filename") if isinstance(one, dict) else one
        if not isinstance(name, str) or name in ("", ".", "..") or Path(name).name != name or "\\" in name:
            place = directory / file
            raise DemonstrationError(
                f"{source}: {place} names {name!r:.80} ('{key}'), which is not a file in this directory"
            )
        names.append(name)
    return names


def _is_list(array: Any) -> bool:
    return hasattr(array, "value_lengths")


def _no_nulls(source: str, key: str, array: Any) -> None:
    if array.null_count:
        row = array.is_null().to_numpy(zero_copy_only=False).argmax()
        raise DemonstrationError(f"{source}: '{key}', row {row} is empty (null)")


def _dense(source: str, key: str, array: Any) -> Array:
    """Arrow lists of equal lengths, nested to any depth, as `[N, ...]`."""
    array = getattr(array, "storage", array)
    if not _is_list(array):
        return np.array(array.to_numpy(zero_copy_only=False))
    _no_nulls(source, key, array)
    widths = array.value_lengths().to_numpy(zero_copy_only=False)
    if not len(widths):
        return np.zeros((0, 0))
    if (widths != widths[0]).any():
        row = int((widths != widths[0]).argmax())
        raise DemonstrationError(
            f"{source}: '{key}', row {row} overall has {widths[row]} columns, the first row has {widths[0]}"
        )
    inner = _dense(source, key, array.flatten())
    return inner.reshape(len(widths), widths[0], *inner.shape[1:])
