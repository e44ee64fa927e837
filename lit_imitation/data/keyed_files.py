"""Reader of D4RL's layout and ours with several observations: `observations/camera`, `observations/state`, …"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from lit_imitation.data.array_files import REQUIRED, check_tree, hdf5_group, load_npz, read_metadata
from lit_imitation.data.columns import Array, Metadata, require_keys
from lit_imitation.data.episodes import Episode, Recording, Rows, Span
from lit_imitation.errors import DemonstrationError

NAMES = {"observation": "observations", "next_observation": "next_observations"}
NAMES |= {"action": "actions", "reward": "rewards"}
ONLY = "observations"
"""Key of the observation in a file whose observations are one array."""
GROUPS = ("observations", "next_observations")
PLAIN = ("actions", "rewards", "terminals", "timeouts", "metadata")
MORE = ("weights", "episode_returns")


def is_plain(path: Path, kind: str) -> bool:
    """Whether an `.npz` (`kind` npz) or HDF5 file has one of D4RL's keys of observations and actions."""
    keys = ("observations", "actions")
    if kind == "npz":
        with zipfile.ZipFile(path) as archive:
            return any(f"{key}.npy" in archive.namelist() for key in keys)
    import h5py

    with h5py.File(path, "r") as file:
        return any(isinstance(file.get(key, getlink=True), h5py.HardLink) for key in keys)


def is_keyed(path: Path, kind: str) -> bool:
    """Whether the observations of an `.npz` (`kind` npz) or HDF5 file are several arrays."""
    if kind == "npz":
        with zipfile.ZipFile(path) as archive:
            return any(name.startswith("observations/") for name in archive.namelist())
    import h5py

    with h5py.File(path, "r") as file:
        linked = isinstance(file.get("observations", getlink=True), h5py.HardLink)
        return linked and isinstance(file["observations"], h5py.Group)


@contextmanager
def open_keyed(source: str, path: Path, kind: str, lenient: bool = False) -> Iterator[Recording]:
    """Open D4RL's keys, where `observations` is one array or several, `observations/<key>`, one row per step each.

    Arrays of an HDF5 file are read when they are sliced; those of an `.npz` at once.

    Args:
        source: Name of the source in messages.
        path: The file.
        kind: `npz` or `hdf5`.
        lenient: List missing keys and a missing last end among the faults: for inspection.

    Raises:
        DemonstrationError: A key is missing, the lengths of flags and actions differ, the last row does not end an
            episode, or the file holds links, data in other files, or objects.
    """
    if kind == "npz":
        arrays = load_npz(source, path, lambda name: name in (*PLAIN, *MORE) or name.split("/")[0] in GROUPS)
        yield _recording(source, arrays, lenient=lenient)
        return
    import h5py

    check_tree(source, path)
    with h5py.File(path, "r") as file:
        held: dict[str, Rows] = {key: file[key] for key in (*PLAIN, *MORE) if isinstance(file.get(key), h5py.Dataset)}
        for group in GROUPS:
            if isinstance(file.get(group), h5py.Group):
                held |= {f"{group}/{key}": rows for key, rows in hdf5_group(source, file[group]).items()}
            elif isinstance(file.get(group), h5py.Dataset):
                held[group] = file[group]
        metadata = read_metadata(source, np.asarray(file["metadata"])) if "metadata" in held else {}
        yield _recording(source, {key: rows for key, rows in held.items() if key != "metadata"}, metadata, lenient)


