"""Exact planning on a reward in the mirrored maze, as an array.

A policy trained on a learned reward can fail because of the reward or because of RL; exact planning separates the two.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from experiments.studies.common import Result
from experiments.studies.finetune.learners import play
from experiments.studies.transfer.learners import unpacked
from experiments.studies.transfer.worlds import WORLDS
from lit_imitation.envs import point_mass_maze as maze
from lit_imitation.rewards import load_reward
from lit_imitation.tabular.mdp import RewardTable, TabularMDP
from lit_imitation.tabular.planning import Planning, solve
from lit_imitation.transitions import Transitions
from lit_imitation.utils.seeding import derive_seed

CELLS = 70
"""Along either axis, each a hundredth wide; the barrier runs between two rows of them."""
STRIDES = (-1.0, -0.5, 0.0, 0.5, 1.0)
"""Values of an action along either axis: from center to center, at most two cells."""
GAMMA = 0.99


def planned(episodes: int, seed: int, origin: dict[str, Any] | None = None, reward: Path | None = None) -> Result:
    """The optimal policy of a reward in the mirrored maze, by value iteration; measured by the true one.

    Args:
        episodes: Number of measured episodes.
        seed: Seed of their starts.
        origin: Arguments with which `reward` was made.
        reward: File with a result of `adversarial`; None for the true reward.

    Returns:
        `returns: [episodes]` and `path: [T, 2]` of the first of them.
    """
    states = _centers()
    actions = np.stack(np.meshgrid(STRIDES, STRIDES), axis=-1).reshape(-1, 2)
    position, action = np.repeat(states, len(actions), 0), np.tile(actions, (len(states), 1))
    following = maze.move(position, action, "left")
    shape = (len(states), len(actions))
    world = TabularMDP((_cell(following).reshape(*shape, 1), np.ones((*shape, 1))))
    paid = _true(position, action) if reward is None else _learned(reward, position, action, following)
    plan = solve(world, RewardTable(paid.double().view(shape), "state_action"), Planning(gamma=GAMMA, entropy="none"))
    best = actions[plan.policy.argmax(1).numpy()].astype(np.float32)
    pair = WORLDS["maze"]
    returns, record = play(
        pair.target, pair.backend, lambda observation: best[_cell(observation)], episodes,
        derive_seed(seed, pair.target, "test"), record=True,
    )  # fmt: skip
    assert record is not None
    return {"returns": returns, "path": record.observation[: int(record.episode_lengths()[0])].numpy()}


def _centers() -> NDArray[np.float64]:
    """`[CELLS², 2]`."""
    axis = maze.LOW + (np.arange(CELLS) + 0.5) * (maze.HIGH - maze.LOW) / CELLS
    return np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)


def _cell(position: NDArray[Any]) -> NDArray[np.int64]:
    """The number of the cell `[...]` that holds each of `[..., 2]`."""
    x, y = np.clip((position - maze.LOW) / (maze.HIGH - maze.LOW) * CELLS, 0, CELLS - 1).astype(np.int64).T
    return np.asarray((y * CELLS + x).T)


def _true(position: NDArray[Any], action: NDArray[Any]) -> Tensor:
    return torch.from_numpy(maze.reward(position, action))


def _learned(result: Path, position: NDArray[Any], action: NDArray[Any], following: NDArray[Any]) -> Tensor:
    """`[N]`: of the checkpoint in `result`."""
    with tempfile.TemporaryDirectory() as directory:
        learned = load_reward(unpacked(result, directory))
    never = np.zeros(len(position))
    found: Tensor = learned.reward(
        Transitions.from_numpy(
            {
                "observation": position.astype(np.float32),
                "action": action.astype(np.float32),
                "reward": never,
                "terminated": never,
                "truncated": never,
                "next_observation": following.astype(np.float32),
            }
        )
    )
    return found
