"""Whole episodes of an actor, or a fixed number of its steps."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from lit_imitation.envs.failures import environment_name
from lit_imitation.errors import ConfigError
from lit_imitation.rollout.actor import ActorLike
from lit_imitation.rollout.stepping import stream
from lit_imitation.transitions import Transitions, cast_observation
from lit_imitation.utils.distributed import rank
from lit_imitation.utils.seeding import RandomStream

LONG_EPISODE = 10_000
"""Steps of one episode after which a rollout warns that the episode may never end."""
PATIENCE = 5.0
"""Seconds without a finished episode after which a rollout reports that it is running."""


class Episode(NamedTuple):
    """Result of a finished episode."""

    env: int
    """Index of its environment."""
    length: int
    """Number of transitions."""
    episode_return: float
    """Undiscounted sum of rewards."""
    success: float
    """1 or 0 where the environment reports `success` or `is_success`, else NaN."""


def shares(count: int, parts: int) -> NDArray[np.int64]:
    """`[parts]`: `count` divided as evenly as possible; the first shares are larger by one."""
    return count // parts + (np.arange(parts) < count % parts)


class Episodes:
    """Iterator over exactly `count` whole episodes of an actor, in the order in which they finish.

    Each environment runs a share of the episodes that is fixed in advance. Taking the first `count` that finish
    anywhere would favor short episodes.

    Args:
        envs: Vector environment from `make`.
        actor: Chooses the actions.
        count: Number of episodes.
        seed: Seed of the environments and of the global random streams that the actor draws from. The same seed gives
            the same episodes.
        record: Whether to keep the transitions for `transitions()`.
        own: Environments whose episodes are returned and recorded. All environments are stepped.
        purpose: What the episodes are for, in messages about a rollout that takes long.
    """

    unit = "episodes"

    def __init__(
        self,
        envs: VectorEnv[Any, Any, Any],
        actor: ActorLike,
        count: int,
        seed: int,
        *,
        record: bool = False,
        own: slice = slice(None),
        purpose: str = "a rollout",
    ) -> None:
        if count < 1:
            raise ConfigError(f"{count} {self.unit} were requested; at least 1 is needed")
        self.envs, self.actor, self.count, self.seed, self.record = envs, actor, count, seed, record
        self.own = np.zeros(envs.num_envs, dtype=np.bool_)
        self.own[own] = True
        self.purpose = purpose
        self.live: NDArray[np.bool_] = np.ones(envs.num_envs, dtype=np.bool_)
        """`[B]`: Environments whose next step counts. An expensive actor may skip the others."""
        self._recorded: list[tuple[NDArray[Any], ...]] = []

    def __len__(self) -> int:
        """Number of episodes (of steps, for `Steps`)."""
        return int(shares(self.count, self.envs.num_envs)[self.own].sum())

    def __iter__(self) -> Iterator[Episode]:
        """Run the episodes. Between episodes the global random streams are those of the caller."""
        self._recorded = []
        run, random_stream = self._run(), RandomStream(self.seed)
        while True:
            finished = []
            with random_stream:
                # Swapping the streams takes as long as several steps, so episodes that finish shortly after one another
                # are returned together.
                patience = time.monotonic() + 0.02
                for episode in run:
                    finished.append(episode)
                    if time.monotonic() > patience:
                        break
            if not finished:
                return
            yield from finished

    def _run(self) -> Iterator[Episode]:
        envs = self.envs
        next_step = envs.metadata.get("autoreset_mode") == AutoresetMode.NEXT_STEP
        remaining = shares(self.count, envs.num_envs)
        active = remaining > 0
        self.live = active
        returns, lengths = np.zeros(envs.num_envs), np.zeros(envs.num_envs, dtype=np.int64)
        started, silent, warned = time.monotonic(), True, False
        for number, step in enumerate(stream(envs, self.actor, self.seed), 1):
            live = self.live
            np.add(returns, step.reward, out=returns, where=live)
            lengths += live
            if self.record:
                self._recorded.append((*step[:6], live & self.own))
            any_done = np.count_nonzero(step.done)
            if silent and (any_done or time.monotonic() - started > PATIENCE):
                silent = False
                if not any_done:
                    self._report(number)
            if not warned and number % 1000 == 0 and lengths.max() >= LONG_EPISODE:
                warned = True
                self._warn(int(lengths.argmax()))
            if any_done:
                ended = np.flatnonzero(step.done & live & self.own)
                finished = zip(ended.tolist(), lengths[ended].tolist(), returns[ended].tolist(), strict=True)
                for env, length, total in finished:
                    yield Episode(env, length, total, success(step.info, env))
                returns[step.done], lengths[step.done] = 0.0, 0
            if self._spend(remaining, live, step.done):
                active = remaining > 0
                if not np.count_nonzero(active):
                    return
            self.live = active & ~step.done if next_step and any_done else active

    def _report(self, steps: int) -> None:
        """Print that the rollout is running: before the first episode ends, nothing else may show it."""
        if rank() == 0:
            print(
                f"{self.purpose}: {self.count} {self.unit} in {environment_name(self.envs)}; after {steps:,} steps in "
                "each environment no episode has ended yet",
                file=sys.stderr,
                flush=True,
            )

    def _warn(self, env: int) -> None:
        warnings.warn(
            f"{self.purpose}: environment {env} of {environment_name(self.envs)} has not ended its episode within "
            f"{LONG_EPISODE:,} steps. Without a time limit it may never end: set "
            "env_kwargs.max_episode_steps (fit --data.env_kwargs.max_episode_steps 1000, "
            "collect --env_kwargs max_episode_steps=1000), or register the environment with max_episode_steps",
            stacklevel=2,
        )

    def _spend(self, remaining: NDArray[np.int64], live: NDArray[np.bool_], done: NDArray[np.bool_]) -> bool:
        """Subtract what a step used up from each environment's share `[B]`. Returns whether a share changed."""
        ended = done & live
        remaining -= ended
        return bool(np.count_nonzero(ended))

    def transitions(self) -> Transitions:
        """`[N]`: The transitions recorded so far, environment by environment, each in time order.

        An unfinished episode is marked as truncated at its last step.
        """
        *columns, live = (np.stack(column, axis=1) for column in zip(*self._recorded, strict=True))
        names = ("observation", "action", "reward", "terminated", "truncated", "next_observation")
        arrays = {name: column[live] for name, column in zip(names, columns, strict=True)}
        taken = live.sum(axis=1)
        last = taken[taken > 0].cumsum() - 1
        for name in ("observation", "next_observation"):
            arrays[name] = cast_observation(arrays[name], self.envs.single_observation_space)
        arrays["truncated"][last] |= ~arrays["terminated"][last]
        return Transitions.from_numpy(arrays)

    def flat(self, noted: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """`[N, *]`: What an actor noted at each recorded step, `[B, *]`, in the order of `transitions()`."""
        live = np.stack([live for *_, live in self._recorded], axis=1)
        flat: NDArray[Any] = np.stack(noted[: len(self._recorded)], axis=1)[live]
        return flat


class Steps(Episodes):
    """Exactly `count` steps, divided evenly between the environments. The last episode of each may be cut off.

    The iterator returns only finished episodes; `transitions` has all steps.
    """

    unit = "steps"

    def _warn(self, env: int) -> None:
        """Do nothing: the number of steps is limited however long the episodes are."""

    def _spend(self, remaining: NDArray[np.int64], live: NDArray[np.bool_], done: NDArray[np.bool_]) -> bool:
        remaining -= live
        return not remaining.all()


def collect(
    envs: VectorEnv[Any, Any, Any],
    actor: ActorLike,
    episodes: int,
    seed: int,
    progress: Callable[[Episode], None] | None = None,
) -> Transitions:
    """Run whole episodes of an actor and return their transitions `[N]`.

    Args:
        envs: Vector environment from `make`.
        actor: Chooses the actions.
        episodes: Number of episodes.
        seed: Seed of the environments and of the global random streams.
        progress: Called with each episode as it finishes.

    Raises:
        TrainingError: An environment failed, or gave a value that is not finite. The message names environment and
            step.
    """
    run = Episodes(envs, actor, episodes, seed, record=True, purpose="demonstrations")
    for episode in run:
        if progress is not None:
            progress(episode)
    return run.transitions()


def success(info: Any, env: int) -> float:
    """Success that an environment's info reports for the episode that just ended, from 0 to 1; NaN if it has none."""
    info = info.get("final_info", info)
    of_one = not isinstance(info, dict)
    if of_one:  # one dictionary for each environment, instead of one array for each key
        info = info[env] or {}
    for key in ("success", "is_success"):
        if key not in info:
            continue
        value, present = info[key], info.get(f"_{key}")
        if not of_one:
            if present is not None and not present[env]:
                continue
            if np.ndim(value):
                value = value[env]
        if isinstance(value, np.ndarray) and value.size == 1:
            value = value.item()
        if value is None:
            continue
        number = isinstance(value, bool | int | float | np.bool_ | np.integer | np.floating)
        if number and 0 <= value <= 1:
            return float(value)
        kind = type(value).__name__
        what = "a number outside [0, 1]" if number else f"a value of type {kind}, not a bool or a number in [0, 1],"
        warnings.warn(
            f"an environment reports {what} as info[{key!r}]: success_rate leaves these episodes out", stacklevel=2
        )
    return float("nan")
