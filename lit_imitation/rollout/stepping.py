"""The loop that steps one actor through one vector environment."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from lit_imitation.envs.failures import describe_error, raise_failure, report_failures, unknown_copy
from lit_imitation.errors import ConfigError, ExpertError, TrainingError
from lit_imitation.rollout.actor import ActorLike, as_actor, bind_environments
from lit_imitation.transitions import cast_action
from lit_imitation.utils.interruption import check


class Step(NamedTuple):
    """One step of B environments, in the same form for every autoreset mode."""

    observation: NDArray[Any]
    """`[B, *obs]`: What the actor saw."""
    action: NDArray[Any]
    """`[B, *act]`: What the actor chose."""
    reward: NDArray[Any]
    """`[B]`."""
    terminated: NDArray[np.bool_]
    """`[B]`: The episode reached a terminal state."""
    truncated: NDArray[np.bool_]
    """`[B]`: The episode was cut off; `next_observation` still has a value."""
    next_observation: NDArray[Any]
    """`[B, *obs]`: The successor; at an episode's end, the true final observation."""
    done: NDArray[np.bool_]
    """`[B]`: Terminated or truncated."""
    valid: NDArray[np.bool_]
    """`[B]`: False where the step was only a reset, so that the row is not a transition."""
    info: dict[str, Any]
    """The environments' info, unchanged."""


def stream(envs: VectorEnv[Any, Any, Any], actor: ActorLike, seed: int | None = None) -> Iterator[Step]:
    """Reset the environments with `seed`, then step them without end.

    Environments that reset on the step after an episode's end (`AutoresetMode.NEXT_STEP`, EnvPool) ignore the action
    of that step, and its rows have `valid` false. Environments that reset on the same step (`SAME_STEP`) report the
    final observation in `info`, from where it is moved to `next_observation`.

    The actor's `reset` is called with all true before the first step, and then before the first `act` of each episode.
    """
    mode = envs.metadata.get("autoreset_mode")
    if mode not in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP):
        raise ConfigError(
            f"{envs} has autoreset mode {mode}; rollouts need environments that start the next episode themselves"
        )
    next_step = mode == AutoresetMode.NEXT_STEP
    actor = as_actor(actor, envs.single_observation_space)
    act, reset = actor.act, actor.reset
    always = np.ones(envs.num_envs, dtype=np.bool_)
    valid = always
    with report_failures(envs, "at a reset"):
        observation, _ = envs.reset(seed=seed)
    bind_environments(actor, envs)
    starting: NDArray[np.bool_] | None = always.copy()
    ended: NDArray[np.bool_] | None = None
    finite = _FiniteCheck(envs, observation)
    finite.observations(observation, 0, "an observation")
    number = 0
    while True:
        check()
        try:
            if starting is not None:
                reset(starting)
            action = act(observation)
        except (SystemExit, StopIteration) as error:  # these would end the program or the rollout without an error
            raise ExpertError(
                f"the actor stopped at step {number} since the last reset: {describe_error(error)}"
            ) from error
        # Without a `with` block, which would take as long as the step of a fast environment.
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
        over = done.copy() if any_done else None
        # After an end, NEXT_STEP takes one more step, which the environment ignores, before the episode starts.
        starting, ended = (ended, over) if next_step else (over, None)
        valid = ~done if next_step else always
        observation = following
        number += 1


class _FiniteCheck:
    """Raises `TrainingError` at the first reward or observation that is not finite or has the wrong shape."""

    def __init__(self, envs: VectorEnv[Any, Any, Any], observation: NDArray[Any]) -> None:
        self.envs, self.shape = envs, (envs.num_envs, *(envs.single_observation_space.shape or ()))
        self.floating = observation.dtype.kind == "f"

    def observations(self, values: NDArray[Any], number: int, what: str) -> None:
        """Check `values: [B, *obs]` of step `number`."""
        if values.shape != self.shape:
            raise TrainingError(
                f"{unknown_copy(self.envs)} gave observations of shape {list(values.shape)} instead of "
                f"{list(self.shape)} "
                f"at step {number} since the last reset"
            )
        if self.floating and np.count_nonzero(good := np.isfinite(values)) < values.size:
            self._fail(values, good, number, what)

    def rewards(self, values: NDArray[Any], valid: NDArray[np.bool_], number: int) -> None:
        """Check rewards `[B]`, except where the step was only a reset."""
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


def _one_each(column: Any) -> NDArray[Any]:
    """`[B]`, from a list, `[B]` or `[B, 1]`."""
    array = np.asarray(column)
    return array.reshape(len(array)) if array.ndim > 1 and array.size == len(array) else array


def _flags(column: Any) -> NDArray[np.bool_]:
    """`[B]` bool, from flags or numbers."""
    flags = _one_each(column)
    return flags if flags.dtype == np.bool_ else flags.astype(np.bool_)
