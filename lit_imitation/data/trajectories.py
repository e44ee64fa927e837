"""Reading trajectories of state and action indices."""

from __future__ import annotations

import numpy as np

from lit_imitation.data.columns import UNREADABLE, Array
from lit_imitation.data.sources import read_columns
from lit_imitation.errors import DemonstrationError
from lit_imitation.tabular.trajectories import Trajectories
from lit_imitation.utils.files import expand_user
from lit_imitation.utils.integrity import check_npz
from lit_imitation.utils.trust import refuse_url


def read_trajectories(source: str) -> Trajectories:
    """Read trajectories from an `.npz` file of indices, or from any demonstration file whose observations are indices.

    The `.npz` file holds `states` (of all trajectories, one after another), `lengths`, and optionally `actions`. A
    trajectory of `lengths[i]` = n steps has n + 1 states and n actions; an unknown action is −1. In demonstration files
    without `next_observations`, the last step of each trajectory is dropped because its successor is unknown. Error
    messages number trajectories as the file does.

    Raises:
        DemonstrationError: The file cannot be read, or its columns do not match.
    """
    refuse_url(source, "demonstrations", DemonstrationError)
    held = _own(source)
    if held is not None:
        return _of_states(source, held)
    arrays = read_columns(source).arrays
    states, actions = (_indices(source, key, arrays[key]) for key in ("observations", "actions"))
    done = np.asarray(arrays["terminals"], bool) | np.asarray(arrays["timeouts"], bool)
    if not len(states) or not len(states) == len(actions) == len(done) or not done[-1]:
        raise DemonstrationError(f"{source}: the columns differ in length, or the last row does not end a trajectory")
    ends = np.flatnonzero(done) + 1
    last = None
    if "next_observations" in arrays:
        last = _indices(source, "next_observations", arrays["next_observations"])[ends - 1]
    found, origin = [], []
    for number, (begin, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        visited = states[begin:end] if last is None else np.append(states[begin:end], last[number])
        if len(visited) > 1:  # a single state without a successor teaches nothing
            found.append((visited, actions[begin:end]))
            origin.append(number)
    return Trajectories.from_arrays(found, source, origin)


def _own(source: str) -> dict[str, Array] | None:
    """Arrays of a file with `states`; None for any other file."""
    path = expand_user(source)
    if path.suffix != ".npz" or not path.is_file():
        return None
    try:
        check_npz(path, ("states", "lengths", "actions"), DemonstrationError)
        with np.load(path, allow_pickle=False) as archive:
            if "states" not in archive.files:
                return None
            return {key: archive[key] for key in ("states", "lengths", "actions") if key in archive.files}
    except UNREADABLE as error:
        raise DemonstrationError(f"{source}: cannot be read ({error})") from error


def _of_states(source: str, held: dict[str, Array]) -> Trajectories:
    if "lengths" not in held:
        raise DemonstrationError(f"{source}: missing key 'lengths', the number of steps of each trajectory")
    columns = {key: _indices(source, key, array) for key, array in held.items()}
    lengths, states, actions = columns["lengths"], columns["states"], columns.get("actions")
    if not len(lengths) or lengths.min() < 1:
        raise DemonstrationError(f"{source}: 'lengths' must have one entry per trajectory, each at least 1")
    for key, count in (("states", int(lengths.sum()) + len(lengths)), ("actions", int(lengths.sum()))):
        if key in columns and len(columns[key]) != count:
            raise DemonstrationError(
                f"{source}: '{key}' has {len(columns[key])} entries; by 'lengths' there must be {count}"
            )
    ends = lengths.cumsum()
    visited = np.split(states, (ends + np.arange(1, len(ends) + 1))[:-1])
    if actions is None:
        return Trajectories.from_arrays(visited, source)
    return Trajectories.from_arrays(list(zip(visited, np.split(actions, ends[:-1]), strict=True)), source)


def _indices(source: str, key: str, array: Array) -> Array:
    flat = array.reshape(len(array)) if array.ndim == 2 and array.shape[1] == 1 else array
    if flat.ndim != 1 or flat.dtype.kind not in "iu":
        raise DemonstrationError(f"{source}: '{key}' is {array.dtype} {list(array.shape)}; expected indices")
    return flat
