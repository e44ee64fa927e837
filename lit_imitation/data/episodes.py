"""Recordings: episodes whose observations are dictionaries of arrays, as the readers of structured formats return them.

A reader opens a source and returns a `Recording`. Its arrays stay on disk until they are sliced, so that a recording
can be inspected, or flattened into columns, whatever its size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict

from lit_imitation.data.columns import Array, Columns, Metadata
from lit_imitation.errors import DemonstrationError
from lit_imitation.utils.spaces import FlatBox, PackedBox, Part, flat_space, is_picture

OBSERVATION_KEYS = "observation_keys"
"""Key of the metadata that lists the observation keys of the columns, in their order."""


class Rows(Protocol):
    """Array on disk or in memory `[T, ...]`: an `np.ndarray`, an `h5py.Dataset`, a slice of a zarr array, …"""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape, with the rows first."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of one number."""

    def __getitem__(self, rows: slice, /) -> Any:
        """Read these rows."""


class Span:
    """Rows `start` to `stop` of a longer array, read when they are sliced."""

    def __init__(self, array: Rows, start: int, stop: int) -> None:
        self.array, self.start, self.stop = array, start, stop

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the rows in the span."""
        return (self.stop - self.start, *self.array.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of one number."""
        return self.array.dtype

    def __getitem__(self, rows: slice) -> Array:
        """Read these rows of the span."""
        start, stop, step = rows.indices(self.stop - self.start)
        return np.asarray(self.array[self.start + start : self.start + max(start, stop) : step])


class Episode(NamedTuple):
    """One episode of T steps; nothing is checked yet, so lengths may differ."""

    name: str
    """Its name in the source, for messages."""
    observation: Mapping[str, Rows]
    """`{key: [T, ...]}`, or `[T + 1, ...]` with the observation after the last action."""
    action: Rows
    """`[T, ...]`."""
    reward: Rows | None
    """`[T]`; None if there are none."""
    terminated: Array
    """`[T]` bool; true only in the last row."""
    truncated: Array
    """`[T]` bool; true only in the last row."""
    next_observation: Mapping[str, Rows] = {}
    """`{key: [T, ...]}`; empty if successors are not recorded by themselves."""


class Recording(NamedTuple):
    """Content of a source whose observations are dictionaries."""

    source: str
    """Name of the source in messages."""
    format: str
    """What the source is, such as `robomimic HDF5`."""
    episodes: Sequence[Episode]
    metadata: Metadata
    names: Mapping[str, str]
    """The source's names of `observation`, `next_observation`, `action`, `reward`."""
    faults: Sequence[str] = ()
    """What is wrong, but does not prevent reading."""
    columns: Mapping[str, Rows] = {}
    """Further columns of all episodes: `weights` `[N]` and `episode_returns` `[episodes]`."""
    action_limit: float | None = None
    """Largest absolute value of an action's components by the format's convention, if it has one."""
    spaces: Mapping[str, gymnasium.Space[Any]] = {}
    """Recorded spaces of observations, by key."""

    def name(self, field: str) -> str:
        """The source's name of a field of `Episode`."""
        return self.names.get(field, field)


def episode_flags(length: int, terminated: bool) -> tuple[Array, Array]:
    """`terminated, truncated`, each `[T]`: false but for the last row, where exactly one of them is true."""
    flags = np.zeros((2, length), bool)
    if length:
        flags[0 if terminated else 1, -1] = True
    return flags[0], flags[1]


def is_image(rows: Rows) -> bool:
    """Whether each row is an image: three or more axes, or two axes of bytes."""
    return is_picture(rows.shape[1:], rows.dtype)


def vector_keys(recording: Recording) -> list[str]:
    """Observation keys whose rows are no images, in alphabetical order."""
    first = recording.episodes[0].observation
    return sorted(key for key in first if not is_image(first[key]))


