"""Reader of `.npz` and `.hdf5` files, in the layout of D4RL or of the `imitation` library."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lit_imitation.data.columns import (
    FLAT,
    UNREADABLE,
    Array,
    Columns,
    Metadata,
    episode_ends,
    join,
    named,
    require_keys,
)
from lit_imitation.data.episodes import Rows
from lit_imitation.data.foreign_files import name_file, name_folder
from lit_imitation.errors import DemonstrationError
from lit_imitation.utils.files import expand_user
from lit_imitation.utils.integrity import check_file, check_npz, check_size

REQUIRED = ("observations", "actions", "terminals", "timeouts")
OPTIONAL = ("rewards", "next_observations", "weights", "episode_returns", "metadata")
FORMATS = {".npz": "npz", ".hdf5": "hdf5", ".h5": "hdf5"}
DEEPEST = 8
"""Largest number of groups within each other; a group can contain itself."""


def read_file(source: str) -> Columns:
    """Read the columns of an `.npz` or `.hdf5` file."""
    path = expand_user(source)
    if path.is_dir():
        if foreign := name_folder(path):
            raise DemonstrationError(f"{source}: this is {foreign}")
        raise DemonstrationError(
            f"{source}: is a directory, not a file. For a Minari dataset write minari:{source}, "
            f"for a Hugging Face dataset hf:{source}"
        )
    if not path.exists():
        raise DemonstrationError(f"{source}: no such file. Demonstrations are a path, minari:ID or hf:NAME")
    check_file(path, DemonstrationError)
    if path.suffix.lower() not in FORMATS and (foreign := _foreign(source, path)):
        raise DemonstrationError(f"{source}: this is {foreign}")
    expected = format_of(path)
    try:
        found = _format_found(path)
        if found != expected:
            rename = f": rename it to {path.stem}.{found}" if found in FORMATS.values() else ""
            raise DemonstrationError(f"{source}: its name says {expected}, but it is {found}{rename}")
        read = (*REQUIRED, *OPTIONAL, *FLAT, "rews")
        held = load_npz(source, path, read.__contains__) if expected == "npz" else _hdf5_arrays(source, path)
    except UNREADABLE as error:
        raise DemonstrationError(
            f"{source}: cannot be read ({error}). If it is truncated or damaged, copy or download it again"
        ) from error
    if "observations" not in held and ("obs" in held or "acts" in held):
        return _from_flat(source, held)
    require_keys(source, REQUIRED, held, [] if set(REQUIRED) <= set(held) else _keys(path, expected))
    metadata = read_metadata(source, held["metadata"]) if "metadata" in held else {}
    return Columns({key: held[key] for key in (*REQUIRED, *OPTIONAL) if key in held}, named(source, {}), metadata)


def _foreign(source: str, path: Path) -> str | None:
    try:
        return name_file(path)
    except UNREADABLE as error:
        raise DemonstrationError(f"{source}: cannot be read ({error})") from error


def format_of(path: Path) -> str:
    """Format by the suffix: `npz` or `hdf5`.

    Raises:
        DemonstrationError: The suffix is another one.
    """
    if path.suffix.lower() not in FORMATS:
        raise DemonstrationError(f"{path}: cannot tell its format from the suffix {path.suffix!r}: use .npz or .hdf5")
    return FORMATS[path.suffix.lower()]


def _format_found(path: Path) -> str:
    """Format of a file by its first bytes."""
    import h5py

    if foreign := name_file(path):
        return foreign
    with path.open("rb") as file:
        head = file.read(8)
    if head.startswith(b"PK"):
        return "npz"
    return "hdf5" if h5py.is_hdf5(path) else f"something else (it begins with {head!r})"


def _keys(path: Path, kind: str) -> list[str]:
    """First names in a file, shortened."""
    if kind == "npz":
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
    else:
        import h5py

        with h5py.File(path, "r") as file:
            names = list(file.keys())
    return [name[:40] for name in names[:16]]


def load_npz(source: str, path: Path, wanted: Callable[[str], bool]) -> dict[str, Array]:
    """Arrays of an `.npz` file whose names are wanted; sizes are checked before memory is allocated.

    Raises:
        DemonstrationError: An array holds objects, or declares an impossible size.
        ValueError, OSError, zipfile.BadZipFile: The file is damaged.
    """
    held = {}
    with zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
    check_npz(path, [name for name in names if wanted(name)], DemonstrationError)
    with np.load(path, allow_pickle=False) as archive:
        for key in filter(wanted, archive.files):
            try:
                array = archive[key]
            except ValueError as error:
                if "pickle" not in str(error):
                    raise
                raise DemonstrationError(
                    f"{source}: '{key}' is an object array, which is a pickle and is not opened because it could run "
                    "code: save it as an array of numbers (usually rows have unequal lengths)"
                ) from error
            if not isinstance(array, np.ndarray):
                raise ValueError(f"'{key}' is not an array")
            held[key] = array
    return held


class StoredArray:
    """Uncompressed array in an `.npz` file, read from its place in the file when it is sliced.

    Args:
        path: The file.
        offset: Place of the first number.
        shape: Shape, with the rows first.
        dtype: Type of one number.
    """

    def __init__(self, path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.path, self.offset, self.shape, self.dtype = path, offset, shape, dtype

    def __getitem__(self, rows: slice) -> Array:
        """Read these rows; the file is opened for that, so that nothing is mapped into memory."""
        start, stop, step = rows.indices(self.shape[0])
        row = math.prod(self.shape[1:])
        count = max(stop - start, 0) * row
        found = np.fromfile(self.path, self.dtype, count, offset=self.offset + start * row * self.dtype.itemsize)
        if len(found) < count:
            raise ValueError(f"{self.path} ends in row {start + len(found) // max(row, 1)}")
        return found.reshape(-1, *self.shape[1:])[::step]


def stored_npz(source: str, path: Path, wanted: Callable[[str], bool]) -> dict[str, StoredArray]:
    """Arrays of an `.npz` file whose names are wanted, left on disk.

    Raises:
        DemonstrationError: An array is compressed, holds objects, or declares an impossible size.
        ValueError, OSError, zipfile.BadZipFile: The file is damaged.
    """
    found = {}
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        members = {one.filename.removesuffix(".npy"): one for one in archive.infolist()}
        names = [name for name in members if wanted(name)]
        check_npz(path, names, DemonstrationError)
        for name in names:
            member = members[name]
            if member.compress_type != zipfile.ZIP_STORED:
                raise DemonstrationError(f"{source}: '{name}' is compressed, and so cannot be read row by row")
            # The local header has its own lengths of name and extra field.
            file.seek(member.header_offset + 26)
            skipped = sum(int.from_bytes(file.read(2), "little") for _ in range(2))
            file.seek(member.header_offset + 30 + skipped)
            read: Any = np.lib.format.read_array_header_1_0
            if np.lib.format.read_magic(file) != (1, 0):
                read = np.lib.format.read_array_header_2_0
            shape, by_columns, dtype = read(file)
            if dtype.hasobject or by_columns or not shape:
                raise DemonstrationError(f"{source}: '{name}' is {dtype} {list(shape)}, not rows of numbers")
            found[name] = StoredArray(path, file.tell(), shape, dtype)
    return found


def _hdf5_arrays(source: str, path: Path) -> dict[str, Array]:
    import h5py

    with h5py.File(path, "r") as file:
        held = {"metadata": np.asarray(file.attrs["metadata"])} if "metadata" in file.attrs else {}
        for key in (*REQUIRED, *OPTIONAL, *FLAT, "rews"):
            if key not in file.keys():  # noqa: SIM118 - `in file` would follow a link
                continue
            _no_foreign_data(source, path, file, key)
            # D4RL's own files have a group called metadata, with other content.
            if isinstance(file[key], h5py.Dataset):
                held[key] = np.asarray(file[key][()])
    return held


def _no_foreign_data(source: str, path: Path, group: Any, key: str) -> Any:
    """Refuse links, data outside an HDF5 file, and datasets that are larger than the file can hold.

    Returns:
        The dataset or group.

    Raises:
        DemonstrationError: The key is a link, lies in another file, or has an absurd size.
    """
    import h5py

    place = f"{source}: '{f'{group.name}/{key}'.lstrip('/')}'"
    link = group.get(key, getlink=True)
    if isinstance(link, h5py.ExternalLink):
        raise DemonstrationError(
            f"{place} is a link into another file, {link.filename}, which is not opened: copy it in"
        )
    if isinstance(link, h5py.SoftLink):
        raise DemonstrationError(f"{place} is a link to {link.path}, which is not followed: copy the dataset itself")
    thing = group[key]
    if isinstance(thing, h5py.Group):
        return thing
    if not isinstance(thing, h5py.Dataset):
        raise DemonstrationError(f"{place} is not a dataset")
    if thing.is_virtual or thing.external:
        names = [one.file_name for one in thing.virtual_sources()] if thing.is_virtual else [thing.external[0][0]]
        raise DemonstrationError(f"{place} lies in another file, {names[0]}, which is not opened: copy the data in")
    if thing.shape is not None:
        check_size(thing.nbytes, path, f"'{key}' {list(thing.shape)}", DemonstrationError)
    return thing


def check_tree(source: str, path: Path) -> None:
    """Apply `_no_foreign_data` to every dataset of an HDF5 file, and check the size of all together.

    Raises:
        DemonstrationError: A dataset is refused, all of them have an absurd size, or a group is within itself.
    """
    import h5py

    check_file(path, DemonstrationError)
    with h5py.File(path, "r") as file:
        waiting: list[Any] = [file]
        seen = set()
        total = 0
        while waiting:
            group = waiting.pop()
            for key in group.keys():  # noqa: SIM118 - an HDF5 group is not a dictionary
                thing = _no_foreign_data(source, path, group, key)
                if isinstance(thing, h5py.Dataset):
                    total += thing.nbytes if thing.shape is not None else 0
                    continue
                if hash(thing.id) in seen:
                    name = f"{group.name}/{key}".lstrip("/")[:200]
                    raise DemonstrationError(f"{source}: '{name}' is a group that has a second name: copy its content")
                seen.add(hash(thing.id))
                waiting.append(thing)
        check_size(total, path, "its content", DemonstrationError)


def hdf5_group(source: str, group: Any, depth: int = 0) -> dict[str, Rows]:
    """Datasets of an HDF5 group by their path below it, none of them read.

    Raises:
        DemonstrationError: A dataset has no rows, or the group is a dataset or nested too deeply.
    """
    import h5py

    place = str(group.name).lstrip("/")[:200]
    if not isinstance(group, h5py.Group) or depth > DEEPEST:
        raise DemonstrationError(f"{source}: '{place}' is not a group of observations")
    found: dict[str, Rows] = {}
    for key, held in group.items():
        if isinstance(held, h5py.Group):
            found |= {f"{key}/{inner}": rows for inner, rows in hdf5_group(source, held, depth + 1).items()}
        elif not held.shape:
            raise DemonstrationError(f"{source}: '{place}/{key}' is not a list of rows")
        else:
            found[key] = held
    return found


def read_metadata(source: str, array: Array) -> Metadata:
    """Metadata that `write_demonstrations` wrote.

    Raises:
        DemonstrationError: They are not a JSON object of strings and numbers.
    """
    try:
        metadata = json.loads(array.item())
    except (ValueError, TypeError, RecursionError) as error:
        raise DemonstrationError(
            f"{source}: 'metadata' is not JSON ({error}): write it as json.dumps(dict), or leave it out"
        ) from error
    if not isinstance(metadata, dict) or not all(isinstance(entry, str | int | float) for entry in metadata.values()):
        raise DemonstrationError(f"{source}: 'metadata' must be a JSON object whose values are strings and numbers")
    return metadata


def _from_flat(source: str, held: dict[str, Array]) -> Columns:
    """Columns of the `imitation` library's archive; `indices` are the first rows of all trajectories but the first."""
    require_keys(source, FLAT, held)
    obs, acts, terminal, indices = (held[key] for key in FLAT)
    rews = held.get("rews", np.zeros(acts.shape[:1], np.float32))
    for key, column in (("obs", obs), ("acts", acts), ("rews", rews), ("terminal", terminal), ("indices", indices)):
        if column.ndim == 0:
            raise DemonstrationError(f"{source}: '{key}' is a single value; one per row is needed")
    if indices.ndim != 1 or (indices.dtype.kind not in "iu" and len(indices)):
        raise DemonstrationError(
            f"{source}: 'indices' holds {indices.dtype} {list(indices.shape)}; a list of row numbers is needed"
        )
    if len(terminal) != len(indices) + 1 or len(obs) != len(acts) + len(terminal) or len(rews) != len(acts):
        raise DemonstrationError(
            f"{source}: lengths differ: 'obs' has {len(obs)} rows, 'acts' {len(acts)}, 'rews' {len(rews)}, 'terminal' "
            f"{len(terminal)}, 'indices' {len(indices)}. Each trajectory has one 'terminal' and one more 'obs' than "
            "'acts'; 'rews' is as long as 'acts', and 'indices' is one shorter than 'terminal'"
        )
    lengths = np.diff(indices.astype(np.int64), prepend=0, append=len(acts))
    if (lengths < 0).any():
        row = int((lengths < 0).argmax())
        raise DemonstrationError(
            f"{source}: 'indices', row {min(row, len(indices) - 1)}: the rows where trajectories start must increase "
            f"and stay below the {len(acts)} rows of 'acts'"
        )
    return join(source, obs, acts, rews, lengths, *episode_ends(source, terminal, lengths))
