"""A small task with a camera and a vector, and its recordings in robomimic's layout with two cameras."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import h5py
import numpy as np
from gymnasium.spaces import Box, Dict

SIDE = 12
"""Height and width of the camera's images, in pixels."""


class Reach(gymnasium.Env):
    """Point that has to reach a goal which only the camera sees: a white square on black; the state is the point.

    The action is a step along each axis, the reward minus the distance that remains.
    """

    observation_space = Dict(
        [("camera", Box(0, 255, (SIDE, SIDE, 3), np.uint8)), ("point", Box(-2.0, 2.0, (2,), np.float32))]
    )
    action_space = Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.point, self.goal = self.np_random.uniform(-1, 1, (2, 2)).astype(np.float32)
        return self.observe(), {}

    def step(self, action):
        self.point = np.clip(self.point + 0.2 * np.clip(action, -1, 1), -2, 2).astype(np.float32)
        return self.observe(), -float(np.abs(self.goal - self.point).sum()), False, False, {}

    def observe(self):
        image = np.zeros((SIDE, SIDE, 3), np.uint8)
        row, column = np.round((self.goal + 1) / 2 * (SIDE - 3)).astype(int)
        image[row : row + 3, column : column + 3] = 255
        return {"camera": image, "point": self.point}


gymnasium.register("Reach-v0", Reach, max_episode_steps=8)


def seek(observation):
    """Expert: half the way from the point to the goal it sees in packed observations `[B, bytes]`."""
    camera = observation[:, 8 : 8 + SIDE * SIDE * 3].reshape(-1, SIDE, SIDE, 3)[..., 0]
    point = np.ascontiguousarray(observation[:, :8]).view(np.float32)
    first = np.stack([camera.any(2).argmax(1), camera.any(1).argmax(1)], 1)
    goal = 2 * first / (SIDE - 3) - 1
    return np.clip(2.5 * (goal - point), -1, 1).astype(np.float32)


def write_two_cameras(path: Path, episodes: int = 4, side: int = 40) -> Path:
    """A robomimic file with `agentview_image`, `robot0_eye_in_hand_image` and `robot0_eef_pos`, without rewards."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for number in range(episodes):
            demo = file.create_group(f"data/demo_{number}")
            length = 3 + number
            for name in ("agentview_image", "robot0_eye_in_hand_image"):
                demo[f"obs/{name}"] = rng.integers(0, 256, (length, side, side, 3)).astype(np.uint8)
            demo["obs/robot0_eef_pos"] = rng.normal(size=(length, 3))
            demo["actions"] = rng.uniform(-1, 1, (length, 2))
            demo["dones"] = np.arange(length) == length - 1
            demo.attrs["num_samples"] = length
    return path
