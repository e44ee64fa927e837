"""Where demonstrations come from: one reader a layout, all giving the same columns, none running code from a file."""

from __future__ import annotations

import json
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import gymnasium
import numpy as np

from lit_imitation.errors import DemonstrationError, require
from lit_imitation.utils.files import expand_user
from lit_imitation.utils.integrity import check_file, check_npz, check_size, check_within
from lit_imitation.utils.trust import refuse_url

Array: TypeAlias = np.ndarray[Any, Any]
Metadata: TypeAlias = dict[str, str | int | float]

REQUIRED = ("observations", "actions", "terminals", "timeouts")
OPTIONAL = ("rewards", "next_observations", "weights", "episode_returns", "metadata")
FLAT = ("obs", "acts", "terminal", "indices")
"""The `imitation` library's archive: trajectories end to end, each with one more `obs` than `acts`; perhaps `rews`."""
NESTED = FLAT[:3]
"""The same library's Hugging Face layout: one row a trajectory."""
FORMATS = {".npz": "npz", ".hdf5": "hdf5", ".h5": "hdf5"}


UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    RuntimeError,
    MemoryError,
    NotImplementedError,
    OverflowError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
"""What the libraries raise on damaged files."""


LARGEST_JSON = 2**24
"""Bytes of a JSON file that describes a dataset."""


class Columns(NamedTuple):
    """What a source holds, under D4RL's keys, its values not yet looked at."""

    arrays: dict[str, Array]
    where: Callable[[str, int | None], str]
    """Names source, key and row (None: the whole column) as the person who made the source knows them."""
    metadata: Metadata


def named(source: str, names: Mapping[str, str]) -> Callable[[str, int | None], str]:
    """A `Columns.where` for rows that lie in the source as they lie in the columns; `names` maps keys to its names."""
    return lambda key, row: f"{source}: '{names.get(key, key)}'" + ("" if row is None else f", row {row}")


def read_columns(source: str, observation_space: gymnasium.Space[Any] | None = None) -> Columns:
    """The columns of a file, of `minari:ID` or of `hf:NAME`.

    Args:
        source: where they are.
        observation_space: of the environment, where there is one; if it was flattened from a Dict or Tuple, that
            (`original`) says in which order a dataset's own are.

    Raises:
        DemonstrationError: the source is missing, damaged, not what its name says, lacks a key, or has other keys than
            the environment's dictionary of observations.
        MissingExtraError: the source's library is not installed.
    """
    refuse_url(source, "demonstrations", DemonstrationError)
    if not source.startswith(("minari:", "hf:")):
        return _read_file(source)
    try:
        if source.startswith("minari:"):
            return _read_minari(source, getattr(observation_space, "original", None))
        return _read_hugging_face(source)
    except (*UNREADABLE, TypeError, AttributeError, LookupError, RecursionError) as error:  # past its own checks
        raise DemonstrationError(f"{source}: cannot be read ({type(error).__name__}: {error})") from error


def _read_file(source: str) -> Columns:
    path = expand_user(source)
    if path.is_dir():
        raise DemonstrationError(
            f"{source}: is a directory, not a file. A Minari dataset's directory is named minari:{source}, "
            f"a Hugging Face dataset's hf:{source}"
        )
    if not path.exists():
        raise DemonstrationError(f"{source}: no such file. Demonstrations are a path, minari:ID or hf:NAME")
    check_file(path, DemonstrationError)
    expected = format_of(path)
    try:
        found = _format_found(path)
        if found != expected:
            rename = f": rename it to {path.stem}.{found}" if found in FORMATS.values() else ""
            raise DemonstrationError(f"{source}: its name says {expected}, but it is {found}{rename}")
        held = _npz_arrays(source, path) if expected == "npz" else _hdf5_arrays(source, path)
    except UNREADABLE as error:
        raise DemonstrationError(
            f"{source}: cannot be read ({error}). Where it is truncated or damaged, copy or download it again"
        ) from error
    if "observations" not in held and ("obs" in held or "acts" in held):
        return _from_flat(source, held)
    _require_keys(source, REQUIRED, held, [] if set(REQUIRED) <= set(held) else _keys(path, expected))
    metadata = _metadata(source, held["metadata"]) if "metadata" in held else {}
    return Columns({key: held[key] for key in (*REQUIRED, *OPTIONAL) if key in held}, named(source, {}), metadata)


