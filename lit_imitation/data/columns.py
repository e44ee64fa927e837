"""Columns: the content of a demonstration source before it is checked, and what all readers need to build them."""

from __future__ import annotations

import json
import lzma
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from lit_imitation.errors import DemonstrationError
from lit_imitation.utils.integrity import check_file, check_within
from lit_imitation.utils.spaces import FlatBox

Array: TypeAlias = np.ndarray[Any, Any]
Metadata: TypeAlias = dict[str, str | int | float]
FLAT = ("obs", "acts", "terminal", "indices")
"""Archive of the `imitation` library: trajectories end to end, each with one more `obs` than `acts`; also `rews`."""
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
"""Exceptions that libraries raise on damaged files."""
LARGEST_JSON = 2**24
"""Largest size, in bytes, of a JSON file that describes a dataset."""


class Columns(NamedTuple):
    """Content of a source under D4RL's keys, not yet checked."""

    arrays: dict[str, Array]
    where: Callable[[str, int | None], str]
    """Function that names a place in the source's own terms, from key and row (None: the whole column)."""
    metadata: Metadata
    observation_space: FlatBox | None = None
    """Space of the observations if they are several in one array, found without an environment."""


def named(source: str, names: Mapping[str, str]) -> Callable[[str, int | None], str]:
    """`Columns.where` of a source with the same rows as the columns; `names` maps our keys to the source's."""
    return lambda key, row: f"{source}: '{names.get(key, key)}'" + ("" if row is None else f", row {row}")


def require_keys(
    source: str,
    required: Sequence[str],
    held: Sequence[str] | Mapping[str, Any],
    others: Sequence[str] = (),
) -> None:
    """Raise an error if a key is missing; it lists the keys that exist, `held` and `others`."""
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
        text += " If episodes end only by terminals, add an all-False array: timeouts = np.zeros(N, dtype=bool)"
    raise DemonstrationError(text)


def read_json(source: str, path: Path) -> dict[str, Any]:
    """A JSON object of bounded size."""
    check_within(path, path.parent, DemonstrationError)
    try:
        held = json.loads(check_file(path, DemonstrationError, LARGEST_JSON).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DemonstrationError(f"{source}: {path} is not JSON ({error})") from error
    if not isinstance(held, dict):
        raise DemonstrationError(f"{source}: {path} is not a JSON object")
    return held


def episode_ends(source: str, terminal: Array, lengths: Array) -> tuple[Array, Array]:
    """`terminals, timeouts`, each `[N]`, from one flag per trajectory: terminated, or truncated."""
    if terminal.ndim == 2 and terminal.shape[1] == 1:
        terminal = terminal[:, 0]
    if terminal.dtype.kind not in "biu" or terminal.ndim != 1:
        raise DemonstrationError(
            f"{source}: 'terminal' holds {terminal.dtype} {list(terminal.shape)}; one bool per trajectory is needed"
        )
    terminals, timeouts = np.zeros((2, int(lengths.sum())), dtype=bool)
    last = last_rows(source, lengths)
    terminals[last] = terminal
    timeouts[last] = ~terminals[last]
    return terminals, timeouts


def last_rows(source: str, lengths: Array) -> Array:
    """`[episodes]`: row of each trajectory's last transition."""
    if not (lengths > 0).all():
        raise DemonstrationError(f"{source}: trajectory {(lengths <= 0).argmax()} holds no transitions: leave it out")
    return np.asarray(np.cumsum(lengths) - 1)


def join(
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
        source: Name of the source in messages.
        obs: Observations `[N + episodes, *obs]`.
        acts: Actions `[N, *act]`.
        rews: Rewards `[N]`.
        lengths: Number of transitions of each trajectory `[episodes]`, with sum N.
        terminals: Flags `[N]` of terminal transitions.
        timeouts: Flags `[N]` of truncated transitions.
        names: The source's names of `obs`, `acts` and `rews`, if they differ.
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
