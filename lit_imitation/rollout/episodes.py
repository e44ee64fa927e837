"""The only place that steps an actor through vector environments."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from torch import Tensor

from lit_imitation.envs.failures import describe_error, environment_name, raise_failure, report_failures, unknown_copy
from lit_imitation.errors import ConfigError, ExpertError, TrainingError
from lit_imitation.transitions import Transitions, cast_action, cast_observation
from lit_imitation.utils.distributed import rank
from lit_imitation.utils.interruption import check
from lit_imitation.utils.seeding import RandomStream

Actor: TypeAlias = Callable[[NDArray[Any]], NDArray[Any]]
"""Observations `[B, *obs]` to actions `[B, *act]` in the environment's own values; experts and `Policy.actor` are."""

LONG_EPISODE = 10_000
"""Steps of one episode after which a rollout warns that the episode may never end."""
PATIENCE = 5.0
"""Seconds without a finished episode after which a rollout says that it runs."""


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
    with report_failures(envs, "at a reset"):
        observation, _ = envs.reset(seed=seed)
    finite = _FiniteCheck(envs, observation)
    finite.observations(observation, 0, "an observation")
    number = 0
    while True:
        check()
        try:
            action = actor(observation)
        except (SystemExit, StopIteration) as error:  # would end the program, or the rollout, as if all were well
            raise ExpertError(
                f"the actor stopped at step {number} since the last reset: {describe_error(error)}"
            ) from error
        # Spelled out, since a `with` block would take as long as a fast environment's step.
        try:
            following, reward, terminated, truncated, info = envs.step(cast_action(action, envs.single_action_space))
            reward, terminated, truncated = _one_each(reward), _flags(terminated), _flags(truncated)
            done = terminated | truncated
            final = following
            any_done = np.count_nonzero(done)
            if not next_step and any_done:
                final = following.copy()
                for env in np.flatnonzero(done):
                    final[env] = info["final_obs"][env]
        except BaseException as error:
            raise_failure(envs, error, f"at step {number} since the last reset")
        finite.rewards(reward, valid, number)
        finite.observations(final, number, "a next_observation")
        if final is not following:
            finite.observations(following, number, "an observation")
        yield Step(observation, action, reward, terminated, truncated, final, done, valid, info)
        valid = ~done if next_step else always
        observation = following
        number += 1


class _FiniteCheck:
    """Raises `TrainingError` at the first reward or observation that is not finite or has another shape."""

    def __init__(self, envs: VectorEnv[Any, Any, Any], observation: NDArray[Any]) -> None:
        self.envs, self.shape = envs, (envs.num_envs, *(envs.single_observation_space.shape or ()))
        self.floating = observation.dtype.kind == "f"

    def observations(self, values: NDArray[Any], number: int, what: str) -> None:
        """Check `values: [B, *obs]` of the step `number`."""
        if values.shape != self.shape:
            raise TrainingError(
                f"{unknown_copy(self.envs)} gave observations of shape {list(values.shape)} where {list(self.shape)} "
                f"is right at step {number} since the last reset"
            )
        if self.floating and np.count_nonzero(good := np.isfinite(values)) < values.size:
            self._fail(values, good, number, what)

    def rewards(self, values: NDArray[Any], valid: NDArray[np.bool_], number: int) -> None:
        """Check rewards `[B]`; one of a step that only starts an episode does not count."""
        if np.count_nonzero(good := np.isfinite(values)) < values.size:
            self._fail(values, good | ~valid, number, "a reward")

    def _fail(self, values: NDArray[Any], good: NDArray[np.bool_], number: int, what: str) -> None:
        bad = np.flatnonzero(~good.reshape(len(values), -1).all(1))
        if len(bad):
            env = int(bad[0])
            raise TrainingError(
                f"environment {env} gave {what} that is not finite at step {number} since the last reset: "
                f"{values[env].tolist()}"
            )


def shares(count: int, parts: int) -> NDArray[np.int64]:
    """`[parts]`: `count` shared out as evenly as can be, the first few one more."""
    return count // parts + (np.arange(parts) < count % parts)


def _one_each(column: Any) -> NDArray[Any]:
    """`[B]`, of a list or of `[B, 1]` too."""
    array = np.asarray(column)
    return array.reshape(len(array)) if array.ndim > 1 and array.size == len(array) else array


def _flags(column: Any) -> NDArray[np.bool_]:
    """`[B]` bool, of numbers too."""
    flags = _one_each(column)
    return flags if flags.dtype == np.bool_ else flags.astype(np.bool_)


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
        purpose: what the episodes are for, in words, for messages about a rollout that takes long.
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
        purpose: str = "a rollout",
    ) -> None:
        if count < 1:
            raise ConfigError(f"{count} {self.unit} were asked for; at least 1 is needed")
        self.envs, self.actor, self.count, self.seed, self.record = envs, actor, count, seed, record
        self.own = np.zeros(envs.num_envs, dtype=np.bool_)
        self.own[own] = True
        self.purpose = purpose
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
                    self._say(number)
            if not warned and number % 1000 == 0 and lengths.max() >= LONG_EPISODE:
                warned = True
                self._warn(int(lengths.argmax()))
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

    def _say(self, steps: int) -> None:
        """Tell that this runs: until the first episode ends nothing else may show it."""
        if rank() == 0:
            print(
                f"{self.purpose}: {self.count} {self.unit} in {environment_name(self.envs)}; after {steps:,} steps of each "
                "environment no episode has ended yet",
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
        for name in ("observation", "next_observation"):
            arrays[name] = cast_observation(arrays[name], self.envs.single_observation_space)
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

    def _warn(self, env: int) -> None:
        """The steps end it, whatever the episodes do."""

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
    """Run `Episodes` and return their transitions `[N]`; `progress` hears of each as it finishes.

    Raises:
        TrainingError: an environment broke, or gave what is not finite; names environment and step.
    """
    run = Episodes(envs, actor, episodes, seed, record=True, purpose="demonstrations")
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
    run = stream(envs, explorer, seed)
    names = ("observation", "reward", "terminated", "truncated", "next_observation")
    for _ in range(count):
        recorded: list[tuple[NDArray[Any], ...]] = []
        episodes: list[Episode] = []
        with random_stream:
            for _ in range(steps):
                step = next(run)
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
        for i in (0, 4):
            columns[i] = cast_observation(columns[i], envs.single_observation_space)
        action = torch.stack(drawn)
        drawn.clear()
        rollout = Transitions.from_numpy(dict(zip(names, columns, strict=True)), action=action)
        yield Round(rollout.to(action.device), torch.from_numpy(valid).to(action.device), episodes)


def _success(info: Any, env: int) -> float:
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