def format_of(path: Path) -> str:
    """`npz` or `hdf5`, by the suffix.

    Raises:
        DemonstrationError: any other suffix.
    """
    if path.suffix.lower() not in FORMATS:
        raise DemonstrationError(f"{path}: cannot tell its format from the suffix {path.suffix!r}: use .npz or .hdf5")
    return FORMATS[path.suffix.lower()]


def _format_found(path: Path) -> str:
    """What the first bytes say that a file is."""
    import h5py

    with path.open("rb") as file:
        head = file.read(8)
    if not head:
        return "an empty file (0 bytes)"
    if head.startswith(b"PK"):
        return "npz"
    if h5py.is_hdf5(path):
        return "hdf5"
    if head.startswith(b"\x93NUMPY"):
        return "a single array (.npy), where every column has its key: write it with np.savez_compressed"
    if head.startswith(b"\x80"):
        return (
            "a pickle, which is not opened since it could run code: where you trust it, "
            "load it yourself and write its arrays with np.savez_compressed"
        )
    return f"something else (it begins with {head!r})"


def _keys(path: Path, kind: str) -> list[str]:
    """The first names in a file, shortened, whatever they hold."""
    if kind == "npz":
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
    else:
        import h5py

        with h5py.File(path, "r") as file:
            names = list(file.keys())
    return [name[:40] for name in names[:16]]


def _npz_arrays(source: str, path: Path) -> dict[str, Array]:
    held = {}
    check_npz(path, (*REQUIRED, *OPTIONAL, *FLAT, "rews"), DemonstrationError)
    with np.load(path, allow_pickle=False) as archive:
        for key in (*REQUIRED, *OPTIONAL, *FLAT, "rews"):
            if key not in archive.files:
                continue
            try:
                array = archive[key]
            except ValueError as error:
                if "pickle" not in str(error):
                    raise
                raise DemonstrationError(
                    f"{source}: '{key}' is an object array, that is a pickle, which is not opened since it could run "
                    "code: save it as an array of numbers (rows of unequal length are the usual reason)"
                ) from error
            if not isinstance(array, np.ndarray):
                raise ValueError(f"'{key}' is not an array")
            held[key] = array
    return held


def _hdf5_arrays(source: str, path: Path) -> dict[str, Array]:
    import h5py

    with h5py.File(path, "r") as file:
        held = {"metadata": np.asarray(file.attrs["metadata"])} if "metadata" in file.attrs else {}
        for key in (*REQUIRED, *OPTIONAL, *FLAT, "rews"):
            if key not in file.keys():  # noqa: SIM118 - `in file` would follow a link
                continue
            _no_foreign_data(source, path, file, key)
            # D4RL's own files hold a *group* called metadata, of other things.
            if isinstance(file[key], h5py.Dataset):
                held[key] = np.asarray(file[key][()])
    return held