def faults_of(recording: Recording, episode: Episode) -> Iterator[str]:
    """Describe what does not fit within one episode, or differs from the first: keys, lengths, shapes, types."""
    first, length = recording.episodes[0], episode.action.shape[0] if episode.action.shape else 0
    place, action = f"{episode.name}: ", recording.name("action")
    if not length:
        yield f"{place}'{action}' holds no steps"
    if missing := [key for key in first.observation if key not in episode.observation]:
        yield f"{place}lacks the observation '{missing[0]}', which {first.name} has"
    if unknown := [key for key in episode.observation if key not in first.observation]:
        yield f"{place}has the observation '{unknown[0]}', which {first.name} lacks"
    for key, rows in episode.observation.items():
        count = rows.shape[0] if rows.shape else 0
        if count not in (length, length + 1):
            yield f"{place}lengths differ: '{key}' has {count} rows and '{action}' {length}"
    followed = {key: rows for key, rows in episode.next_observation.items() if key in episode.observation}
    fields = [(f"{recording.name('next_observation')}/{key}", rows) for key, rows in followed.items()]
    if episode.reward is not None:
        fields.append((recording.name("reward"), episode.reward))
    for name, rows in fields:
        if not rows.shape or rows.shape[0] != length:
            yield f"{place}lengths differ: '{name}' has {rows.shape[0] if rows.shape else 0} rows, '{action}' {length}"
    pairs = [
        (key, rows, first.observation[key]) for key, rows in episode.observation.items() if key in first.observation
    ]
    for key, rows, other in [*pairs, (action, episode.action, first.action)]:
        if rows.shape[1:] != other.shape[1:]:
            yield (
                f"{place}'{key}' has rows of shape {list(rows.shape[1:])}, but those of {first.name} have "
                f"{list(other.shape[1:])}"
            )
        elif is_image(rows) and rows.dtype != other.dtype:
            yield f"{place}'{key}' holds images of {rows.dtype}, but those of {first.name} are {other.dtype}"


def to_columns(
    recording: Recording,
    observation_space: gymnasium.Space[Any] | None = None,
    observation_keys: Sequence[str] | None = None,
    *,
    successors: bool = True,
) -> Columns:
    """Columns of a recording, with all chosen observations in one array.

    | observation space | keys, by default | observations |
    |---|---|---|
    | flattened from a Dict or Tuple | its paths, in its order | as its `flatten` gives them |
    | another one | all that are no images | one key as it is, several as one vector |
    | None | all, in alphabetical order | one key as it is, several as `flat_space` of a Dict of them |

    Keys that are given for a packed space are those of its parts, in its order.

    Args:
        recording: Open recording.
        observation_space: The environment's observation space, if there is one.
        observation_keys: Keys to read, in this order.
        successors: Read the successors of packed observations; others are read in any case.

    Returns:
        Columns under D4RL's keys; `next_observations` only if the successor of every row is recorded.

    Raises:
        DemonstrationError: A key is missing, or an image among several for a space without parts; lengths, shapes or
            types do not fit; or an array holds objects.
    """
    source = recording.source
    if not recording.episodes:
        raise DemonstrationError(f"{source}: this {recording.format} holds no episodes")
    keys = _chosen(recording, observation_keys, observation_space)
    for episode in recording.episodes:
        for fault in faults_of(recording, episode):
            raise DemonstrationError(f"{source}: {fault}")
        for key in keys:
            _check_type(f"{source}: {episode.name}: '{key}'", episode.observation[key])
        _check_type(f"{source}: {episode.name}: '{recording.name('action')}'", episode.action)
        if episode.reward is not None:
            _check_type(f"{source}: {episode.name}: '{recording.name('reward')}'", episode.reward)
    space = observation_space
    if space is None and len(keys) > 1:
        space = flat_space(Dict([(key, _space_of(recording, key)) for key in keys]))
    lengths = np.array([episode.action.shape[0] for episode in recording.episodes])
    if isinstance(space, PackedBox):
        join = partial(_pack, recording, space, keys, observation_space is None)
    else:
        parts = {part.path: part.space for part in space.parts} if isinstance(space, FlatBox) else {}
        join = partial(_join, recording, keys, {} if observation_keys is not None else parts)
    arrays = {
        "observations": join(lambda episode, key: Span(episode.observation[key], 0, episode.action.shape[0])),
        "actions": np.concatenate([_numbers(episode.action[:]) for episode in recording.episodes]),
        "terminals": np.concatenate([episode.terminated for episode in recording.episodes]),
        "timeouts": np.concatenate([episode.truncated for episode in recording.episodes]),
    }
    rewards = [episode.reward for episode in recording.episodes if episode.reward is not None]
    if len(rewards) == len(lengths):
        arrays["rewards"] = np.concatenate([np.asarray(reward[:]) for reward in rewards])
    if has_successors(recording, keys) and (successors or not isinstance(space, PackedBox)):
        arrays["next_observations"] = join(_successors)
    arrays |= {key: np.asarray(rows[:]) for key, rows in recording.columns.items()}
    metadata = {**recording.metadata, OBSERVATION_KEYS: ", ".join(keys)}
    found = space if observation_space is None and isinstance(space, FlatBox) else None
    if found is not None and found.shape != arrays["observations"].shape[1:]:
        found = None
    return Columns(arrays, _places(recording, keys, lengths), metadata, found)


