"""The only place that steps an actor through vector environments."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from numpy.typing import NDArray
from torch import Tensor

from lit_imitation.errors import ConfigError, LitImitationError, TrainingError
from lit_imitation.seeding import RandomStream
from lit_imitation.transitions import Transitions

Actor: TypeAlias = Callable[[NDArray[Any]], NDArray[Any]]
"""Observations `[B, *obs]` to actions `[B, *act]` in the environment's own values; experts and `Policy.actor` are."""


class Step(NamedTuple):
    """One step of `[B]` environments, the same whichever way they start their next episode."""

    observation: NDArray[Any]
    """`[B, *obs]`: what the actor saw."""
    action: NDArray[Any]
    """`[B, *act]`: what it did."""
    reward: NDArray[Any]
    """`[B]`."""
    terminated: NDArray[np.bool_]
    """`[B]`: a state without a future was reached."""
    truncated: NDArray[np.bool_]
    """`[B]`: the episode was cut; `next_observation` still has a value."""
    next_observation: NDArray[Any]
    """`[B, *obs]`: the successor; at an episode's end its true final observation."""
    done: NDArray[np.bool_]
    """`[B]`: terminated or truncated."""
    valid: NDArray[np.bool_]
    """`[B]`: false where the environment only started a new episode and the rest of the row is no transition."""
    info: dict[str, Any]
    """What the environments reported, as they gave it."""


class Episode(NamedTuple):
    """What a finished episode came to."""

    env: int
    """Index of the environment it ran in."""
    length: int
    """Number of transitions."""
    episode_return: float
    """Undiscounted sum of rewards."""
    success: float
    """1 or 0 where the environment reports `success` or `is_success`, else NaN."""


def stream(envs: VectorEnv[Any, Any, Any], actor: Actor, seed: int | None = None) -> Iterator[Step]:
    """Reset the environments with `seed` and step them for ever.

    Environments that start the next episode on the step after an end (`AutoresetMode.NEXT_STEP`; EnvPool) ignore that
    step's action: it comes with `valid` false. Those that start it on the same step (`SAME_STEP`) hand the final
    observation out through `info`: it is put back in place as `next_observation`.
    """
    mode = envs.metadata.get("autoreset_mode")
    if mode not in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP):
        raise ConfigError(f"{envs} resets by {mode}; rollouts need environments that start the next episode themselves")
    next_step = mode == AutoresetMode.NEXT_STEP
    always = np.ones(envs.num_envs, dtype=np.bool_)
    valid = always
    observation, _ = envs.reset(seed=seed)
    while True:
        action = actor(observation)
        following, reward, terminated, truncated, info = envs.step(action)
        done = terminated | truncated
        final = following
        if not next_step and np.count_nonzero(done):
            final = following.copy()
            for env in np.flatnonzero(done):
                final[env] = info["final_obs"][env]
        yield Step(observation, action, reward, terminated, truncated, final, done, valid, info)
        valid = ~done if next_step else always
        observation = following


def shares(count: int, parts: int) -> NDArray[np.int64]:
    """`[parts]`: `count` shared out as evenly as can be, the first few one more."""
    return count // parts + (np.arange(parts) < count % parts)