def _no_foreign_data(source: str, path: Path, group: Any, key: str) -> None:
    """Refuse what lies outside an HDF5 file, or would take more memory than the file can fill.

    Raises:
        DemonstrationError: a link, a dataset whose content is in other files, or one of an absurd size.
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
        return
    if not isinstance(thing, h5py.Dataset):
        raise DemonstrationError(f"{place} is no dataset")
    if thing.is_virtual or thing.external:
        names = [one.file_name for one in thing.virtual_sources()] if thing.is_virtual else [thing.external[0][0]]
        raise DemonstrationError(f"{place} lies in another file, {names[0]}, which is not opened: copy the data in")
    if thing.shape is not None:
        check_size(thing.nbytes, path, f"'{key}' {list(thing.shape)}", DemonstrationError)


def _check_tree(source: str, path: Path) -> None:
    """`_no_foreign_data` for everything in an HDF5 file that another library will read."""
    import h5py

    check_file(path, DemonstrationError)
    with h5py.File(path, "r") as file:
        waiting: list[Any] = [file]
        seen = set()
        while waiting:
            group = waiting.pop()
            for key in group.keys():  # noqa: SIM118 - an HDF5 group is no dictionary
                _no_foreign_data(source, path, group, key)
                thing = group[key]
                if isinstance(thing, h5py.Group) and hash(thing.id) not in seen:
                    seen.add(hash(thing.id))
                    waiting.append(thing)


def _require_keys(
    source: str,
    required: Sequence[str],
    held: Sequence[str] | Mapping[str, Any],
    others: Sequence[str] = (),
) -> None:
    """Raise an error with all that is there, also under `others`, the keys that nothing is read from."""
    missing = [key for key in required if key not in held]
    if not missing:
        return
    there = [*held, *(key for key in others if key not in held)]
    text = (
        f"{source}: missing key '{missing[0]}'. Needed are {', '.join(required)}; found {', '.join(there) or 'none'}."
    )
    if meant := get_close_matches(missing[0], set(there) - set(required), 1):
        text += f" Is it '{meant[0]}'?"
    if missing[0] == "timeouts":
        text += " Where episodes only end by terminals, add an all-False array: timeouts = np.zeros(N, dtype=bool)"
    raise DemonstrationError(text)


def _metadata(source: str, array: Array) -> Metadata:
    try:
        metadata = json.loads(array.item())
    except (ValueError, TypeError, RecursionError) as error:
        raise DemonstrationError(
            f"{source}: 'metadata' is not JSON ({error}): write it as json.dumps(dict), or leave it out"
        ) from error
    if not isinstance(metadata, dict) or not all(isinstance(entry, str | int | float) for entry in metadata.values()):
        raise DemonstrationError(f"{source}: 'metadata' has to be a JSON object whose values are strings and numbers")
    return metadata


def _from_flat(source: str, held: dict[str, Array]) -> Columns:
    """The `imitation` library's flat archive; `indices` [episodes - 1] are the rows of `acts` where the next starts."""
    _require_keys(source, FLAT, held)
    obs, acts, terminal, indices = (held[key] for key in FLAT)
    rews = held.get("rews", np.zeros(acts.shape[:1], np.float32))
    for key, column in (("obs", obs), ("acts", acts), ("rews", rews), ("terminal", terminal), ("indices", indices)):
        if column.ndim == 0:
            raise DemonstrationError(f"{source}: '{key}' is a single value; a column has one a row")
    if indices.ndim != 1 or (indices.dtype.kind not in "iu" and len(indices)):
        raise DemonstrationError(
            f"{source}: 'indices' holds {indices.dtype} {list(indices.shape)}; a list of row numbers is needed"
        )
    if len(terminal) != len(indices) + 1 or len(obs) != len(acts) + len(terminal) or len(rews) != len(acts):
        raise DemonstrationError(
            f"{source}: lengths differ: 'obs' has {len(obs)} rows, 'acts' {len(acts)}, 'rews' {len(rews)}, 'terminal' "
            f"{len(terminal)}, 'indices' {len(indices)}. There is one 'terminal' a trajectory, one 'indices' less than "
            "that, one 'rews' an 'acts', and each trajectory has one more 'obs' than 'acts'"
        )
    lengths = np.diff(indices.astype(np.int64), prepend=0, append=len(acts))
    if (lengths < 0).any():
        row = int((lengths < 0).argmax())
        raise DemonstrationError(
            f"{source}: 'indices', row {min(row, len(indices) - 1)}: the rows where trajectories start have to grow "
            f"and stay below the {len(acts)} rows of 'acts'"
        )
    return _join(source, obs, acts, rews, lengths, *_episode_ends(source, terminal, lengths))