def _join(
    recording: Recording,
    keys: Sequence[str],
    spaces: Mapping[str, gymnasium.Space[Any]],
    read: Callable[[Episode, str], Rows],
) -> Array:
    """Observations `[N, *shape]` of one key, or `[N, d]` of several as one vector."""
    parts = []
    for episode in recording.episodes:
        held = {key: _numbers(read(episode, key)[:]) for key in keys}
        if len(keys) > 1 or spaces:
            flat = [_flat(spaces.get(key), rows, recording.source, key) for key, rows in held.items()]
            parts.append(np.concatenate(flat, axis=1))
        else:
            parts.append(held[keys[0]])
    return np.concatenate(parts)


def _pack(
    recording: Recording,
    space: PackedBox,
    keys: Sequence[str],
    inferred: bool,
    read: Callable[[Episode, str], Rows],
) -> Array:
    """Packed observations `[N, bytes]`, filled episode by episode: images are in memory once."""
    lengths = [episode.action.shape[0] for episode in recording.episodes]
    packed, start = np.zeros((sum(lengths), *space.shape), np.uint8), 0
    for episode, length in zip(recording.episodes, lengths, strict=True):
        for part, key in zip(space.parts, keys, strict=True):
            rows = _numbers(read(episode, key)[:])
            values = _fitted(part, rows, f"{recording.source}: {episode.name}: '{key}'", inferred)
            packed[start : start + length, part.start : part.stop] = part.to_bytes(values)
        start += length
    return packed


def _fitted(part: Part, rows: Array, place: str, inferred: bool) -> Array:
    """Rows `[T, *shape]` of one part, of values that its stored type can hold; floats as bytes only if inferred."""
    shape = part.space.shape or ()
    if rows.shape[1:] != shape and not {rows.shape[1:], shape} <= {(), (1,)}:
        raise DemonstrationError(
            f"{place} has rows of shape {list(rows.shape[1:])}, but '{part.path}' needs {list(shape)}: {part.space}"
        )
    if part.dtype.kind != "f" and rows.dtype != part.dtype:
        limits = np.iinfo(part.dtype)
        floats = rows.dtype.kind == "f" and part.dtype == np.uint8 and not inferred
        if floats or not _is_whole(rows, limits.min, limits.max):
            raise DemonstrationError(
                f"{place} holds {rows.dtype}, but '{part.path}' is {part.space}: write it unchanged, as {part.dtype}"
            )
    return rows.reshape(len(rows), *shape)


def _is_whole(values: Array, low: float, high: float) -> bool:
    """Whether all values are whole numbers from `low` to `high`."""
    if values.dtype.kind == "f" and not (values == np.floor(values)).all():
        return False
    return not values.size or bool(values.min() >= low and values.max() <= high)


def _space_of(recording: Recording, key: str) -> gymnasium.Space[Any]:
    """Space of one observation among several, from the recording, or from shape, type and, for images, values.

    Images of floats become images of bytes if all their values are whole numbers from 0 to 255, as Diffusion Policy
    stores them, and have the bounds 0 and 1 if all lie between these.
    """
    if key in recording.spaces:
        return recording.spaces[key]
    rows = recording.episodes[0].observation[key]
    shape = rows.shape[1:] or (1,)
    if rows.dtype == np.uint8 and is_image(rows):
        return Box(0, 255, shape, np.uint8)
    if not is_image(rows):
        return Box(-np.inf, np.inf, shape, np.float32)
    unit = bytes_ = True
    for episode in recording.episodes:
        values = np.asarray(episode.observation[key][:])
        bytes_ = bytes_ and _is_whole(values, 0, 255)
        unit = unit and bool((values >= 0).all() and (values <= 1).all())
    if bytes_ and not unit:
        return Box(0, 255, shape, np.uint8)
    return Box(0.0, 1.0, shape, np.float32) if unit else Box(-np.inf, np.inf, shape, np.float32)