def _recording(
    source: str, held: Mapping[str, Rows], metadata: Metadata | None = None, lenient: bool = False
) -> Recording:
    if metadata is None:
        metadata = read_metadata(source, np.asarray(held["metadata"])) if "metadata" in held else {}
    seen, successors = (
        {_key(name, group): held[name] for name in held if name.split("/")[0] == group} for group in GROUPS
    )
    faults: list[str] = []
    if lenient:
        held = _completed(held, bool(seen), faults)
    require_keys(source, ("actions", "terminals", "timeouts"), held)
    if not seen and not lenient:
        raise DemonstrationError(f"{source}: 'observations' holds no arrays")
    ends = _ends(source, held, faults if lenient else None)
    starts = [0, *ends[:-1]]
    flags = [np.asarray(held[key][:]).reshape(-1).astype(bool) for key in ("terminals", "timeouts")]
    reward = held.get("rewards")
    for name, rows in [*held.items()]:
        if name not in ("metadata", "episode_returns") and (not rows.shape or rows.shape[0] != ends[-1]):
            raise DemonstrationError(
                f"{source}: lengths differ: '{name}' has {rows.shape[0] if rows.shape else 0} rows, but 'actions' "
                f"{ends[-1]}"
            )
    episodes = [
        Episode(
            f"episode {index}",
            {key: Span(rows, start, stop) for key, rows in seen.items()},
            Span(held["actions"], start, stop),
            None if reward is None else Span(reward, start, stop),
            flags[0][start:stop],
            flags[1][start:stop],
            {key: Span(rows, start, stop) for key, rows in successors.items()},
        )
        for index, (start, stop) in enumerate(zip(starts, ends, strict=True))
    ]
    kind = "D4RL's layout with several observations" if seen and ONLY not in seen else "D4RL's layout"
    columns = {key: held[key] for key in MORE if key in held}
    return Recording(source, kind, episodes, metadata, NAMES, faults, columns)


def _completed(held: Mapping[str, Rows], seen: bool, faults: list[str]) -> dict[str, Rows]:
    """The arrays with an empty one in place of each missing one, which is added to the faults."""
    missing = [key for key in REQUIRED if key not in held and not (key == "observations" and seen)]
    faults += [f"the key '{key}' is missing; needed are {', '.join(REQUIRED)}" for key in missing]
    lengths = [rows.shape[0] for name, rows in held.items() if name not in ("metadata", *MORE) and rows.shape]
    length = lengths[0] if lengths else 0
    empty: dict[str, Array] = {"actions": np.zeros((length, 0)), "terminals": np.zeros(length, bool)}
    empty["timeouts"] = np.arange(length) == length - 1 if "timeouts" in missing else empty["terminals"]
    return {**{key: empty[key] for key in missing if key in empty}, **held}


def _key(name: str, group: str) -> str:
    return name.removeprefix(f"{group}/") if name != group else ONLY


def _ends(source: str, held: Mapping[str, Rows], faults: list[str] | None) -> list[int]:
    """Row after the last one of each episode; a missing last end is an error, or one of the faults."""
    flags: list[Array] = []
    for key in ("terminals", "timeouts"):
        known = held[key].shape and held[key].dtype.kind in "biuf"
        flag: Array = np.asarray(held[key][:]) if known else np.zeros((0, 0))
        flag = flag[:, 0] if flag.ndim == 2 and flag.shape[1] == 1 else flag
        if flag.ndim != 1 or not np.isin(flag, (0, 1)).all():
            raise DemonstrationError(f"{source}: '{key}' must hold one flag per row, 0 or 1")
        flags.append(flag.astype(bool))
    length = held["actions"].shape[0] if held["actions"].shape else 0
    if not length or any(len(flag) != length for flag in flags):
        raise DemonstrationError(
            f"{source}: lengths differ: 'actions' has {length} rows, 'terminals' {len(flags[0])} and 'timeouts' "
            f"{len(flags[1])}; each needs one row per step"
        )
    ends = np.flatnonzero(flags[0] | flags[1]) + 1
    if not len(ends) or ends[-1] != length:
        fault = (
            f"'timeouts', row {length - 1} (the last): no episode end, neither in 'terminals' nor in 'timeouts'. Every "
            "trajectory must end: set 'timeouts' at its last row if recording just stopped there"
        )
        if faults is None:
            raise DemonstrationError(f"{source}: {fault}")
        faults.append(fault)
        ends = np.append(ends, length)
    return [int(end) for end in ends]