class Episodes:
    """Exactly `count` whole episodes of an actor: an iterator over them, in the order in which they finish.

    Environment i runs a share of them that is fixed beforehand: to take the first `count` that finish anywhere would
    prefer short ones.

    Args:
        envs: vector environment from `make`.
        actor: what acts.
        count: number of episodes.
        seed: of the environments, and of everything that the actor draws: the same seed gives the same episodes.
        record: keep the transitions for `transitions()`.
        own: hand out and record the episodes of these environments alone, though all are played.
    """

    unit = "episodes"

    def __init__(
        self,
        envs: VectorEnv[Any, Any, Any],
        actor: Actor,
        count: int,
        seed: int,
        *,
        record: bool = False,
        own: slice = slice(None),
    ) -> None:
        if count < 1:
            raise ConfigError(f"{count} {self.unit} were asked for; at least 1 is needed")
        self.envs, self.actor, self.count, self.seed, self.record = envs, actor, count, seed, record
        self.own = np.zeros(envs.num_envs, dtype=np.bool_)
        self.own[own] = True
        self.live: NDArray[np.bool_] = np.ones(envs.num_envs, dtype=np.bool_)
        """`[B]`: the environments whose coming step counts, for an actor that would rather not be asked for nothing."""
        self._recorded: list[tuple[NDArray[Any], ...]] = []

    def __len__(self) -> int:
        """Number of episodes (of steps, for `Steps`)."""
        return int(shares(self.count, self.envs.num_envs)[self.own].sum())

    def __iter__(self) -> Iterator[Episode]:
        """Run the episodes; the global random streams are the caller's own whenever an episode is handed out."""
        self._recorded = []
        run, random_stream = self._run(), RandomStream(self.seed)
        while True:
            finished = []
            with random_stream:
                # To swap the streams takes as long as some steps: what finishes within a moment is handed out together.
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
        for step in stream(envs, self.actor, self.seed):
            live = self.live
            np.add(returns, step.reward, out=returns, where=live)
            lengths += live
            if self.record:
                self._recorded.append((*step[:6], live & self.own))
            any_done = np.count_nonzero(step.done)
            if any_done:
                ended = np.flatnonzero(step.done & live & self.own)
                finished = zip(ended.tolist(), lengths[ended].tolist(), returns[ended].tolist(), strict=True)
                for env, length, total in finished:
                    yield Episode(env, length, total, _success(step.info, env))
                returns[step.done], lengths[step.done] = 0.0, 0
            if self._spend(remaining, live, step.done):
                active = remaining > 0
                if not np.count_nonzero(active):
                    return
            self.live = active & ~step.done if next_step and any_done else active

    def _spend(self, remaining: NDArray[np.int64], live: NDArray[np.bool_], done: NDArray[np.bool_]) -> bool:
        """Take what a step used up off each environment's share `[B]`; whether any did."""
        ended = done & live
        remaining -= ended
        return bool(np.count_nonzero(ended))

    def transitions(self) -> Transitions:
        """`[N]`: the transitions recorded so far, all of the first environment first, in time order.

        An episode that is not over yet counts as truncated at its last step.
        """
        *columns, live = (np.stack(column, axis=1) for column in zip(*self._recorded, strict=True))
        names = ("observation", "action", "reward", "terminated", "truncated", "next_observation")
        arrays = {name: column[live] for name, column in zip(names, columns, strict=True)}
        taken = live.sum(axis=1)
        last = taken[taken > 0].cumsum() - 1
        arrays["truncated"][last] |= ~arrays["terminated"][last]
        return Transitions.from_numpy(arrays)

    def flat(self, noted: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """`[N, *]`: what an actor noted at each recorded step, `[B, *]`, in the order of `transitions()`."""
        live = np.stack([live for *_, live in self._recorded], axis=1)
        flat: NDArray[Any] = np.stack(noted[: len(self._recorded)], axis=1)[live]
        return flat


class Steps(Episodes):
    """Exactly `count` steps, as many in each environment (the first few one more), whatever episodes they cut.

    Only episodes that finish are handed out; `transitions` has all steps.
    """

    unit = "steps"

    def _spend(self, remaining: NDArray[np.int64], live: NDArray[np.bool_], done: NDArray[np.bool_]) -> bool:
        remaining -= live
        return not remaining.all()


def collect(
    envs: VectorEnv[Any, Any, Any],
    actor: Actor,
    episodes: int,
    seed: int,
    progress: Callable[[Episode], None] | None = None,
) -> Transitions:
    """Run `Episodes` and return their transitions `[N]`; `progress` hears of each as it finishes."""
    run = Episodes(envs, actor, episodes, seed, record=True)
    for episode in run:
        if progress is not None:
            progress(episode)
    return run.transitions()


class Round(NamedTuple):
    """What a policy did in a fixed number of steps, for it to learn from."""

    rollout: Transitions
    """`[time, env]` on the policy's device; `action` as drawn, before it is clipped into the action space."""
    valid: Tensor
    """`[time, env]` bool: false where the environment only started a new episode (see `Step.valid`)."""
    episodes: list[Episode]
    """Those that ended."""


def rounds(
    envs: VectorEnv[Any, Any, Any],
    explorer: Callable[[NDArray[Any]], NDArray[Any]],
    drawn: list[Tensor],
    steps: int,
    count: int,
    seed: int,
) -> Iterator[Round]:
    """`count` rounds of `steps` steps in each environment, one going on where the one before stopped.

    Args:
        envs: vector environment from `make`; it is reset with `seed` first.
        explorer: what acts.
        drawn: where `explorer` appends each action `[B, *act]` as it drew it; emptied after each round.
        steps: of each environment in a round.
        count: number of rounds.
        seed: of the environments, and of everything that the explorer draws.

    Raises:
        TrainingError: an environment broke, or gave a reward or an observation that is not finite; names environment
            and step.
    """
    returns, lengths = np.zeros(envs.num_envs), np.zeros(envs.num_envs, dtype=np.int64)
    random_stream = RandomStream(seed)
    seen: list[NDArray[Any]] = []
    """The observation that the explorer is looking at; empty while the environments act."""

    def actor(observation: NDArray[Any]) -> NDArray[Any]:
        seen.append(observation)
        action = explorer(observation)
        seen.clear()
        return action

    run = stream(envs, actor, seed)
    names = ("observation", "reward", "terminated", "truncated", "next_observation")
    for number in range(count):
        recorded: list[tuple[NDArray[Any], ...]] = []
        episodes: list[Episode] = []
        with random_stream:
            for i in range(steps):
                try:
                    step = next(run)
                except (LitImitationError, KeyboardInterrupt):
                    raise
                except Exception as error:  # somebody else's code, or a process that is gone
                    at = number * steps + i
                    if seen:  # the explorer's own fault, unless it was shown what nobody can answer
                        _check_finite({"observation": seen[0][None]}, at)
                        raise
                    raise TrainingError(
                        f"{_broken(envs, error)} failed at step {at} since the last reset: "
                        f"{type(error).__name__}: {error}"
                    ) from error
                np.add(returns, step.reward, out=returns, where=step.valid)
                lengths += step.valid
                recorded.append(
                    (step.observation, step.reward, step.terminated, step.truncated, step.next_observation, step.valid)
                )
                if np.count_nonzero(step.done):
                    ended = np.flatnonzero(step.done & step.valid).tolist()
                    episodes += [Episode(e, int(lengths[e]), float(returns[e]), _success(step.info, e)) for e in ended]
                    returns[step.done], lengths[step.done] = 0.0, 0
        *columns, valid = (np.stack(column) for column in zip(*recorded, strict=True))
        columns[1] = np.where(valid, columns[1], 0.0)  # a step that is none has no reward, whatever stood there
        _check_finite(dict(zip(names, columns, strict=True)), number * steps)
        action = torch.stack(drawn)
        drawn.clear()
        rollout = Transitions.from_numpy(dict(zip(names, columns, strict=True)), action=action)
        yield Round(rollout.to(action.device), torch.from_numpy(valid).to(action.device), episodes)


def _broken(envs: VectorEnv[Any, Any, Any], error: Exception) -> str:
    """Which environment an error of `envs.step` came from, as far as that can be told."""
    if isinstance(envs, AsyncVectorEnv):
        pipes: list[Any] = list(envs.parent_pipes)
        for env, (pipe, process) in enumerate(zip(pipes, envs.processes, strict=True)):
            if pipe is None:  # Gymnasium takes away that of one whose environment raised
                return f"environment {env}"
            process.join(0.1)
            if not process.is_alive():
                return f"environment {env}, whose process ended with exit code {process.exitcode},"
    trace = error.__traceback__
    while trace is not None:
        local = trace.tb_frame.f_locals
        if isinstance(envs, SyncVectorEnv) and local.get("self") is envs and "i" in local:  # its loop over them
            return f"environment {local['i']}"
        trace = trace.tb_next
    return f"an environment of {envs}"


def _check_finite(columns: dict[str, NDArray[Any]], first: int) -> None:
    """Raise `TrainingError` at the first reward or observation `[time, env, *]` that is not finite."""
    names = {"reward": "a reward", "next_observation": "a next_observation", "observation": "an observation"}
    for name, what in names.items():
        column = columns.get(name, np.zeros(0, np.bool_))
        if column.dtype.kind == "f" and not np.isfinite(column).all():
            step, env = np.argwhere(~np.isfinite(column).reshape(*column.shape[:2], -1).all(-1))[0]
            raise TrainingError(
                f"environment {env} gave {what} that is not finite at step {first + step} since the last reset: "
                f"{column[step, env].tolist()}"
            )


def _success(info: dict[str, Any], env: int) -> float:
    """What the environment said of the episode that just ended, from 0 to 1, or NaN if it said nothing of use."""
    info = info.get("final_info", info)
    of_one = not isinstance(info, dict)
    if of_one:  # one dictionary for each environment, in place of one array for each key
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
