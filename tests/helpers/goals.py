"""Two small tasks of fixed length: one goal far from the start, and four goals that are equally good."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

from lit_imitation.data.demonstrations import Demonstrations, write_demonstrations
from lit_imitation.envs import make
from lit_imitation.rollout import collect

PACE, GOAL = 0.1, np.full(4, 0.6, np.float32)
ARM = 1
ARMS = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], np.float32)


class Goal(gymnasium.Env):
    """A point in the plane walks from about −`GOAL` to `GOAL`, `PACE` a step at the most along each axis, and stays.

    The observation is the place; a step is paid minus the distance from the goal.

    Args:
        half_way: start anywhere on the last half of the way.
    """

    observation_space, action_space = Box(-1.0, 1.0, GOAL.shape, np.float32), Box(-1.0, 1.0, GOAL.shape, np.float32)

    def __init__(self, half_way=False):
        self.half_way = half_way

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        start = self.np_random.uniform() * GOAL if self.half_way else -GOAL
        self.place = (self.np_random.uniform(-0.1, 0.1, GOAL.shape) + start).astype(np.float32)
        return self.place, {}

    def step(self, action):
        self.place = np.clip(self.place + PACE * np.clip(action, -1.0, 1.0), -1.0, 1.0).astype(np.float32)
        return self.place, -float(np.abs(self.place - GOAL).mean()), False, False, {}


class Fork(gymnasium.Env):
    """From the middle of a cross along one of its four `ARMS`, `ARM` steps to the end of any of them; 1 a step there.

    The observation is the place; the actions are the four directions. Off the arms nothing can be reached: a step that
    would leave them is none.
    """

    observation_space, action_space = Box(-float(ARM), float(ARM), (2,), np.float32), Discrete(4)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = np.zeros(2, np.float32)
        return self.place, {}

    def step(self, action):
        place = self.place + ARMS[action]
        if not place.all() and np.abs(place).max() <= ARM:
            self.place = place
        return self.place, float(np.abs(self.place).max() == ARM), False, False, {}


gymnasium.register("Goal-v0", Goal, max_episode_steps=30)
gymnasium.register("Fork-v0", Fork, max_episode_steps=3)


def heads_for_it(observation: NDArray[np.float32]) -> NDArray[np.float32]:
    """To the goal at full pace: the expert of `Goal`."""
    return np.clip((GOAL - observation) / PACE, -1.0, 1.0)


def takes_each(observation: NDArray[np.float32]) -> NDArray[np.int64]:
    """Outwards, and from the middle a fourth of the rows along each arm: the expert of `Fork`."""
    outwards = (observation @ ARMS.T).argmax(1)
    return np.where(observation.any(1), outwards, np.arange(len(observation)) % 4)


def share_of_modes(places: NDArray[np.float32]) -> NDArray[np.float64]:
    """`[4]`: of the places `[N, 2]`, those along each arm."""
    moved = places[places.any(1)]
    return np.bincount((moved @ ARMS.T).argmax(1), minlength=4) / max(len(places), 1)


def record(path: Path, half_way: bool = False) -> Path:
    """Write eight demonstrations of `Goal`, of the whole route or of its second half."""
    envs = make("goals:Goal-v0", 4, 0, "sync", half_way=half_way)
    transitions = collect(envs, heads_for_it, 8, 0)
    envs.close()
    write_demonstrations(path, Demonstrations(transitions, transitions.episode_returns(), {"env_id": "Goal-v0"}))
    return path


def sampled_shares(policy, episodes: int = 1000) -> list[float]:
    """The share of a policy's episodes on `Fork`, with sampled actions, that end on each arm."""
    envs = make("goals:Fork-v0", 8, 0, "sync")

    @torch.no_grad()
    def sample(observation):
        return policy.sample(policy.head(torch.as_tensor(observation))).numpy()

    transitions = collect(envs, sample, episodes, 0)
    envs.close()
    return share_of_modes(transitions.next_observation[transitions.done].numpy()).tolist()
