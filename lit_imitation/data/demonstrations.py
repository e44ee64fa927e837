"""Demonstrations: reading, writing, checking, and selecting trajectories."""

from __future__ import annotations

import errno
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import gymnasium
import numpy as np
import torch
from torch import Tensor

from lit_imitation.data.array_files import FORMATS, format_of
from lit_imitation.data.checks import FIELDS, check_numeric, column_of, finite, transitions_of
from lit_imitation.data.columns import Array, Columns, Metadata, named
from lit_imitation.data.sources import read_columns
from lit_imitation.data.stored_observations import StoredObservations, StoredSelection
from lit_imitation.errors import ConfigError, DemonstrationError
from lit_imitation.rollout.reference import Reference
from lit_imitation.transitions import Transitions
from lit_imitation.utils.files import atomic_file, expand_user
from lit_imitation.utils.integrity import check_within
from lit_imitation.utils.spaces import PackedBox

LEARNER = "learner"
"""`metadata["returns"]` of a file whose actions are the expert's, but whose returns are a learner's."""


class Demonstrations(NamedTuple):
    """Expert trajectories with returns and metadata."""

    transitions: Transitions
    """`[N]`: trajectories one after another, whole or subsampled."""
    episode_returns: Tensor
    """`[episodes]` float64: return of each whole trajectory; subsampling does not change it."""
    metadata: Metadata
    """Notes of the writer: env_id, expert, seed, …"""
    stored: StoredObservations | None = None
    """Observations that stay on disk; those of `transitions` are then row numbers `[N]` in them."""

    def select(self, episodes: Tensor) -> Demonstrations:
        """Select the trajectories with these indices `[n]`, in this order."""
        transitions = self.transitions.select_episodes(episodes)
        return self._replace(transitions=transitions, episode_returns=self.episode_returns[episodes])


def read_demonstrations(
    source: str | Path | Sequence[str | Path],
    observation_space: gymnasium.Space[Any],
    action_space: gymnasium.Space[Any],
    *,
    observation_keys: Sequence[str] | None = None,
    filter_key: str = "",
    successors: bool = True,
    clip_actions: bool = False,
) -> Demonstrations:
    """Read demonstrations and check them against an environment's spaces; no code from the source is run.

    Args:
        source: Path of an `.npz` or `.hdf5` file in the layout of D4RL or of the `imitation` library, or of a robomimic
            file; a folder of such files (like DAgger's `dataset`), read in the order of their names; a zarr store of
            Diffusion Policy, or a LeRobot folder; `minari:ID` or `minari:DIRECTORY`; `hf:NAME` or `hf:DIRECTORY`. The
            trajectories of several sources are joined in the given order.
        observation_space: Observation space of one environment.
        action_space: Action space of one environment.
        observation_keys: Keys to read from observations that are dictionaries, in this order; by default those of the
            environment's Dict space, or else all that are no images. `metadata["observation_keys"]` lists them.
        filter_key: Filter key of a robomimic file: read the demonstrations that `mask/<filter_key>` lists.
        successors: Read the successors of observations with images, which take as much memory again.
        clip_actions: Clip actions into the action space, instead of refusing those outside.

    Raises:
        DemonstrationError: The source is faulty; the text names file, key and row.
        UnsupportedSpaceError: A space is not a Box, Discrete, MultiDiscrete or MultiBinary.
        MissingExtraError: The library for a `minari:` or `hf:` source is not installed.
    """
    options: dict[str, Any] = {"filter_key": filter_key, "successors": successors}
    sources = read_all(source, observation_space, observation_keys=observation_keys, **options)
    return demonstrations_of(sources, observation_space, action_space, clip_actions)


def read_all(
    source: str | Path | Sequence[str | Path],
    observation_space: gymnasium.Space[Any] | None = None,
    *,
    observation_keys: Sequence[str] | None = None,
    filter_key: str = "",
    successors: bool = True,
    stored: bool = False,
) -> list[Columns]:
    """Columns of a source, not yet checked; one entry for each file of a folder or list.

    Args:
        source: As for `read_demonstrations`.
        observation_space: As for `read_columns`.
        observation_keys: As for `read_demonstrations`.
        filter_key: As for `read_demonstrations`.
        successors: As for `read_demonstrations`.
        stored: As for `read_columns`.
    """
    read = partial(read_columns, successors=successors, stored=stored)
    return [read(one, observation_space, observation_keys, filter_key) for one in files_of(source)]


def files_of(source: str | Path | Sequence[str | Path]) -> list[str]:
    """Sources one by one: those of a list, and the files of a folder in the order of their names."""
    if not isinstance(source, str | Path):
        if not source:
            raise DemonstrationError("an empty list of sources; demonstrations are a path, minari:ID or hf:NAME")
        return [file for one in source for file in files_of(one)]
    source = str(source)
    folder = expand_user(source)
    inside = sorted(file for file in folder.glob("[!.]*") if file.suffix in FORMATS) if folder.is_dir() else []
    for file in inside:
        check_within(file, folder, DemonstrationError)
    return [str(file) for file in inside] or [source]


