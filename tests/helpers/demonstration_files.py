"""Columns of demonstration files, and their spaces."""

from pathlib import Path

import h5py
import numpy as np
from gymnasium.spaces import Box, Discrete

VECTOR = Box(-np.inf, np.inf, (3,), np.float32)
IMAGE = Box(0, 255, (4, 4, 1), np.uint8)
PAIR = Box(np.array([-1, 0], np.float32), np.array([1, 10], np.float32))
CHOICE = Discrete(3, start=-1)


def columns(**changes) -> dict:
    """D4RL columns of ten rows in two trajectories; a change to None removes a key."""
    rng = np.random.default_rng(0)
    held = {
        "observations": rng.normal(size=(10, 3)),
        "actions": rng.uniform(0, 1, (10, 2)),
        "rewards": np.arange(10.0),
        "terminals": np.arange(10) == 4,
        "timeouts": np.arange(10) == 9,
        **changes,
    }
    return {key: value for key, value in held.items() if value is not None}


def save(path: Path, held: dict) -> str:
    if path.suffix == ".npz":
        np.savez(path, **held)
    else:
        with h5py.File(path, "w") as file:
            for key, value in held.items():
                file[key] = value
    return str(path)
