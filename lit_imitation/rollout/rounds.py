"""Rounds of experience for a policy that learns from its own rollouts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from torch import Tensor

from lit_imitation.rollout.actor import ActorLike
from lit_imitation.rollout.episodes import Episode, success
from lit_imitation.rollout.stepping import stream
from lit_imitation.transitions import Transitions, cast_observation
from lit_imitation.utils.seeding import RandomStream


class Round(NamedTuple):
    """What a policy experienced in a fixed number of steps."""

    rollout: Transitions
    """`[time, env]` on the policy's device; `action` as drawn, before it is clipped into the action space."""
    valid: Tensor
    """`[time, env]` bool: False where the step was only a reset (see `Step.valid`)."""
    episodes: list[Episode]
    """Episodes that ended in this round."""


def rounds(
    envs: VectorEnv[Any, Any, Any],
    explorer: ActorLike,
    drawn: list[Tensor],
    steps: int,
    count: int,
    seed: int,
) -> Iterator[Round]:
    """`count` rounds of `steps` steps in each environment; each round continues where the previous one stopped.

    Args:
        envs: Vector environment from `make`, which is reset with `seed` first.
        explorer: Actor that draws the actions.
        drawn: List to which `explorer` appends each action `[B, *act]` as drawn. It is emptied after each round.
        steps: Steps of each environment in a round.
        count: Number of rounds.
        seed: Seed of the environments and of the global random streams that the explorer draws from.

    Raises:
        TrainingError: An environment failed, or gave a reward or an observation that is not finite. The message names
            environment and step.
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
                    episodes += [Episode(e, int(lengths[e]), float(returns[e]), success(step.info, e)) for e in ended]
                    returns[step.done], lengths[step.done] = 0.0, 0
        *columns, valid = (np.stack(column) for column in zip(*recorded, strict=True))
        columns[1] = np.where(valid, columns[1], 0.0)  # environments may report any reward for a step that only resets
        for i in (0, 4):
            columns[i] = cast_observation(columns[i], envs.single_observation_space)
        action = torch.stack(drawn)
        drawn.clear()
        rollout = Transitions.from_numpy(dict(zip(names, columns, strict=True)), action=action)
        yield Round(rollout.to(action.device), torch.from_numpy(valid).to(action.device), episodes)