def demonstrations_of(
    sources: Sequence[Columns],
    observation_space: gymnasium.Space[Any],
    action_space: gymnasium.Space[Any],
    clip_actions: bool = False,
) -> Demonstrations:
    """Check columns against spaces, and join them to demonstrations."""
    parts = [_demonstrations_of(columns, observation_space, action_space, clip_actions) for columns in sources]
    if len(parts) == 1:
        return parts[0]
    returns = torch.cat([part.episode_returns for part in parts])
    metadata = _joined([part.metadata for part in parts])
    return Demonstrations(Transitions.concatenate([part.transitions for part in parts]), returns, metadata)


def stored_demonstrations(
    sources: Sequence[Columns],
    observation_space: gymnasium.Space[Any],
    action_space: gymnasium.Space[Any],
    clip_actions: bool = False,
) -> Demonstrations:
    """As `demonstrations_of`, from columns whose observations are `StoredRows` and stay on disk."""
    demonstrations = demonstrations_of(sources, observation_space, action_space, clip_actions)
    demonstrations.transitions.observation = torch.arange(len(demonstrations.transitions))
    return demonstrations._replace(stored=StoredObservations(sources, observation_space))


def _demonstrations_of(
    columns: Columns, observation_space: gymnasium.Space[Any], action_space: gymnasium.Space[Any], clip_actions: bool
) -> Demonstrations:
    transitions = transitions_of(columns, observation_space, action_space, clip_actions)
    returns = transitions.episode_returns()
    if "episode_returns" in columns.arrays:
        written = column_of(columns.arrays["episode_returns"])
        place = columns.where("episode_returns", None)
        check_numeric("episode_returns", written, columns)
        if written.shape != tuple(returns.shape):
            raise DemonstrationError(
                f"{place} has shape {list(written.shape)}; the flags end {len(returns)} episodes: one return "
                "per episode is needed"
            )
        returns = torch.from_numpy(finite("episode_returns", written, np.float64, columns).copy())
    return Demonstrations(transitions, returns, columns.metadata)


def _joined(parts: Sequence[Metadata]) -> Metadata:
    """Metadata of the first of several files; the expert's return only if all agree on it."""
    told = [{key: value for key, value in part.items() if key.startswith("expert_return")} for part in parts]
    metadata = {key: value for key, value in parts[0].items() if key not in told[0]}
    if all(one == told[0] for one in told):
        metadata |= told[0]
    if any(part.get("returns") == LEARNER for part in parts):
        metadata["returns"] = LEARNER
    return metadata


