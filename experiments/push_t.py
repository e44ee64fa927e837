"""Push-T data: the human demonstrations of Chi et al. as `lit_imitation/PushT-v0` would record them.

`python -m experiments.push_t SOURCE OUT` reads an `.npz` with `observations` (agent x, y, block x, y, angle) and
`actions` (the agent's target), and writes keypoints and actions. `--mirror` adds every demonstration's mirror image
about the diagonal on which the goal lies, which Chi et al. do not have. `--image` writes images and the position of the
agent in place of keypoints, and `--demonstrations N` only the first N.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import yaml
from lightning import seed_everything
from numpy.typing import NDArray

from lit_imitation import load_policy
from lit_imitation.envs.push_t import SIDE, PushTEnv, keypoints
from lit_imitation.policies import Policy
from lit_imitation.utils.files import atomic_file

Array: TypeAlias = NDArray[np.float64]
STEPS = 300
"""Steps of an episode, as in the paper's protocol."""


def mirrored(
    state: NDArray[np.float64], action: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """States `[N, 5]` and targets `[N, 2]` after (x, y) → (512 − y, 512 − x), which turns an angle θ to π/2 − θ."""

    def swap(points: Array) -> Array:
        return SIDE - points[:, ::-1]

    angle = np.pi / 2 - state[:, 4:]
    return np.concatenate([swap(state[:, :2]), swap(state[:, 2:4]), angle], 1), swap(action)


def scores(run: Path, seeds: range) -> list[float]:
    """Mean score of a run's last ten checkpoints over the paper's starts of these seeds, with sampled plans."""
    checkpoints = sorted((run / "checkpoints").glob("epoch_*.ckpt"))[-10:]
    found = []
    for checkpoint in checkpoints:
        recipe = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
        arguments = recipe["data"]["init_args"]["env_kwargs"] or {}
        seed_everything(seeds.start, verbose=False)
        played = play(load_policy(checkpoint), [PushTEnv(**arguments) for _ in seeds], seeds)
        found.append(float(played.mean()))
    return found


def play(policy: Policy, envs: Sequence[PushTEnv], seeds: Sequence[int]) -> Array:
    """Return of one episode in each environment, from the start of its seed; all are planned for together."""
    actor = policy.actor(deterministic=False)
    observation = np.stack([env.reset(seed=seed)[0] for env, seed in zip(envs, seeds, strict=True)])
    returns, running = np.zeros(len(envs)), np.ones(len(envs), np.bool_)
    actor.reset(running)
    for _ in range(STEPS):
        actions = actor(observation)
        for i in np.flatnonzero(running):
            observation[i], reward, terminated, _, _ = envs[i].step(actions[i])
            returns[i] += float(reward)
            running[i] = not terminated
        if not running.any():
            break
    return returns


def prepare(source: Path, mirror: bool, image: bool = False, demonstrations: int | None = None) -> dict[str, Any]:
    """Columns under D4RL's keys; a reward is not recorded and is 0."""
    with np.load(source, allow_pickle=False) as file:
        state, action = file["observations"].astype(np.float64), file["actions"].astype(np.float64)
        done = file["terminals"] | file["timeouts"]
    if demonstrations is not None:
        kept = np.flatnonzero(done)[demonstrations - 1] + 1
        state, action, done = state[:kept], action[:kept], done[:kept]
    if mirror:
        pairs = zip((state, action), mirrored(state, action), strict=True)
        state, action = (np.concatenate(pair) for pair in pairs)
        done = np.concatenate([done, done])
    if image:
        env = PushTEnv(image=True)
        seen = [env.reset(options={"state": one})[0] for one in state]
        observations = {f"observations/{key}": np.stack([one[key] for one in seen]) for key in ("agent", "image")}
    else:
        rows = np.concatenate([keypoints(state[:, 2:]).reshape(-1, 18), state[:, :2]], 1)
        observations = {"observations": rows.astype(np.float32)}
    return observations | {
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
    parser.add_argument("--mirror", action="store_true")
    parser.add_argument("--image", action="store_true")
    parser.add_argument("--demonstrations", type=int, metavar="N")
    given = parser.parse_args()
    with atomic_file(given.out) as file:
        np.savez(file, **prepare(given.source, given.mirror, given.image, given.demonstrations))


if __name__ == "__main__":
    main()
