"""Demonstrations: reading and writing files, finding what is wrong with them, and choosing among trajectories."""

from __future__ import annotations

import errno
import json
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete
from torch import Tensor

from lit_imitation.data.sources import FORMATS, Array, Columns, Metadata, format_of, named, read_columns
from lit_imitation.errors import ConfigError, DemonstrationError, UnsupportedSpaceError
from lit_imitation.rollout.reference import Reference
from lit_imitation.transitions import Transitions
from lit_imitation.utils.files import atomic_file, expand_user
from lit_imitation.utils.integrity import check_within
from lit_imitation.utils.spaces import float32_bounds

FIELDS = {
    "observations": "observation",
    "actions": "action",
    "rewards": "reward",
    "terminals": "terminated",
    "timeouts": "truncated",
    "next_observations": "next_observation",
    "weights": "weight",
}
"""D4RL's keys (and `weights`) and the fields of `Transitions` that they become."""

ACTION_TOLERANCE = 1e-5
"""How far outside its bounds an action may lie and be clipped, as a fraction of the range: rounding, not a fault."""


LEARNER = "learner"
"""`metadata["returns"]` of a file whose returns are not those of the expert that its actions are of."""


class Demonstrations(NamedTuple):
    """What somebody showed."""

    transitions: Transitions
    """`[N]`: whole trajectories one after another, or a subsample of them."""
    episode_returns: Tensor
    """`[episodes]` float64: the return of each whole trajectory, which no subsampling changes."""
    metadata: Metadata
    """What the writer noted: env_id, expert, seed, …"""

    def select(self, episodes: Tensor) -> Demonstrations:
        """The trajectories with these indices `[n]`, in this order."""
        return Demonstrations(self.transitions.select_episodes(episodes), self.episode_returns[episodes], self.metadata)


def read_demonstrations(
    source: str | Path | Sequence[str | Path],
    observation_space: gymnasium.Space[Any],
    action_space: gymnasium.Space[Any],
) -> Demonstrations:
    """Read demonstrations and check them against an environment's spaces; no code from the source is run.

    Args:
        source: the path of an `.npz` or `.hdf5` file, in D4RL's layout or the `imitation` library's, or of a folder of
            such files (DAgger's `dataset`), read in the order of their names; `minari:ID` or `minari:DIRECTORY`;
            `hf:NAME` or `hf:DIRECTORY`. Of several of these, the trajectories of one come after those of the other.
        observation_space: of one environment.
        action_space: of one environment.

    Raises:
        DemonstrationError: something is wrong with it; the text names file, key and row.
        UnsupportedSpaceError: a space that is none of Box, Discrete, MultiDiscrete, MultiBinary.
        MissingExtraError: the library for a `minari:` or `hf:` source is not installed.
    """
    if isinstance(source, str | Path):
        source = str(source)
        folder = expand_user(source)
        inside = sorted(file for file in folder.glob("[!.]*") if file.suffix in FORMATS) if folder.is_dir() else []
        for file in inside:
            check_within(file, folder, DemonstrationError)
        sources = [str(file) for file in inside]
    else:
        sources = [str(one) for one in source]
        if not sources:
            raise DemonstrationError("an empty list of sources; demonstrations are a path, minari:ID or hf:NAME")
    if sources:
        parts = [read_demonstrations(one, observation_space, action_space) for one in sources]
        returns = torch.cat([part.episode_returns for part in parts])
        metadata = _joined([part.metadata for part in parts])
        return Demonstrations(Transitions.concatenate([part.transitions for part in parts]), returns, metadata)
    assert isinstance(source, str)
    columns = read_columns(source, observation_space)
    transitions = _transitions(columns, observation_space, action_space)
    returns = transitions.episode_returns()
    if "episode_returns" in columns.arrays:
        written = _column_of(columns.arrays["episode_returns"])
        place = columns.where("episode_returns", None)
        _numeric("episode_returns", written, columns)
        if written.shape != tuple(returns.shape):
            raise DemonstrationError(
                f"{place} has shape {list(written.shape)}; the flags end {len(returns)} episodes: one return for each"
            )
        returns = torch.from_numpy(_finite("episode_returns", written, np.float64, columns).copy())
    return Demonstrations(transitions, returns, columns.metadata)


def _joined(parts: Sequence[Metadata]) -> Metadata:
    """Those of the first of several files; of the expert's return, what all of them say."""
    told = [{key: value for key, value in part.items() if key.startswith("expert_return")} for part in parts]
    metadata = {key: value for key, value in parts[0].items() if key not in told[0]}
    if all(one == told[0] for one in told):
        metadata |= told[0]
    if any(part.get("returns") == LEARNER for part in parts):
        metadata["returns"] = LEARNER
    return metadata