def has_successors(recording: Recording, keys: Sequence[str]) -> bool:
    """Whether every row's successor is recorded, by itself or as the next row."""
    return bool(keys) and all(
        key in episode.next_observation or episode.observation[key].shape[0] == episode.action.shape[0] + 1
        for episode in recording.episodes
        for key in keys
    )


def _successors(episode: Episode, key: str) -> Rows:
    if key in episode.next_observation:
        return episode.next_observation[key]
    return Span(episode.observation[key], 1, episode.action.shape[0] + 1)


def _chosen(
    recording: Recording, observation_keys: Sequence[str] | None, observation_space: gymnasium.Space[Any] | None
) -> list[str]:
    """Keys to read, checked against the first episode."""
    source, first = recording.source, recording.episodes[0].observation
    parts = observation_space.parts if isinstance(observation_space, FlatBox) else ()
    if observation_keys is not None:
        keys, asked = list(observation_keys), "data.observation_keys"
        if not keys or len(set(keys)) < len(keys):
            raise DemonstrationError(f"data.observation_keys is {keys}; name each key once, and at least one")
        if isinstance(observation_space, PackedBox) and len(keys) != len(parts):
            raise DemonstrationError(
                f"data.observation_keys is {keys}; the environment has {len(parts)} observations, "
                f"{', '.join(part.path for part in parts)}: name the key of each, in this order"
            )
    elif parts:
        keys, asked = [part.path for part in parts], "the environment"
    else:
        keys, asked = sorted(first) if observation_space is None else vector_keys(recording), "the file"
    found = ", ".join(sorted(first)) or "none"
    if missing := [key for key in keys if key not in first]:
        raise DemonstrationError(f"{source}: has no observation '{missing[0]}', which {asked} names; found {found}")
    if not keys:
        raise DemonstrationError(
            f"{source}: its observations are all images ({found}): name one with data.observation_keys"
            if first
            else f"{source}: this {recording.format} has no observations"
        )
    images = [key for key in keys if is_image(first[key])]
    if images and len(keys) > 1 and observation_space is not None and not isinstance(observation_space, PackedBox):
        raise DemonstrationError(
            f"{source}: the observation '{images[0]}' is an image {list(first[images[0]].shape[1:])}, but the "
            f"observation space {observation_space} has no parts: leave the image out with data.observation_keys, for "
            f"example {vector_keys(recording)[:3]}, or name it alone"
        )
    return keys


def _numbers(rows: Any) -> Array:
    """Rows in memory, with flags as the numbers 0 and 1."""
    array: Array = np.asarray(rows)
    return array.astype(np.uint8) if array.dtype.kind == "b" else array


def _flat(space: gymnasium.Space[Any] | None, array: Array, source: str, key: str) -> Array:
    """Rows `[T, d]` of one observation, one-hot where its space is discrete."""
    if space is None or isinstance(space, Box):
        return array.reshape(len(array), -1)
    try:
        rows = array.reshape(len(array), *(space.shape or ()))
        return np.stack([np.asarray(gymnasium.spaces.flatten(space, row)) for row in rows])
    except (ValueError, IndexError) as error:
        raise DemonstrationError(f"{source}: '{key}' does not fit the environment's {space}: {error}") from error


def _check_type(place: str, rows: Rows) -> None:
    """Raise an error unless an array holds numbers; objects are pickles or text."""
    if rows.dtype.kind not in "biuf":
        raise DemonstrationError(f"{place} holds {rows.dtype}; numbers are needed")


def _places(recording: Recording, keys: Sequence[str], lengths: Array) -> Callable[[str, int | None], str]:
    """`Columns.where` of a recording: episode and row within it."""
    fields = {"observations": "observation", "next_observations": "next_observation", "actions": "action"}
    fields["rewards"] = "reward"
    starts = np.cumsum(lengths) - lengths

    def where(key: str, row: int | None) -> str:
        text = f"{recording.source}: '{recording.name(fields.get(key, key))}'"
        if key.endswith("observations"):
            text += f" ({', '.join(keys):.200})"
        if row is None:
            return text
        episode = int(np.searchsorted(starts, row, "right")) - 1
        return f"{text}, row {row - starts[episode]} of {recording.episodes[episode].name}"

    return where
