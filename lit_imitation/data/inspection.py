"""Inspection of recorded episodes: keys, shapes, ranges, lengths, returns, and what is wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from lit_imitation.data.columns import Array, Metadata
from lit_imitation.data.episodes import Episode, Recording, Rows, faults_of, has_successors, is_image, vector_keys
from lit_imitation.data.multimodality import Multimodality, estimate_multimodality
from lit_imitation.errors import DemonstrationError, MissingExtraError

MOST_BYTES = 2**28
"""Largest size, in bytes, of an array that is read as a whole; of larger ones and of images, a few rows are read."""
SAMPLED_EPISODES, SAMPLED_FRAMES = 10, 3
"""Number of episodes, and of rows in each, that are read of such arrays."""
MOST_FAULTS = 20
"""Largest number of faults of one kind that are listed."""
AT_BOUND = 1e-3
"""Distance from a bound, as a share of the range, within which an action counts as being at it."""


class KeySummary(NamedTuple):
    """One array of a recording."""

    name: str
    shape: tuple[int, ...]
    """Shape of one row in the first episode."""
    dtype: str
    low: float | None
    """Smallest value; None if no row could be read."""
    high: float | None
    rows: int
    """Number of rows whose values were read."""
    total: int
    """Number of rows."""
    not_finite: int
    """Number of values that are NaN or infinite."""


class Statistics(NamedTuple):
    """Distribution of a number over episodes."""

    low: float
    mean: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Statistics:
        """Smallest value, mean, and largest value."""
        return cls(float(min(values)), float(np.mean(values)), float(max(values)))


class Inspection(NamedTuple):
    """What a recording holds."""

    source: str
    format: str
    metadata: Metadata
    keys: list[KeySummary]
    episodes: int
    steps: int
    lengths: Statistics
    returns: Statistics | None
    """Sums of rewards; None without rewards."""
    terminated: int
    """Number of episodes that end in a terminal state."""
    actions_at_bounds: float | None
    """Share of action components at a bound; None for discrete actions."""
    multimodality: Multimodality | None
    faults: list[str]
    """What is wrong, a sentence each."""
    notes: list[str]
    """What to know, a sentence each."""


def inspect_recording(
    recording: Recording,
    observation_keys: Sequence[str] | None = None,
    action_space: gymnasium.Space[Any] | None = None,
) -> Inspection:
    """Summarize an open recording; faults are listed, not raised.

    Args:
        recording: The recording.
        observation_keys: Observations among which neighbors are searched for the estimate of multimodality; by default
            all that are no images.
        action_space: Action space of the environment, whose bounds the actions are compared with. Without it, the
            bounds are the format's, or else the smallest and largest value of each component.

    Raises:
        DemonstrationError: There are no episodes.
    """
    episodes = recording.episodes
    if not episodes:
        raise DemonstrationError(f"{recording.source}: this {recording.format} holds no episodes")
    lengths = [_length(episode.action) for episode in episodes]
    faults = [*recording.faults, *_limited(fault for episode in episodes for fault in faults_of(recording, episode))]
    fitting = [episode for episode in episodes if not any(True for _ in faults_of(recording, episode))]
    missing_extras: list[str] = []
    keys = [_summary(name, arrays, missing_extras) for name, arrays in _arrays(recording)]
    faults += [f"'{key.name}': {key.not_finite} values are NaN or infinite" for key in keys if key.not_finite]
    actions = _read([episode.action for episode in fitting])
    at_bounds = None
    if action_space is None and recording.action_limit is not None and actions is not None:
        limit = np.full(actions.shape[1:], recording.action_limit, np.float32)
        action_space = Box(-limit, limit)
    if actions is not None and actions.dtype.kind == "f":
        at_bounds = _at_bounds(actions, action_space)
        faults += _action_faults(recording, actions, action_space)
    elif actions is not None and (actions == actions[:1]).all():
        faults.append(f"'{recording.name('action')}' is {actions[0].tolist()} in all steps")
    short = [episode.name for episode, length in zip(episodes, lengths, strict=True) if length == 1]
    if short:
        faults.append(f"{len(short)} of {len(episodes)} episodes have one step: {_few(short)}")
    faults += _limited(_duplicates(fitting))
    if "episode_returns" in recording.columns:  # of whole episodes, where the file has only some of their rows
        returns = np.asarray(recording.columns["episode_returns"][:], np.float64).reshape(-1).tolist()
    else:
        rewards = [episode.reward for episode in fitting if episode.reward is not None]
        returns = [float(np.sum(np.asarray(reward[:], np.float64))) for reward in rewards]
    asked = list(observation_keys) if observation_keys is not None else vector_keys(recording)
    chosen = [key for key in asked if key in episodes[0].observation]
    faults += [
        f"there is no observation '{key}', which data.observation_keys names; found "
        f"{', '.join(sorted(episodes[0].observation)) or 'none'}"
        for key in asked
        if key not in chosen
    ]
    return Inspection(
        recording.source,
        recording.format,
        recording.metadata,
        keys,
        len(episodes),
        sum(lengths),
        Statistics.of(lengths),
        Statistics.of(returns) if returns and len(returns) >= len(fitting) else None,
        sum(bool(episode.terminated[-1:].any()) for episode in episodes),
        at_bounds,
        None if actions is None else _multimodality(fitting, chosen, actions),
        faults,
        [*missing_extras, *_notes(recording, fitting, returns)],
    )


def _length(rows: Rows) -> int:
    return rows.shape[0] if rows.shape else 0


def _arrays(recording: Recording) -> Iterator[tuple[str, list[Rows]]]:
    """Every array of a recording, as a list over episodes."""
    episodes = recording.episodes
    for field in ("observation", "next_observation"):
        for key in sorted({key for episode in episodes for key in getattr(episode, field)}):
            held = [getattr(episode, field)[key] for episode in episodes if key in getattr(episode, field)]
            yield (key if field == "observation" else f"{recording.name(field)}/{key}"), held
    if 0 not in episodes[0].action.shape[1:]:  # missing
        yield recording.name("action"), [episode.action for episode in episodes]
    if any(episode.reward is not None for episode in episodes):
        yield recording.name("reward"), [episode.reward for episode in episodes if episode.reward is not None]


def _size(arrays: Sequence[Rows]) -> int:
    return sum(int(np.prod(rows.shape)) * rows.dtype.itemsize for rows in arrays)


def _summary(name: str, arrays: list[Rows], missing_extras: list[str]) -> KeySummary:
    """Shape, type and range of an array over all episodes; without range if a package to decode it is missing."""
    first, total = arrays[0], sum(_length(rows) for rows in arrays)
    low, high, count, not_finite = np.inf, -np.inf, 0, 0
    try:
        for part in _parts(arrays) if first.dtype.kind in "biuf" else ():
            values = part.astype(np.float64) if part.dtype.kind == "b" else part
            finite = np.isfinite(values)
            not_finite += int(finite.size - finite.sum())
            count += len(part)
            if finite.any():
                low, high = min(low, float(values[finite].min())), max(high, float(values[finite].max()))
    except MissingExtraError as error:
        missing_extras.append(f"'{name}' was not decoded: {error}")
    known = low <= high
    shape = tuple(int(n) for n in first.shape[1:])
    return KeySummary(
        name, shape, str(first.dtype), low if known else None, high if known else None, count, total, not_finite
    )


def _parts(arrays: list[Rows]) -> Iterator[Array]:
    """All rows of vectors, a few rows of a few episodes of images and of large arrays."""
    if not is_image(arrays[0]) and _size(arrays) <= MOST_BYTES:
        yield from (np.asarray(rows[:]) for rows in arrays)
        return
    for index in np.unique(np.linspace(0, len(arrays) - 1, SAMPLED_EPISODES).astype(int)):
        rows = arrays[int(index)]
        for row in np.unique(np.linspace(0, max(_length(rows) - 1, 0), SAMPLED_FRAMES).astype(int)):
            yield np.asarray(rows[int(row) : int(row) + 1])


def _read(arrays: list[Rows]) -> Array | None:
    """All rows as one array; None if they are too many, or no numbers."""
    if not arrays or not 0 < _size(arrays) <= MOST_BYTES or any(rows.dtype.kind not in "biuf" for rows in arrays):
        return None
    return np.concatenate([np.asarray(rows[:]) for rows in arrays])


def _bounds(actions: Array, action_space: gymnasium.Space[Any] | None) -> tuple[Array, Array]:
    flat = actions.reshape(len(actions), -1)
    if isinstance(action_space, Box) and action_space.shape == actions.shape[1:]:
        return action_space.low.reshape(-1).astype(np.float64), action_space.high.reshape(-1).astype(np.float64)
    finite = np.where(np.isfinite(flat), flat, np.nan)
    return np.nanmin(finite, 0).astype(np.float64), np.nanmax(finite, 0).astype(np.float64)


def _at_bounds(actions: Array, action_space: gymnasium.Space[Any] | None) -> float:
    """Share of components within `AT_BOUND` of a bound; constant components are left out."""
    flat = actions.reshape(len(actions), -1)
    low, high = _bounds(actions, action_space)
    varies = np.isfinite(high - low) & (high > low)
    if not varies.any():
        return 0.0
    slack = AT_BOUND * (high - low)[varies]
    part = flat[:, varies]
    return float(((part <= low[varies] + slack) | (part >= high[varies] - slack)).mean())


def _action_faults(recording: Recording, actions: Array, action_space: gymnasium.Space[Any] | None) -> Iterator[str]:
    """Constant components, and actions out of bounds."""
    name, flat = recording.name("action"), actions.reshape(len(actions), -1)
    constant = np.flatnonzero((flat == flat[:1]).all(0)) if len(flat) > 1 else np.zeros(0, np.int64)
    for column in constant[:MOST_FAULTS]:
        yield f"'{name}', component {column} is {flat[0, column]:.4g} in all steps"
    if action_space is None:
        return
    if not isinstance(action_space, Box) or action_space.shape != actions.shape[1:]:
        shape = list(actions.shape[1:])
        yield f"'{name}' has rows of shape {shape}, but the action space is {action_space}"
        return
    low, high = _bounds(actions, action_space)
    outside = (flat < low - 1e-5) | (flat > high + 1e-5)
    if outside.any():
        worst = int(outside.sum(0).argmax())
        yield (
            f"'{name}': {outside.mean():.1%} of the components are out of bounds, most in component {worst}: "
            f"{flat[:, worst].min():.4g} to {flat[:, worst].max():.4g}, bounds {low[worst]:.4g} to {high[worst]:.4g}"
        )


def _duplicates(episodes: Sequence[Episode]) -> Iterator[str]:
    """Episodes with the same actions and the same observations, but for images."""
    seen: dict[bytes, str] = {}
    for episode in episodes:
        held = [episode.action, *(rows for _, rows in sorted(episode.observation.items()) if not is_image(rows))]
        if any(rows.dtype.kind not in "biuf" for rows in held) or _size(held) > MOST_BYTES:
            continue
        digest = hashlib.sha256()
        for rows in held:
            digest.update(np.ascontiguousarray(rows[:]).tobytes())
        first = seen.setdefault(digest.digest(), episode.name)
        if first != episode.name:
            yield f"{episode.name} is the same as {first}"


def _multimodality(episodes: Sequence[Episode], keys: Sequence[str], actions: Array) -> Multimodality | None:
    """Estimate from the observations that are vectors."""
    parts = []
    for key in keys:
        spans = [episode.observation[key][: _length(episode.action)] for episode in episodes]
        if is_image(episodes[0].observation[key]) or episodes[0].observation[key].dtype.kind not in "biuf":
            continue
        parts.append(np.concatenate([np.asarray(span).reshape(len(span), -1) for span in spans]).astype(np.float64))
    if not parts:
        return None
    observations = np.concatenate(parts, axis=1)
    finite = np.isfinite(observations).all(1) & np.isfinite(actions.reshape(len(actions), -1)).all(1)
    episode = np.repeat(np.arange(len(episodes)), [_length(one.action) for one in episodes])
    return estimate_multimodality(observations[finite], actions[finite], episode[finite])


def _notes(recording: Recording, episodes: Sequence[Episode], returns: Sequence[float]) -> Iterator[str]:
    """Missing successors and rewards, and images among several observations."""
    keys = list(recording.episodes[0].observation)
    if episodes and not has_successors(recording._replace(episodes=episodes), keys):
        yield "no next observations are recorded: GAIL, AIRL and GCL leave out the last step of each episode"
    if any(episode.reward is None for episode in episodes):
        yield "no rewards are recorded: set data.expert_return for a normalized score"
    elif returns and not any(returns):
        yield "all returns are 0: set data.expert_return for a normalized score"
    images = sorted(key for key, rows in recording.episodes[0].observation.items() if is_image(rows))
    if images and len(keys) > 1:
        yield f"images ({', '.join(images)}) and vectors are encoded apart: see model.policy.init_args.encoder"


def _limited(faults: Iterator[str]) -> list[str]:
    """The first `MOST_FAULTS`, and how many follow."""
    held = list(faults)
    more = [f"… and {len(held) - MOST_FAULTS} more like this"] if len(held) > MOST_FAULTS else []
    return [*held[:MOST_FAULTS], *more]


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