def _read_hugging_face(source: str) -> Columns:
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
            _require_keys(f"{source} (splits)", ["train"], data)
            data = data["train"]
        _require_keys(source, NESTED, data.column_names)
        # Only these columns are decoded: `infos`, where there is one, holds objects as text.
        columns = [*NESTED, *(["rews"] if "rews" in data.column_names else [])]
        table = data.select_columns(columns).with_format("arrow")[:]
    except (*UNREADABLE, TypeError, AttributeError, LookupError, RecursionError) as error:
        raise DemonstrationError(
            f"{source}: cannot be read as a Hugging Face dataset ({error}). A directory has to be one that "
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
    ends = _episode_ends(source, terminal.to_numpy(zero_copy_only=False), steps["acts"])
    return _join(source, rows["obs"], rows["acts"], rows["rews"], steps["acts"], *ends)


def _check_saved(source: str, directory: Path) -> None:
    """See that a directory of `save_to_disk` names files of its own only: they are opened under whatever name it has.

    Raises:
        DemonstrationError: it names or links to others.
    """
    splits = [directory]
    if (directory / "dataset_dict.json").exists():
        splits = [directory / name for name in _names(source, directory, "dataset_dict.json", "splits")]
    for split in splits:
        check_within(split, directory, DemonstrationError)
        if not (split / "state.json").exists():
            continue  # the library says so
        for name in [*_names(source, split, "state.json", "_data_files"), "dataset_info.json"]:
            check_within(split / name, directory, DemonstrationError)
            check_file(split / name, DemonstrationError)


def _names(source: str, directory: Path, file: str, key: str) -> list[str]:
    """The list of file names under `key` in a JSON file, each a name without a path."""
    held = _json(source, directory / file).get(key)
    names: list[str] = []
    for one in held if isinstance(held, list) else [None]:
        name = one.get("filename") if isinstance(one, dict) else one
        if not isinstance(name, str) or name in ("", ".", "..") or Path(name).name != name or "\\" in name:
            place = directory / file
            raise DemonstrationError(f"{source}: {place} names {name!r:.80} ('{key}'), which is no file beside it")
        names.append(name)
    return names


def _json(source: str, path: Path) -> dict[str, Any]:
    """A JSON object of bounded size."""
    check_within(path, path.parent, DemonstrationError)
    try:
        held = json.loads(check_file(path, DemonstrationError, LARGEST_JSON).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DemonstrationError(f"{source}: {path} is not JSON ({error})") from error
    if not isinstance(held, dict):
        raise DemonstrationError(f"{source}: {path} is no JSON object")
    return held


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


def _read_minari(source: str, original: gymnasium.Space[Any] | None) -> Columns:
    name = source.removeprefix("minari:")
    minari = require("minari", "minari", source)
    directory = expand_user(name)
    if not directory.is_dir():
        directory = require("minari.storage.datasets_root_dir", "minari", source).get_dataset_path(name)
    data = directory / "data" if (directory / "data").is_dir() else directory
    if not (data / "metadata.json").is_file():
        raise DemonstrationError(
            f"{source}: no Minari dataset in {directory}: download it with `minari download {name}` "
            "(`minari list remote` shows what there is)"
        )
    try:
        # Where a space is not written down, Minari would build the environment that the file names, with the
        # arguments it gives: that is running code of the file's choosing.
        metadata = _json(source, data / "metadata.json")
        _require_keys(f"{data / 'metadata.json'}", ("observation_space", "action_space"), metadata)
        _check_minari_files(source, data, metadata)
        dataset = minari.MinariDataset(data)
        episodes = list(dataset.iterate_episodes())
    except (*UNREADABLE, TypeError, AssertionError, ImportError, AttributeError, RecursionError) as error:
        raise DemonstrationError(
            f"{source}: cannot be read as a Minari dataset ({type(error).__name__}: {error}): "
            f"download it again with `minari download {name} --force`"
        ) from error
    if not episodes:
        raise DemonstrationError(f"{source}: holds no episodes")
    space = _recorded(dataset.observation_space, metadata["observation_space"])
    flatten = isinstance(space, gymnasium.spaces.Dict | gymnasium.spaces.Tuple)
    if flatten and original is not None:
        _check_parts(source, "'observations'", space, original)
        space = original
    obs = [
        _flatten(space, episode.observations) if flatten else np.asarray(episode.observations) for episode in episodes
    ]
    lengths = np.array([len(episode) for episode in episodes])
    for index, (episode, seen) in enumerate(zip(episodes, obs, strict=True)):
        others = {key: len(getattr(episode, key)) for key in ("actions", "rewards", "terminations", "truncations")}
        if set(others.values()) != {len(seen) - 1}:
            raise DemonstrationError(
                f"{source}: lengths differ: episode {index} has {len(seen)} 'observations', and {others}; "
                "these are to be alike, with one more 'observations'"
            )
    terminals = np.concatenate([episode.terminations for episode in episodes]).astype(bool)
    timeouts = np.concatenate([episode.truncations for episode in episodes]).astype(bool)
    # An episode that Minari stopped recording is one that somebody stopped looking at.
    last = _last_rows(source, lengths)
    timeouts[last] |= ~terminals[last]
    notes: Metadata = {"dataset": dataset.id}
    if dataset.env_spec is not None:
        notes["env_id"] = dataset.env_spec.id
    names = {"obs": "observations", "acts": "actions", "rews": "rewards"}
    actions = np.concatenate([np.asarray(episode.actions) for episode in episodes])
    rewards = np.concatenate([episode.rewards for episode in episodes])
    columns = _join(source, np.concatenate(obs), actions, rewards, lengths, terminals, timeouts, names)
    return columns._replace(metadata=notes)


def _recorded(space: gymnasium.Space[Any], written: Any) -> gymnasium.Space[Any]:
    """A dataset's space with its keys in the order of the environment that was recorded; Minari sorts them."""
    parts = json.loads(written) if isinstance(written, str) else written
    if isinstance(space, gymnasium.spaces.Dict):
        inner = {key: _recorded(space[key], part) for key, part in parts["subspaces"].items()}
        return gymnasium.spaces.Dict(list(inner.items()))
    if isinstance(space, gymnasium.spaces.Tuple):
        pairs = zip(space.spaces, parts["subspaces"], strict=True)
        return gymnasium.spaces.Tuple([_recorded(one, part) for one, part in pairs])
    return space


def _check_parts(source: str, where: str, recorded: gymnasium.Space[Any], original: gymnasium.Space[Any]) -> None:
    """See that a dataset's observations have the parts of the environment's, by their names and not by their number.

    Raises:
        DemonstrationError: a key that only one of them has, or a part of another kind or size; the text names it.
    """
    if isinstance(original, gymnasium.spaces.Dict) and isinstance(recorded, gymnasium.spaces.Dict):
        missing = [key for key in original.spaces if key not in recorded.spaces]
        unknown = [key for key in recorded.spaces if key not in original.spaces]
        if missing or unknown:
            lacks = f"lack {', '.join(map(repr, missing))}" if missing else ""
            has = f"have {', '.join(map(repr, unknown))}, which the environment's do not" if unknown else ""
            raise DemonstrationError(
                f"{source}: {where} {' and '.join(text for text in (lacks, has) if text)}; the environment's keys are "
                f"{', '.join(map(repr, original.spaces))}: are these demonstrations of another environment?"
            )
        for key, inner in original.spaces.items():
            _check_parts(source, f"{where}[{key!r}]", recorded[key], inner)
        return
    if isinstance(original, gymnasium.spaces.Tuple) and isinstance(recorded, gymnasium.spaces.Tuple):
        if len(recorded.spaces) == len(original.spaces):
            for index, (one, inner) in enumerate(zip(recorded.spaces, original.spaces, strict=True)):
                _check_parts(source, f"{where}[{index}]", one, inner)
            return
    elif (type(recorded), recorded.shape, getattr(recorded, "n", None)) == (
        type(original),
        original.shape,
        getattr(original, "n", None),
    ):
        return
    raise DemonstrationError(
        f"{source}: {where} are {recorded}, the environment's {original}: are these demonstrations of another "
        "environment?"
    )


def _check_minari_files(source: str, data: Path, metadata: Mapping[str, Any]) -> None:
    """See that Minari reads files of this dataset only, and as many episodes as there are.

    Raises:
        DemonstrationError: a file that is none, that leads elsewhere, or a number of episodes that cannot be.
    """
    check_within(data, data.parent, DemonstrationError)
    for path in data.rglob("*"):
        check_within(path, data, DemonstrationError)
        if not path.is_dir():
            check_file(path, DemonstrationError)
    most = sum(path.is_dir() for path in data.iterdir())
    if (main := data / "main_data.hdf5").exists():
        import h5py

        _check_tree(source, main)
        with h5py.File(main, "r") as file:
            most = max(most, len(file))
    count = metadata.get("total_episodes")
    if not isinstance(count, int) or not 0 <= count <= most:
        raise DemonstrationError(f"{source}: 'total_episodes' is {count!r:.80}, but {most} are there")


def _flatten(space: gymnasium.Space[Any], values: Any) -> Array:
    """`[T, d]`: as `gymnasium.spaces.flatten` of each row of `values`, whole columns at a time where it can be done."""
    if isinstance(space, gymnasium.spaces.Dict):
        return np.concatenate([_flatten(inner, values[key]) for key, inner in space.spaces.items()], axis=1)
    if isinstance(space, gymnasium.spaces.Tuple):
        return np.concatenate([_flatten(inner, value) for inner, value in zip(space.spaces, values, strict=True)], 1)
    if isinstance(space, gymnasium.spaces.Box):
        return np.asarray(values).reshape(len(values), -1)
    return np.stack([np.asarray(gymnasium.spaces.flatten(space, value)) for value in values])


def _episode_ends(source: str, terminal: Array, lengths: Array) -> tuple[Array, Array]:
    """`terminals, timeouts`, each `[N]`, from one flag a trajectory: did it end, or was it cut off?"""
    if terminal.ndim == 2 and terminal.shape[1] == 1:
        terminal = terminal[:, 0]
    if terminal.dtype.kind not in "biu" or terminal.ndim != 1:
        raise DemonstrationError(
            f"{source}: 'terminal' holds {terminal.dtype} {list(terminal.shape)}; one bool a trajectory is needed"
        )
    terminals, timeouts = np.zeros((2, int(lengths.sum())), dtype=bool)
    last = _last_rows(source, lengths)
    terminals[last] = terminal
    timeouts[last] = ~terminals[last]
    return terminals, timeouts


def _last_rows(source: str, lengths: Array) -> Array:
    """`[episodes]`: where each trajectory's last transition lies."""
    if not (lengths > 0).all():
        raise DemonstrationError(f"{source}: trajectory {(lengths <= 0).argmax()} holds no transitions: leave it out")
    return np.asarray(np.cumsum(lengths) - 1)


def _join(
    source: str,
    obs: Array,
    acts: Array,
    rews: Array,
    lengths: Array,
    terminals: Array,
    timeouts: Array,
    names: Mapping[str, str] | None = None,
) -> Columns:
    """Columns from trajectories laid end to end, each with a final observation.

    Args:
        source: for messages.
        obs: `[N + episodes, *obs]`.
        acts: `[N, *act]`.
        rews: `[N]`.
        lengths: `[episodes]`, their sum N.
        terminals: `[N]`.
        timeouts: `[N]`.
        names: what the source calls `obs`, `acts` and `rews`, where it is not that.
    """
    episode = np.repeat(np.arange(len(lengths)), lengths)
    starts = np.cumsum(lengths) - lengths
    rows = np.arange(len(acts)) + episode
    keys = {"observations": "obs", "next_observations": "obs", "actions": "acts", "rewards": "rews"}

    def where(key: str, row: int | None) -> str:
        name = keys.get(key, "terminal")
        text = f"{source}: '{(names or {}).get(name, name)}'"
        if row is None:
            return text
        within = row - starts[episode[row]] + (key == "next_observations")
        overall = row + (key == "next_observations") + (episode[row] if name == "obs" else 0)
        return f"{text}, row {overall} (trajectory {episode[row]}, its row {within})"

    arrays = {"observations": obs[rows], "actions": acts, "rewards": rews}
    arrays |= {"next_observations": obs[rows + 1], "terminals": terminals, "timeouts": timeouts}
    return Columns(arrays, where, {})