def write_demonstrations(path: str | Path, demonstrations: Demonstrations) -> None:
    """Write an `.npz` or `.hdf5` file in D4RL's layout, which `read_demonstrations` reads back.

    Beside D4RL's keys it holds `weights` where there are any, `episode_returns` and `metadata` (JSON). The file appears
    whole or not at all: whatever interrupts the writing leaves an earlier file of that name as it was.

    Raises:
        DemonstrationError: an unknown suffix, or nothing to write.
    """
    path = expand_user(path)
    npz = format_of(path) == "npz"
    transitions = demonstrations.transitions
    if not len(transitions):
        raise DemonstrationError(f"{path}: there are no transitions to write")
    columns = {
        key: value.detach().cpu().numpy()
        for key, field in FIELDS.items()
        if (value := getattr(transitions, field)) is not None
    }
    columns["episode_returns"] = demonstrations.episode_returns.cpu().numpy()
    metadata = json.dumps(demonstrations.metadata, sort_keys=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        if npz:
            _write_npz(file, {"metadata": np.array(metadata), **columns})
        else:
            import h5py

            try:
                with h5py.File(file, "w") as hdf5:
                    # Of fixed length: a damaged string of variable length can hang the HDF5 library.
                    hdf5.create_dataset("metadata", data=np.bytes_(metadata))
                    for key, column in columns.items():
                        hdf5.create_dataset(key, data=column, compression="gzip", shuffle=True, fletcher32=True)
            except (OSError, RuntimeError) as error:  # HDF5 tells a full disk in a page of text
                number = getattr(error, "errno", None) or (errno.ENOSPC if "errno = 28" in str(error) else errno.EIO)
                raise OSError(number, os.strerror(number), str(path)) from error


def _write_npz(file: IO[bytes], arrays: Mapping[str, Array]) -> None:
    """As `np.savez_compressed`, but for floats: they shrink little, and DAgger's rounds wait for the file."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")  # of a fixed date, so that equal data make equal files
            member.compress_type = zipfile.ZIP_STORED if array.dtype.kind == "f" else zipfile.ZIP_DEFLATED
            with archive.open(member, "w", force_zip64=True) as out:
                np.lib.format.write_array(out, array, allow_pickle=False)


def check(
    transitions: Transitions,
    observation_space: gymnasium.Space[Any],
    action_space: gymnasium.Space[Any],
    source: str,
) -> None:
    """Find the first thing that makes a record in memory unfit to learn from, or nothing.

    Args:
        transitions: `[N]`.
        observation_space: of one environment.
        action_space: of one environment.
        source: what to call the record in the message.

    Raises:
        DemonstrationError: not flat, not the dtypes and shapes that `Transitions` names, values that are not finite or
            outside their space, or rows that no episode end closes; the text names field and row.
        UnsupportedSpaceError: a space that is none of Box, Discrete, MultiDiscrete, MultiBinary.
    """
    if transitions.batch_dims != 1:
        raise DemonstrationError(
            f"{source}: has batch shape {list(transitions.batch_size)}; demonstrations are flat [N], trajectory after "
            "trajectory"
        )
    given = {key: value for key, field in FIELDS.items() if (value := getattr(transitions, field)) is not None}
    arrays = {key: value.detach().cpu().numpy() for key, value in given.items()}
    columns = Columns(arrays, named(source, FIELDS), {})
    needed = _transitions(columns, observation_space, action_space)
    for key, value in given.items():
        wanted = getattr(needed, FIELDS[key])
        if (value.dtype, value.shape) != (wanted.dtype, wanted.shape):
            raise DemonstrationError(
                f"{columns.where(key, None)} is {value.dtype} {list(value.shape)}; for this environment it has to be "
                f"{wanted.dtype} {list(wanted.shape)}: convert it"
            )


def recorded_return(demonstrations: Demonstrations, deterministic: bool) -> Reference | None:
    """The expert's return that demonstrations tell; None where nobody recorded one.

    It is the one that their metadata hold (see `with_return`), if the expert acted as is asked for, else the mean of
    their returns, unless all are 0 or they are a learner's.

    Args:
        demonstrations: all that there are.
        deterministic: by its mode, else by draws.
    """
    metadata = demonstrations.metadata
    mode, episodes = metadata.get("expert_return_deterministic", True), metadata.get("expert_return_episodes", 0)
    if not isinstance(mode, bool) or isinstance(episodes, bool) or not isinstance(episodes, int) or episodes < 0:
        raise DemonstrationError(
            f"data.demonstrations: 'metadata' has expert_return_deterministic {mode!r} and expert_return_episodes "
            f"{episodes!r}; the one has to be true or false, the other a number of episodes"
        )
    if "expert_return" in metadata and mode == deterministic:
        told = (metadata["expert_return"], metadata.get("expert_return_error", 0.0))
        if not all(isinstance(value, int | float) and np.isfinite(value) for value in told):
            raise DemonstrationError(
                f"data.demonstrations: 'metadata' has expert_return {told[0]!r} and expert_return_error {told[1]!r}; "
                "both have to be finite numbers"
            )
        error = float(told[1]) if "expert_return_error" in metadata else None
        return Reference(float(told[0]), error, episodes)
    if metadata.get("returns") == LEARNER or not demonstrations.episode_returns.any():
        return None
    return Reference.of(demonstrations.episode_returns.numpy())


def with_return(metadata: Metadata, reference: Reference | None, deterministic: bool) -> Metadata:
    """Metadata that hold the expert's return, where it is known."""
    if reference is None:
        return metadata
    known: Metadata = {"expert_return": reference.mean, "expert_return_episodes": reference.episodes}
    known["expert_return_deterministic"] = deterministic
    if reference.error is not None:
        known["expert_return_error"] = reference.error
    return {**metadata, **known}


def with_successors(demonstrations: Demonstrations) -> Demonstrations:
    """The same with `next_observation`: where it was not recorded, each row's is the observation of the row after it.

    The last row of each trajectory, whose successor nobody knows, is then left out, and the one before it is truncated.

    Raises:
        DemonstrationError: no trajectory has two rows.
    """
    transitions = demonstrations.transitions.clone(recurse=False)
    if transitions.next_observation is not None:
        return demonstrations
    transitions.next_observation = transitions.observation.roll(-1, 0)
    returns = demonstrations.episode_returns[transitions.episode_lengths() > 1]
    if not len(returns):
        raise DemonstrationError(
            "the demonstrations have no next_observations, and none of their trajectories has a second row to read "
            "them from: record next_observations, [N, *obs], the true successor of each row"
        )
    return demonstrations._replace(transitions=transitions.keep(~transitions.done), episode_returns=returns)


def subsample(demonstrations: Demonstrations, every: int, generator: torch.Generator) -> Demonstrations:
    """One row in `every` of each trajectory, from an offset drawn uniformly in `[0, min(every, length))`.

    Successors stay the true ones, one step ahead. The last row kept of each trajectory is marked as truncated, unless
    it is the trajectory's own last.

    Raises:
        ConfigError: `every` below 1.
    """
    if every < 1:
        raise ConfigError(f"subsample is {every}; one row in k is kept, with k at least 1")
    transitions = demonstrations.transitions
    if every == 1 or not len(transitions):
        return demonstrations
    lengths = transitions.episode_lengths()
    episode = transitions.episode_index()
    limits = lengths.clamp(max=every)
    offsets = (torch.rand(len(lengths), generator=generator, dtype=torch.float64).to(limits.device) * limits).long()
    step = torch.arange(len(transitions), device=episode.device) - (lengths.cumsum(0) - lengths)[episode]
    kept = ((step - offsets[episode]) % every == 0) & (step >= offsets[episode])
    return demonstrations._replace(transitions=transitions.keep(kept))


def take(demonstrations: Demonstrations, count: int, generator: torch.Generator) -> Demonstrations:
    """`count` trajectories chosen at random without replacement, in the order in which they stood.

    From one state of `generator`, a smaller choice is part of any larger one.

    Raises:
        DemonstrationError: there are fewer.
        ConfigError: `count` below 1.
    """
    episodes = len(demonstrations.episode_returns)
    if count < 1:
        raise ConfigError(f"num_trajectories is {count}; at least 1 is needed")
    if count > episodes:
        raise DemonstrationError(f"{count} trajectories were asked for, but there are {episodes}")
    return demonstrations.select(torch.randperm(episodes, generator=generator)[:count].sort().values)


def split(
    demonstrations: Demonstrations, fraction: float, generator: torch.Generator
) -> tuple[Demonstrations, Demonstrations]:
    """Training and held-out trajectories, `fraction` of them (rounded) on the held-out side, chosen at random.

    Where `fraction` is above 0 and there are two trajectories or more, each side has at least one; a single trajectory
    is for training.

    Raises:
        ConfigError: `fraction` outside `[0, 1)`.
    """
    if not 0 <= fraction < 1:
        raise ConfigError(f"the held-out fraction is {fraction}; it has to be at least 0 and below 1")
    episodes = len(demonstrations.episode_returns)
    held = min(max(round(fraction * episodes), 1 if fraction > 0 else 0), max(episodes - 1, 0))
    order = torch.randperm(episodes, generator=generator)
    return demonstrations.select(order[held:].sort().values), demonstrations.select(order[:held].sort().values)


def _transitions(
    columns: Columns, observation_space: gymnasium.Space[Any], action_space: gymnasium.Space[Any]
) -> Transitions:
    """Checked columns as a record, in the dtypes and shapes that `Transitions` names."""
    arrays = columns.arrays
    per_row = [key for key in FIELDS if key in arrays]
    for key in per_row:
        if arrays[key].ndim == 0:
            raise DemonstrationError(f"{columns.where(key, None)} is a single value; a column has one a row")
    length = len(arrays["observations"])
    if length == 0:
        raise DemonstrationError(f"{columns.where('observations', None)} holds no transitions (0 rows)")
    for key in per_row:
        if len(arrays[key]) != length:
            raise DemonstrationError(
                f"{columns.where(key, None)} has {len(arrays[key])} rows, but 'observations' has {length}: "
                "lengths differ, and every key needs one row a transition"
            )
    fitted: dict[str, Array] = {
        "observation": _fit("observations", columns, observation_space),
        "action": _fit("actions", columns, action_space),
        "reward": _scalars("rewards", columns) if "rewards" in arrays else np.zeros(length, np.float32),
        "terminated": _flags("terminals", columns),
        "truncated": _flags("timeouts", columns),
    }
    if isinstance(action_space, Box):
        fitted["action"] = _bounded(fitted["action"], columns, action_space)
    if "next_observations" in arrays:
        fitted["next_observation"] = _fit("next_observations", columns, observation_space)
    if "weights" in arrays:
        fitted["weight"] = weights = _scalars("weights", columns)
        _no_row("weights", weights < 0, columns, lambda row: f"is {weights[row]}; weights are 0 or more")
        if not weights.any():
            raise DemonstrationError(f"{columns.where('weights', None)} is 0 in all {length} rows: nothing would count")
    if not (fitted["terminated"][-1] or fitted["truncated"][-1]):
        ends = np.flatnonzero(fitted["terminated"] | fitted["truncated"])
        none = f"there is no episode end in any of its {length} rows" if not len(ends) else "no episode end"
        drop = f", or drop the rows after {ends[-1]}, the last end there is" if len(ends) else ""
        raise DemonstrationError(
            f"{columns.where('timeouts', length - 1)} (the last): {none}, neither in 'terminals' nor in 'timeouts'. "
            f"Every trajectory has to end: set 'timeouts' at its last row where recording just stopped{drop}"
        )
    return Transitions.from_numpy(fitted)


def _fit(key: str, columns: Columns, space: gymnasium.Space[Any]) -> Array:
    """A column of observations or actions in the dtype and shape that its space asks for."""
    array = columns.arrays[key]
    if not isinstance(space, Box | Discrete | MultiDiscrete | MultiBinary) or (
        key == "actions" and isinstance(space, MultiBinary)
    ):
        kinds = (
            "Box, Discrete and MultiDiscrete" if key == "actions" else "Box, Discrete, MultiDiscrete and MultiBinary"
        )
        raise UnsupportedSpaceError(f"{columns.where(key, None)} is for {space}; {kinds} can be read")
    if array.dtype.kind == "b" and key != "actions":
        array = array.astype(np.uint8)
    _numeric(key, array, columns)
    shape = (len(array), *(space.shape or ()))
    single = space.shape in ((), (1,)) and array.shape in ((len(array),), (len(array), 1))
    if array.shape != shape and not single:
        raise DemonstrationError(
            f"{columns.where(key, None)} has shape {list(array.shape)}, but {space} needs {list(shape)}: "
            "are these demonstrations of another environment?"
        )
    array = array.reshape(shape)
    if isinstance(space, Discrete | MultiDiscrete | MultiBinary):
        return _choices(key, array, columns, space)
    if space.dtype == np.uint8 and key != "actions":
        if array.dtype.kind not in "iu":
            raise DemonstrationError(
                f"{columns.where(key, None)} holds {array.dtype}; this environment's observations are uint8: "
                "write them as it gave them, 0 to 255"
            )
        if array.dtype != np.uint8:
            outside = (array < 0) | (array > 255)
            _no_row(key, outside, columns, lambda row: "is not in 0 to 255, where uint8 observations lie")
        return array.astype(np.uint8, copy=False)
    return _finite(key, array, np.float32, columns)


def _choices(key: str, array: Array, columns: Columns, space: Discrete | MultiDiscrete | MultiBinary) -> Array:
    """`[N]` or `[N, *components]` int64, each one of the space's values; whole numbers in float arrays will do."""
    if array.dtype.kind == "f":
        array = _finite(key, array, array.dtype, columns)
        _no_row(key, array != np.floor(array), columns, lambda row: f"is {array[row]}; {space} has whole numbers only")
    low: Any = 0
    high: Any = 1
    if not isinstance(space, MultiBinary):
        low, high = space.start, space.start + (space.n if isinstance(space, Discrete) else space.nvec) - 1
    outside = (array < low) | (array > high)
    _no_row(
        key,
        outside,
        columns,
        lambda row: f"is {array[row].tolist()}, outside {space}, whose values are {low} to {high}",
    )
    return array.astype(np.int64, copy=False)


def _bounded(actions: Array, columns: Columns, space: Box) -> Array:
    """Actions inside their box: clipped where rounding put them outside, refused where more than rounding did."""
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    width = high - low
    slack = ACTION_TOLERANCE * np.where(np.isfinite(width), width, 1.0)
    outside = (actions < low - slack) | (actions > high + slack)
    if outside.any():
        row, *column = np.unravel_index(int(outside.argmax()), actions.shape)
        value, bounds = actions[(row, *column)], (space.low[tuple(column)], space.high[tuple(column)])
        raise DemonstrationError(
            f"{columns.where('actions', int(row))}{_column(column)} is {value}, outside the action space, "
            f"[{bounds[0]}, {bounds[1]}] there. Bring the actions to the environment's own units; where it clipped "
            "them itself as they were recorded, do the same: np.clip(actions, low, high)"
        )
    return np.clip(actions, *float32_bounds(space))


def _scalars(key: str, columns: Columns) -> Array:
    """`[N]` float32, finite."""
    array = _column_of(columns.arrays[key])
    _numeric(key, array, columns)
    if array.ndim != 1:
        raise DemonstrationError(
            f"{columns.where(key, None)} has shape {list(array.shape)}; one number a row is needed"
        )
    return _finite(key, array, np.float32, columns)


def _flags(key: str, columns: Columns) -> Array:
    """`[N]` bool, from bools or from numbers that are 0 or 1."""
    array = _column_of(columns.arrays[key])
    if array.ndim != 1:
        raise DemonstrationError(f"{columns.where(key, None)} has shape {list(array.shape)}; one flag a row is needed")
    if array.dtype.kind != "b":
        _numeric(key, array, columns)
        _no_row(key, (array != 0) & (array != 1), columns, lambda row: f"is {array[row]}; a flag is 0 or 1")
    return array.astype(np.bool_, copy=False)


def _column_of(array: Array) -> Array:
    """`[N]` for `[N, 1]`, and others as they are."""
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def _numeric(key: str, array: Array, columns: Columns) -> None:
    if array.dtype.kind not in "iuf":
        raise DemonstrationError(f"{columns.where(key, None)} holds {array.dtype}; numbers are needed")


def _finite(key: str, array: Array, dtype: Any, columns: Columns) -> Array:
    """The array in another precision, where no value is NaN, infinite, or too large for it."""
    with np.errstate(over="ignore"):
        cast = array.astype(dtype, copy=False)
    finite = np.isfinite(cast)
    if not finite.all():
        row, *column = np.unravel_index(int((~finite).argmax()), array.shape)
        raise DemonstrationError(
            f"{columns.where(key, int(row))}{_column(column)} is {array[(row, *column)]}, which is not finite in "
            f"{cast.dtype}: mend it or leave its trajectory out"
        )
    return cast


def _no_row(key: str, bad: Array, columns: Columns, text: Callable[[int], str]) -> None:
    """Raise for the first row of `bad` `[N, ...]`, if any, with what `text` says of it."""
    if bad.any():
        row = int(np.unravel_index(int(bad.argmax()), bad.shape)[0])
        raise DemonstrationError(f"{columns.where(key, row)} {text(row)}")


def _column(index: list[Any]) -> str:
    """The place within a row, for a message; nothing where a row is one number."""
    return f", column {', '.join(map(str, index))}" if index else ""
