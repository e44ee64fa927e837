"""Actors that keep state between steps, for `counting.CountingEnv`."""

from __future__ import annotations

from typing import Any

import counting
import numpy as np


class StepCounter:
    """Acts as `counting.act`, and notes before each action how many steps and resets each environment has seen."""

    def __init__(self, num_envs: int) -> None:
        self.steps, self.resets = np.zeros((2, num_envs), int)
        self.noted: list[np.ndarray] = []
        """`[B, 2]` at each step: steps since the last reset, and the number of resets."""

    def act(self, observation: np.ndarray) -> np.ndarray:
        self.noted.append(np.stack([self.steps, self.resets], axis=1))
        self.steps += 1
        return counting.act(observation) if observation.shape[1:] == (5,) else np.zeros(len(observation), int)

    def reset(self, mask: np.ndarray) -> None:
        assert mask.dtype == np.bool_
        assert mask.shape == self.steps.shape
        self.resets[mask] += 1
        self.steps[mask] = 0
        mask[:] = False  # the mask is the actor's own


class ActionQueue:
    """Acts as `counting.act`, but plans four actions at a time from one observation and then plays them."""

    def __init__(self, num_envs: int) -> None:
        self.queues: list[list[int]] = [[] for _ in range(num_envs)]

    def act(self, observation: np.ndarray) -> np.ndarray:
        for queue, row in zip(self.queues, observation, strict=True):
            if not queue:
                ahead = row + np.float32([[0, 0, k, 0, 0] for k in range(4)])
                queue += counting.act(ahead).tolist()
        return np.array([queue.pop(0) for queue in self.queues])

    def reset(self, mask: np.ndarray) -> None:
        for env in np.flatnonzero(mask):
            self.queues[env].clear()
        mask[:] = False


class Simulator:
    """Needs the vector environment, and records the order of calls."""

    needs_env = True

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def bind(self, envs: Any) -> None:
        self.calls.append(envs)

    def reset(self, mask: np.ndarray) -> None:
        self.calls.append("reset")

    def __call__(self, observation: np.ndarray) -> np.ndarray:
        self.calls.append(len(observation))
        return counting.act(observation)
