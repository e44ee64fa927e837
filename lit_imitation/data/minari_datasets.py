"""Reader of Minari datasets."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Tuple

from lit_imitation.data.array_files import check_tree
from lit_imitation.data.columns import UNREADABLE, Array, Columns, Metadata, join, last_rows, read_json, require_keys
from lit_imitation.data.episodes import Episode, Recording, episode_flags, to_columns
from lit_imitation.errors import DemonstrationError, require
from lit_imitation.utils.files import expand_user
from lit_imitation.utils.integrity import check_file, check_within
from lit_imitation.utils.spaces import FlatBox, has_pictures, leaf_spaces


class _Loaded(NamedTuple):
    """A Minari dataset in memory."""

    dataset: Any
    episodes: list[Any]
    space: gymnasium.Space[Any]
    """Recorded observation space, with its keys in the order of the recorded environment."""


def _load(source: str) -> _Loaded:
    """Load `minari:ID` or `minari:DIRECTORY`, after checks that no code runs and no other file is read."""
    name = source.removeprefix("minari:")
    minari = require("minari", "minari", source)
    directory = expand_user(name)
    if not directory.is_dir():
        directory = require("minari.storage.datasets_root_dir", "minari", source).get_dataset_path(name)
    data = directory / "data" if (directory / "data").is_dir() else directory
    if not (data / "metadata.json").is_file():
        raise DemonstrationError(
            f"{source}: no Minari dataset in {directory}: download it with `minari download {name}` "
            "(`minari list remote` shows the available ones)"
        )
    try:
        # Without recorded spaces, Minari would build the environment that the file names with the file's arguments,
        # and so run code chosen by the file.
        metadata = read_json(source, data / "metadata.json")
        require_keys(f"{data / 'metadata.json'}", ("observation_space", "action_space"), metadata)
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
    return _Loaded(dataset, episodes, _recorded(dataset.observation_space, metadata["observation_space"]))


@contextmanager
def open_minari(source: str) -> Iterator[Recording]:
    """Open `minari:ID` or `minari:DIRECTORY` as a recording, with the parts of Dict observations by their path."""
    yield _recording(source, _load(source))


def _recording(source: str, loaded: _Loaded) -> Recording:
    dataset, recorded, space = loaded
    episodes = []
    for index, held in enumerate(recorded):
        reward, terminations = np.asarray(held.rewards), np.asarray(held.terminations, bool)
        flags = episode_flags(len(held.rewards), bool(terminations[-1:].any()))
        parts = dict(_parts(space, held.observations, ""))
        episodes.append(Episode(f"episode {index}", parts, np.asarray(held.actions), reward, *flags))
    names = {"observation": "observations", "action": "actions", "reward": "rewards"}
    spaces = dict(leaf_spaces(space)) if isinstance(space, Dict | Tuple) else {}
    return Recording(source, "Minari dataset", episodes, _notes(dataset), names, spaces=spaces)


def _parts(space: gymnasium.Space[Any], values: Any, prefix: str) -> Iterator[tuple[str, Array]]:
    """Arrays `[T + 1, ...]` of observations by path; `observations` for a space without keys."""
    if isinstance(space, Dict | Tuple):
        inner = space.spaces.items() if isinstance(space, Dict) else enumerate(space.spaces)
        for key, part in inner:
            yield from _parts(part, values[key], f"{prefix}/{key}" if prefix else str(key))
    else:
        yield prefix or "observations", np.asarray(values)


def _notes(dataset: Any) -> Metadata:
    notes: Metadata = {"dataset": dataset.id}
    if dataset.env_spec is not None:
        notes["env_id"] = dataset.env_spec.id
    return notes


def read_minari(source: str, observation_space: gymnasium.Space[Any] | None, *, successors: bool = True) -> Columns:
    """Read the columns of `minari:ID` or `minari:DIRECTORY`.

    Args:
        source: Name of the dataset.
        observation_space: The environment's observation space, if there is one. If it was flattened from a Dict or
            Tuple, the observations are flattened as it says.
        successors: Read the successors of observations with images.
    """
    loaded = _load(source)
    dataset, episodes, space = loaded
    if isinstance(space, Dict | Tuple) and has_pictures(space):
        return to_columns(_recording(source, loaded), observation_space, successors=successors)
    original = observation_space.original if isinstance(observation_space, FlatBox) else None
    flatten = isinstance(space, Dict | Tuple)
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
                "these must be equal, with one more 'observations'"
            )
    terminals = np.concatenate([episode.terminations for episode in episodes]).astype(bool)
    timeouts = np.concatenate([episode.truncations for episode in episodes]).astype(bool)
    # An episode whose recording just stopped is a truncated one.
    last = last_rows(source, lengths)
    timeouts[last] |= ~terminals[last]
    names = {"obs": "observations", "acts": "actions", "rews": "rewards"}
    actions = np.concatenate([np.asarray(episode.actions) for episode in episodes])
    rewards = np.concatenate([episode.rewards for episode in episodes])
    columns = join(source, np.concatenate(obs), actions, rewards, lengths, terminals, timeouts, names)
    return columns._replace(metadata=_notes(dataset))


def _recorded(space: gymnasium.Space[Any], written: Any) -> gymnasium.Space[Any]:
    """A dataset's space with its keys in the order of the recorded environment; Minari sorts them."""
    parts = json.loads(written) if isinstance(written, str) else written
    if isinstance(space, Dict):
        inner = {key: _recorded(space[key], part) for key, part in parts["subspaces"].items()}
        return Dict(list(inner.items()))
    if isinstance(space, Tuple):
        pairs = zip(space.spaces, parts["subspaces"], strict=True)
        return Tuple([_recorded(one, part) for one, part in pairs])
    return space


def _check_parts(source: str, where: str, recorded: gymnasium.Space[Any], original: gymnasium.Space[Any]) -> None:
    """Check that a dataset's observations have the same parts as the environment's, compared by name.

    Raises:
        DemonstrationError: A key exists on one side only, or a part has another kind or size; the text names it.
    """
    if isinstance(original, Dict) and isinstance(recorded, Dict):
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
    if isinstance(original, Tuple) and isinstance(recorded, Tuple):
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
    """Check that Minari will read only files of this dataset, and not more episodes than exist.

    Raises:
        DemonstrationError: A path is not a file or leads elsewhere, or the number of episodes is impossible.
    """
    check_within(data, data.parent, DemonstrationError)
    for path in data.rglob("*"):
        check_within(path, data, DemonstrationError)
        if not path.is_dir():
            check_file(path, DemonstrationError)
    most = sum(path.is_dir() for path in data.iterdir())
    if (main := data / "main_data.hdf5").exists():
        import h5py

        check_tree(source, main)
        with h5py.File(main, "r") as file:
            most = max(most, len(file))
    count = metadata.get("total_episodes")
    if not isinstance(count, int) or not 0 <= count <= most:
        raise DemonstrationError(f"{source}: 'total_episodes' is {count!r:.80}, but there are at most {most}")


def _flatten(space: gymnasium.Space[Any], values: Any) -> Array:
    """`[T, d]`: `gymnasium.spaces.flatten` of each row of `values`, by whole columns where possible."""
    if isinstance(space, Dict):
        return np.concatenate([_flatten(inner, values[key]) for key, inner in space.spaces.items()], axis=1)
    if isinstance(space, Tuple):
        return np.concatenate([_flatten(inner, value) for inner, value in zip(space.spaces, values, strict=True)], 1)
    if isinstance(space, Box):
        return np.asarray(values).reshape(len(values), -1)
    return np.stack([np.asarray(gymnasium.spaces.flatten(space, value)) for value in values])