def write_demonstrations(
    path: str | Path, demonstrations: Demonstrations, observation_space: gymnasium.Space[Any] | None = None
) -> None:
    """Write an `.npz` or `.hdf5` file in D4RL's layout, which `read_demonstrations` reads back.

    In addition to D4RL's keys it holds `weights` if there are any, `episode_returns` and `metadata` (JSON). Writing is
    atomic: if it is interrupted, an earlier file of that name is unchanged.

    Args:
        path: The file.
        demonstrations: What to write.
        observation_space: Space of the observations, if known. Packed ones are then written as `observations/<path>`,
            which other programs can read, rather than as rows of bytes.

    Raises:
        DemonstrationError: The suffix is unknown, or there is nothing to write.
    """
    path = expand_user(path)
    npz = format_of(path) == "npz"
    transitions = demonstrations.transitions
    if not len(transitions):
        raise DemonstrationError(f"{path}: there are no transitions to write")
    given = {key: value for key, field in FIELDS.items() if (value := getattr(transitions, field)) is not None}
    columns: dict[str, Array | _Pieces] = {key: value.detach().cpu().numpy() for key, value in given.items()}
    if demonstrations.stored is not None:
        selection = StoredSelection(demonstrations.stored, transitions.observation)
        columns["observations"] = _Pieces(selection, demonstrations.stored.example())
    if isinstance(observation_space, PackedBox):
        for key in [key for key in columns if key.endswith("observations")]:
            rows = columns.pop(key)
            columns |= {
                f"{key}/{part.path}": rows.map(part.from_bytes) if isinstance(rows, _Pieces) else part.from_bytes(rows)
                for part in observation_space.parts
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
                    # A string of fixed length, because a damaged one of variable length can hang the HDF5 library.
                    hdf5.create_dataset("metadata", data=np.bytes_(metadata))
                    filters = {"compression": "gzip", "shuffle": True, "fletcher32": True}
                    for key, column in columns.items():
                        if isinstance(column, _Pieces):
                            column.write_rows(hdf5.create_dataset(key, column.shape, column.dtype, **filters))
                        else:
                            hdf5.create_dataset(key, data=column, **filters)
            except (OSError, RuntimeError) as error:  # HDF5 reports a full disk in a page of text
                number = getattr(error, "errno", None) or (errno.ENOSPC if "errno = 28" in str(error) else errno.EIO)
                raise OSError(number, os.strerror(number), str(path)) from error


class _Pieces:
    """Array `[N, ...]` on disk that is copied a piece at a time.

    Args:
        selection: The rows.
        example: One row, `[1, ...]`.
        convert: Function that is applied to each piece.
    """

    def __init__(
        self, selection: StoredSelection, example: Array, convert: Callable[[Array], Array] = lambda rows: rows
    ) -> None:
        self.selection, self.example, self.convert = selection, example, convert
        row = convert(example)
        self.shape, self.dtype = (len(selection), *row.shape[1:]), row.dtype

    def map(self, convert: Callable[[Array], Array]) -> _Pieces:
        return _Pieces(self.selection, self.example, convert)

    def __iter__(self) -> Iterator[Array]:
        return (self.convert(piece.numpy()) for piece in self.selection)

    def write_rows(self, dataset: Any) -> None:
        start = 0
        for piece in self:
            dataset[start : start + len(piece)] = piece
            start += len(piece)

    def write_npy(self, file: IO[bytes]) -> None:
        header = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": self.shape}
        np.lib.format.write_array_header_1_0(file, header)
        for piece in self:
            file.write(np.ascontiguousarray(piece).data)


def _write_npz(file: IO[bytes], arrays: Mapping[str, Array | _Pieces]) -> None:
    """Like `np.savez_compressed`, but floats stay uncompressed: they shrink little, and DAgger waits for the file.

    Observations from disk stay uncompressed too, so that they can be read from disk again.
    """
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")  # a fixed date, so that equal data give equal files
            plain = isinstance(array, _Pieces) or array.dtype.kind == "f"
            member.compress_type = zipfile.ZIP_STORED if plain else zipfile.ZIP_DEFLATED
            with archive.open(member, "w", force_zip64=True) as out:
                if isinstance(array, _Pieces):
                    array.write_npy(out)
                else:
                    np.lib.format.write_array(out, array, allow_pickle=False)


def columns_of(transitions: Transitions, source: str) -> Columns:
    """Columns of transitions `[N]` in memory; `source` names them in messages.

    Raises:
        DemonstrationError: The batch is not flat.
    """
    if transitions.batch_dims != 1:
        raise DemonstrationError(
            f"{source}: has batch shape {list(transitions.batch_size)}; demonstrations are flat [N], one trajectory "
            "after another"
        )
    given = {key: value for key, field in FIELDS.items() if (value := getattr(transitions, field)) is not None}
    arrays = {key: value.detach().cpu().numpy() for key, value in given.items()}
    return Columns(arrays, named(source, FIELDS), {})


def check(
    transitions: Transitions,
    observation_space: gymnasium.Space[Any],
    action_space: gymnasium.Space[Any],
    source: str,
) -> None:
    """Check transitions in memory against an environment's spaces.

    Args:
        transitions: Transitions `[N]`.
        observation_space: Observation space of one environment.
        action_space: Action space of one environment.
        source: Name of the transitions in messages.

    Raises:
        DemonstrationError: The batch is not flat, dtypes or shapes differ from those of `Transitions`, values are not
            finite or outside their space, or the last row does not end an episode; the text names field and row.
        UnsupportedSpaceError: A space is not a Box, Discrete, MultiDiscrete or MultiBinary.
    """
    columns = columns_of(transitions, source)
    needed = transitions_of(columns, observation_space, action_space)
    for key in columns.arrays:
        value, wanted = getattr(transitions, FIELDS[key]), getattr(needed, FIELDS[key])
        if (value.dtype, value.shape) != (wanted.dtype, wanted.shape):
            raise DemonstrationError(
                f"{columns.where(key, None)} is {value.dtype} {list(value.shape)}; for this environment it must be "
                f"{wanted.dtype} {list(wanted.shape)}: convert it"
            )


def recorded_return(demonstrations: Demonstrations, deterministic: bool) -> Reference | None:
    """The expert's return recorded in demonstrations; None if there is none.

    Metadata come first (see `with_return`), if the expert acted in the requested way; otherwise it is the mean of the
    trajectories' returns, unless all are 0 or they are a learner's.

    Args:
        demonstrations: All trajectories of the source.
        deterministic: Whether the return is of deterministic actions, rather than of sampled ones.
    """
    metadata = demonstrations.metadata
    mode, episodes = metadata.get("expert_return_deterministic", True), metadata.get("expert_return_episodes", 0)
    if not isinstance(mode, bool) or isinstance(episodes, bool) or not isinstance(episodes, int) or episodes < 0:
        raise DemonstrationError(
            f"data.demonstrations: 'metadata' has expert_return_deterministic {mode!r} and expert_return_episodes "
            f"{episodes!r}; these must be true or false, and a number of episodes"
        )
    if "expert_return" in metadata and mode == deterministic:
        told = (metadata["expert_return"], metadata.get("expert_return_error", 0.0))
        if not all(isinstance(value, int | float) and np.isfinite(value) for value in told):
            raise DemonstrationError(
                f"data.demonstrations: 'metadata' has expert_return {told[0]!r} and expert_return_error {told[1]!r}; "
                "both must be finite numbers"
            )
        error = float(told[1]) if "expert_return_error" in metadata else None
        return Reference(float(told[0]), error, episodes)
    if metadata.get("returns") == LEARNER or not demonstrations.episode_returns.any():
        return None
    return Reference.of(demonstrations.episode_returns.numpy())


def with_return(metadata: Metadata, reference: Reference | None, deterministic: bool) -> Metadata:
    """Metadata with the expert's return added, if it is known."""
    if reference is None:
        return metadata
    known: Metadata = {"expert_return": reference.mean, "expert_return_episodes": reference.episodes}
    known["expert_return_deterministic"] = deterministic
    if reference.error is not None:
        known["expert_return_error"] = reference.error
    return {**metadata, **known}


def with_successors(demonstrations: Demonstrations, keep_terminal: bool = False) -> Demonstrations:
    """Demonstrations with `next_observation`, which is read from the next row if it was not recorded.

    The last row of each trajectory has no next row. It is dropped, and the row before it is marked as truncated.

    Args:
        demonstrations: Demonstrations.
        keep_terminal: Keep last rows that terminated, with their own observation in the successor's place: for methods
            that never look at it.

    Raises:
        DemonstrationError: No row is left.
    """
    transitions = demonstrations.transitions.clone(recurse=False)
    if transitions.next_observation is not None:
        return demonstrations
    following, done = transitions.observation.roll(-1, 0), transitions.done
    kept = ~done
    if keep_terminal:
        own = done.view(-1, *[1] * (following.ndim - 1))
        following, kept = torch.where(own, transitions.observation, following), kept | transitions.terminated
    transitions.next_observation = following
    left = transitions.keep(kept)
    if not len(left):
        raise DemonstrationError(
            "the demonstrations have no next_observations, and none of their trajectories has a second row to read "
            "them from: record next_observations [N, *obs], the true successor of each row"
        )
    has_rows = torch.zeros(len(demonstrations.episode_returns), dtype=torch.bool)
    has_rows[transitions.episode_index()[kept].cpu()] = True
    return demonstrations._replace(transitions=left, episode_returns=demonstrations.episode_returns[has_rows])


def subsample(demonstrations: Demonstrations, every: int, generator: torch.Generator) -> Demonstrations:
    """Keep every `every`-th row of each trajectory, from an offset drawn uniformly from `[0, min(every, length))`.

    Successors remain the true ones, one step ahead. The last kept row of each trajectory is marked as truncated, unless
    it is the trajectory's last row.

    Raises:
        ConfigError: `every` is below 1.
    """
    if every < 1:
        raise ConfigError(f"subsample is {every}; it must be at least 1")
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
    """Choose `count` trajectories at random without replacement, in their original order.

    With the same state of `generator`, a smaller choice is a subset of a larger one.

    Raises:
        DemonstrationError: There are fewer trajectories.
        ConfigError: `count` is below 1.
    """
    episodes = len(demonstrations.episode_returns)
    if count < 1:
        raise ConfigError(f"num_trajectories is {count}; it must be at least 1")
    if count > episodes:
        raise DemonstrationError(f"num_trajectories is {count}, but there are only {episodes} trajectories")
    return demonstrations.select(torch.randperm(episodes, generator=generator)[:count].sort().values)


def split(
    demonstrations: Demonstrations, fraction: float, generator: torch.Generator
) -> tuple[Demonstrations, Demonstrations]:
    """Split trajectories at random into training and held-out ones; `fraction` of them (rounded) are held out.

    If `fraction` is above 0 and there are at least two trajectories, each side has at least one. A single trajectory is
    for training.

    Raises:
        ConfigError: `fraction` is outside `[0, 1)`.
    """
    if not 0 <= fraction < 1:
        raise ConfigError(f"the held-out fraction is {fraction}; it must be at least 0 and below 1")
    episodes = len(demonstrations.episode_returns)
    held = min(max(round(fraction * episodes), 1 if fraction > 0 else 0), max(episodes - 1, 0))
    order = torch.randperm(episodes, generator=generator)
    return demonstrations.select(order[held:].sort().values), demonstrations.select(order[:held].sort().values)
