"""Push-T data: the human demonstrations of Chi et al. as `lit_imitation/PushT-v0` would record them.

`python -m experiments.push_t SOURCE OUT` reads an `.npz` with `observations` (agent x, y, block x, y, angle) and
`actions` (the agent's target), and writes keypoints and actions. `--relative` makes the actions displacements from the
agent; `--mirror` adds every demonstration's mirror image about the diagonal on which the goal lies, which Chi et al.
do not have.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lit_imitation.envs.push_t import SIDE, keypoints
from lit_imitation.utils.files import atomic_file


def mirrored(
    state: NDArray[np.float64], action: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """States `[N, 5]` and targets `[N, 2]` after (x, y) → (512 − y, 512 − x), which turns an angle θ to π/2 − θ."""

    def swap(points: Array) -> Array:
        return SIDE - points[:, ::-1]

    angle = np.pi / 2 - state[:, 4:]
    return np.concatenate([swap(state[:, :2]), swap(state[:, 2:4]), angle], 1), swap(action)


def prepare(source: Path, relative: bool, mirror: bool) -> dict[str, NDArray[np.float32] | NDArray[np.bool_]]:
    """Columns under D4RL's keys; a reward is not recorded and is 0."""
    with np.load(source, allow_pickle=False) as file:
        state, action = file["observations"].astype(np.float64), file["actions"].astype(np.float64)
        done = file["terminals"] | file["timeouts"]
    if mirror:
        pairs = zip((state, action), mirrored(state, action), strict=True)
        state, action = (np.concatenate(pair) for pair in pairs)
        done = np.concatenate([done, done])
    if relative:
        action = action - state[:, :2]
    observation = np.concatenate([keypoints(state[:, 2:]).reshape(-1, 18), state[:, :2]], 1)
    return {
        "observations": observation.astype(np.float32),
        "actions": action.astype(np.float32),
        "rewards": np.zeros(len(done), np.float32),
        "terminals": np.zeros(len(done), np.bool_),
        "timeouts": done,
    }


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description="Push-T demonstrations as lit_imitation/PushT-v0 records them")
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--relative", action="store_true")
    parser.add_argument("--mirror", action="store_true")
    given = parser.parse_args()
    with atomic_file(given.out) as file:
        np.savez_compressed(file, **prepare(given.source, given.relative, given.mirror))


if __name__ == "__main__":
    main()
