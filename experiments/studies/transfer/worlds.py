"""The two pairs of environments: one to learn the reward in, one with other dynamics to use it in."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lit_imitation.envs import Backend, make, point_mass_maze
from lit_imitation.rollout import Steps
from lit_imitation.transitions import Transitions

TORSO_VELOCITY = 13
"""Entry of the ant's observation: the velocity of its torso along x."""
CONTROL_COST = 0.01
"""The ant's, times ‖a‖²."""
GRID = 36
"""Points along either axis of the maze at which rewards are compared and drawn."""


class World(NamedTuple):
    """A pair of environments and their true rewards."""

    source: str
    """The environment in which the reward is learned."""
    target: str
    """The environment in which it is used."""
    backend: Backend
    """Backend of both."""
    true_reward: Callable[[Transitions], Tensor]
    """`[N]`: R(s, a, s′) of transitions `[N]`, independent of their recorded reward."""
    states: Callable[[Transitions], Tensor]
    """`[N, obs]`: where rewards are compared as functions of the state, given demonstrations."""
    state_reward: Callable[[Tensor], Tensor]
    """`[N]`: the part of the true reward that is a function of the state."""
    coverage: Callable[[Transitions, int], Transitions]
    """Transitions `[N]` over which EPIC compares rewards, given demonstrations and a seed."""


def maze_grid() -> NDArray[np.float32]:
    """`[GRID · GRID, 2]`: places in the maze, x before y."""
    axis = np.linspace(point_mass_maze.LOW, point_mass_maze.HIGH, GRID, dtype=np.float32)
    return np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)


def _maze_reward(transitions: Transitions) -> Tensor:
    return torch.from_numpy(point_mass_maze.reward(transitions.observation.numpy(), transitions.action.numpy()))


def _maze_coverage(demonstrations: Transitions, seed: int) -> Transitions:
    """Anywhere in the box, any action, and where that leads with the barrier moved."""
    rng = np.random.default_rng(seed)
    position = rng.uniform(point_mass_maze.LOW, point_mass_maze.HIGH, (1000, 2))
    action = rng.uniform(-1.0, 1.0, (1000, 2))
    return Transitions.from_numpy(
        {
            "observation": position,
            "action": action,
            "reward": point_mass_maze.reward(position, action),
            "terminated": np.zeros(1000),
            "truncated": np.ones(1000),
            "next_observation": point_mass_maze.move(position, action, "left"),
        }
    )


def _ant_reward(transitions: Transitions) -> Tensor:
    """Without contact forces, which are tiny and not part of the state."""
    assert transitions.next_observation is not None
    forward = transitions.next_observation[:, TORSO_VELOCITY]
    return forward - CONTROL_COST * transitions.action.clamp(-1.0, 1.0).square().sum(-1)


def _ant_coverage(demonstrations: Transitions, seed: int) -> Transitions:
    """Demonstrations and random actions, 500 transitions each."""
    envs = make(WORLDS["ant"].source, 2, seed, WORLDS["ant"].backend)
    envs.action_space.seed(seed)
    run = Steps(envs, lambda observation: np.asarray(envs.action_space.sample()), 500, seed, record=True)
    for _ in run:
        pass
    envs.close()
    rows = torch.linspace(0, len(demonstrations) - 1, 500).long()
    return Transitions.concatenate([demonstrations[rows], run.transitions()])


WORLDS = {
    "maze": World(
        "lit_imitation/PointMassMaze-v0",
        "lit_imitation/PointMassMazeMirrored-v0",
        "vector",
        _maze_reward,
        lambda demonstrations: torch.from_numpy(maze_grid()),
        lambda state: -torch.linalg.vector_norm(state - state.new_tensor(point_mass_maze.GOAL), dim=-1),
        _maze_coverage,
    ),
    "ant": World(
        "lit_imitation/WeakAnt-v0",
        "lit_imitation/CrippledAnt-v0",
        "sync",
        _ant_reward,
        lambda demonstrations: _ant_coverage(demonstrations, 0).observation,
        lambda state: state[:, TORSO_VELOCITY],
        _ant_coverage,
    ),
}
