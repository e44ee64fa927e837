"""Reader of robomimic's HDF5 files (Mandlekar et al. 2021, arXiv:2108.03298)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lit_imitation.data.array_files import check_tree, hdf5_group
from lit_imitation.data.columns import LARGEST_JSON, Metadata
from lit_imitation.data.episodes import Episode, Recording, episode_flags
from lit_imitation.errors import DemonstrationError

FORMAT = "robomimic HDF5"
NAMES = {"observation": "obs", "next_observation": "next_obs", "action": "actions", "reward": "rewards"}


def is_robomimic(path: Path) -> bool:
    """Whether an HDF5 file has robomimic's layout: a group `data` with `demo_0`, or with its attributes."""
    import h5py

    with h5py.File(path, "r") as file:
        if not isinstance(file.get("data", getlink=True), h5py.HardLink) or not isinstance(file["data"], h5py.Group):
            return False
        data = file["data"]
        return "env_args" in data.attrs or any(re.fullmatch(r"demo_\d+", name) for name in data.keys())  # noqa: SIM118


@contextmanager
def open_robomimic(source: str, path: Path, filter_key: str = "") -> Iterator[Recording]:
    """Open `data/demo_<i>/{obs/<key>, actions, rewards, dones, next_obs/<key>}`, in the order of the numbers.

    An episode is terminated if its last `dones` is 1, and truncated otherwise. A 1 in an earlier row marks a success
    after which the demonstration went on; it does not end the episode.

    Args:
        source: Name of the source in messages.
        path: The file.
        filter_key: Read only the demonstrations that `mask/<filter_key>` lists; empty for all.

    Raises:
        DemonstrationError: The file lacks demonstrations, actions, observations, or the filter key, or holds links or
            data in other files.
    """
    import h5py

    check_tree(source, path)
    with h5py.File(path, "r") as file:
        data = file["data"]
        names = sorted((name for name in data if re.fullmatch(r"demo_\d+", name)), key=lambda name: int(name[5:]))
        if not names:
            raise DemonstrationError(f"{source}: this is a robomimic file without demonstrations (data/demo_0, …)")
        masks = sorted(file["mask"]) if isinstance(file.get("mask"), h5py.Group) else []
        if filter_key:
            names = _masked(source, file, filter_key, masks, names)
        faults: list[str] = []
        episodes = [_episode(source, data, name, faults) for name in names]
        total, steps = data.attrs.get("total"), sum(len(episode.terminated) for episode in episodes)
        if total is not None and not filter_key and _whole(total) != steps:
            faults.append(f"attribute 'total' of 'data' is {total}, but the demonstrations hold {steps} steps")
        metadata = _metadata(data, faults)
        if filter_key:
            metadata["filter_key"] = filter_key
        elif masks:
            metadata["filter_keys"] = ", ".join(masks)[:200]
        yield Recording(source, FORMAT, episodes, metadata, NAMES, faults, action_limit=1.0)


def _masked(source: str, file: Any, filter_key: str, masks: list[str], names: list[str]) -> list[str]:
    """Those names of demonstrations that a filter key lists."""
    if filter_key not in masks:
        raise DemonstrationError(
            f"{source}: has no filter key mask/{filter_key}, which data.filter_key names; found "
            f"{', '.join(masks) or 'none'}"
        )
    listed = file["mask"][filter_key]
    if getattr(listed, "ndim", 0) != 1 or listed.dtype.kind != "S":
        raise DemonstrationError(f"{source}: 'mask/{filter_key}' is not a list of names of fixed length")
    chosen = {name.decode("utf-8", "replace") for name in listed[:]}
    if unknown := sorted(chosen - set(names)):
        raise DemonstrationError(f"{source}: 'mask/{filter_key}' names {unknown[0]:.40}, which is not in 'data'")
    if not chosen:
        raise DemonstrationError(f"{source}: 'mask/{filter_key}' names no demonstrations")
    return [name for name in names if name in chosen]


def _episode(source: str, data: Any, name: str, faults: list[str]) -> Episode:
    import h5py

    demo, place = data[name], f"data/{name}"
    held = list(demo) if isinstance(demo, h5py.Group) else []
    if "actions" not in held:
        raise DemonstrationError(
            f"{source}: this is a robomimic file without actions: '{place}' has only {', '.join(held) or 'nothing'}"
        )
    if "obs" not in held:
        raise DemonstrationError(
            f"{source}: this is a robomimic file without observations ('{place}/obs'): make them with robomimic's "
            "dataset_states_to_obs.py"
        )
    for key in ("actions", "rewards", "dones"):
        if key in held and (not isinstance(demo[key], h5py.Dataset) or not demo[key].shape):
            raise DemonstrationError(f"{source}: '{place}/{key}' is not a list of rows")
        if key in held and demo[key].dtype.kind not in "biuf":
            raise DemonstrationError(f"{source}: '{place}/{key}' holds {demo[key].dtype}; numbers are needed")
    length = len(demo["actions"])
    done = "dones" in held and bool(np.asarray(demo["dones"][-1:]).any())
    told = demo.attrs.get("num_samples")
    if told is not None and _whole(told) != length:
        faults.append(f"{place}: attribute 'num_samples' is {told}, but 'actions' has {length} rows")
    return Episode(
        place,
        hdf5_group(source, demo["obs"]),
        demo["actions"],
        demo["rewards"] if "rewards" in held else None,
        *episode_flags(length, done),
        hdf5_group(source, demo["next_obs"]) if "next_obs" in held else {},
    )


def _metadata(data: Any, faults: list[str]) -> Metadata:
    """Name of the environment, from the attribute `env_args`."""
    metadata: Metadata = {}
    written = data.attrs.get("env_args")
    if written is None:
        return metadata
    try:
        told = json.loads(written) if isinstance(written, str) and len(written) < LARGEST_JSON else None
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        faults.append("attribute 'env_args' of 'data' is not a JSON object")
    elif isinstance(told.get("env_name"), str):
        metadata["env_name"] = told["env_name"][:200]
    return metadata


def _whole(value: Any) -> int | None:
    """An attribute as a whole number, if it is one."""
    array = np.asarray(value)
    return int(array.reshape(-1)[0]) if array.size == 1 and array.dtype.kind in "iu" else None
