"""Two small tasks of fixed length: one distant goal, and four equally good goals."""

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
    """Point that walks from about −`GOAL` to `GOAL`, at most `PACE` per step along each axis.

    The observation is the position; the reward is minus the distance to the goal.

    Args:
        half_way: Start anywhere on the second half of the way.
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
    """Cross with four `ARMS` of `ARM` steps from the middle; reward 1 per step at the end of any arm.

    The observation is the position; the actions are the four directions. A step that would leave the arms has no
    effect.
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


def goal_expert(observation: NDArray[np.float32]) -> NDArray[np.float32]:
    """Expert of `Goal`: full speed toward the goal."""
    return np.clip((GOAL - observation) / PACE, -1.0, 1.0)


def fork_expert(observation: NDArray[np.float32]) -> NDArray[np.int64]:
    """Expert of `Fork`: outward, and from the middle a quarter of the rows along each arm."""
    outwards = (observation @ ARMS.T).argmax(1)
    return np.where(observation.any(1), outwards, np.arange(len(observation)) % 4)


def arm_shares(places: NDArray[np.float32]) -> NDArray[np.float64]:
    """Share `[4]` of the positions `[N, 2]` that lie along each arm."""
    moved = places[places.any(1)]
    return np.bincount((moved @ ARMS.T).argmax(1), minlength=4) / max(len(places), 1)


def record(path: Path, half_way: bool = False) -> Path:
    """Write eight demonstrations of `Goal`, of the whole route or of its second half."""
    envs = make("goals:Goal-v0", 4, 0, "sync", half_way=half_way)
    transitions = collect(envs, goal_expert, 8, 0)
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
    return arm_shares(transitions.next_observation[transitions.done].numpy()).tolist()
