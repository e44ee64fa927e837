"""What goes wrong between a discriminator and its learner, and which option cures it.

`python -m experiments.scores.failures [--seeds 4]` trains GAIL on the two small tasks of `tests/helpers/goals.py`, with
nothing against each failure and with each option alone. It writes `experiments/results/failures.json`, and puts the
tables into docs/adversarial.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import yaml

from experiments.scores.readme import refresh
from lit_imitation import load_policy
from lit_imitation.cli import main as command
from lit_imitation.data.demonstrations import Demonstrations, write_demonstrations
from lit_imitation.envs import make
from lit_imitation.rollout import collect
from lit_imitation.utils.files import atomic_write

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results" / "failures.json"

TOO_STRONG: dict[str, dict[str, Any]] = {
    "nothing": {},
    "max_logit: 1": {"discriminator": {"max_logit": 1.0}},
    "spectral_norm: true": {"discriminator": {"spectral_norm": True}},
    "gradient_penalty: 1": {"discriminator": {"gradient_penalty": 1.0}},
    "loss: wasserstein, spectral_norm: true": {
        "discriminator": {"loss": "wasserstein", "reward": "logit", "spectral_norm": True}
    },
    "label_smoothing: 0.4": {"discriminator": {"label_smoothing": 0.4}},
    "discriminator_steps: 1, not 40": {"model": {"discriminator_steps": 1}},
    "learning_rate: 0.0003, not 0.01": {"model": {"learning_rate": 3e-4}},
    "normalize_rewards: true": {"learner": {"normalize_rewards": True}},
    "reward: logit, nothing": {"discriminator": {"reward": "logit"}},
    "reward: logit, max_logit: 1": {"discriminator": {"reward": "logit", "max_logit": 1.0}},
    "reward: logit, label_smoothing: 0.4": {"discriminator": {"reward": "logit", "label_smoothing": 0.4}},
}
"""On `Goal`, with demonstrations that begin half-way: none of the learner's places is one of the expert's, so that a
discriminator that learns fast tells them apart for good, and −log(1 − D) is next to 0 wherever the learner goes; paid
by the logit it gets numbers in the tens, of which its value function makes nothing."""

FORK_PPO = {"learning_rate": 1e-2, "normalize_rewards": False}
MODES: dict[str, tuple[str, dict[str, Any]]] = {
    "PPO, entropy_coefficient: 0": ("PPO", FORK_PPO),
    "PPO, entropy_coefficient: 1": ("PPO", FORK_PPO | {"entropy_coefficient": 1.0}),
    "SAC, temperature: 0.1": (
        "SAC",
        {
            "temperature": 0.1,
            "learn_temperature": False,
            "learning_rate": 1e-3,
            "learning_starts": 256,
            "updates_per_step": 0.25,
            "batch_size": 64,
        },
    ),
}
"""On `Fork`, whose expert takes each of four arms equally often: a policy that learns faster than its discriminator has
given up three of them before it is told that it takes the fourth too often."""


def goal(options: dict[str, dict[str, Any]], demonstrations: Path) -> dict[str, Any]:
    """A run of some seconds."""
    return recipe(
        "Goal-v0",
        {"inputs": "state", "activation": "relu", **options.get("discriminator", {})},
        "PPO",
        {
            "hidden_sizes": [32],
            "learning_rate": 2e-3,
            "epochs": 5,
            "batch_size": 96,
            "normalize_rewards": False,
            **options.get("learner", {}),
        },
        {"learning_rate": 1e-2, "discriminator_steps": 40, "batch_size": 128, **options.get("model", {})},
        {"demonstrations": str(demonstrations), "env_steps": 14_400, "steps_per_round": 60},
    )


def fork(learner: str, options: dict[str, Any]) -> dict[str, Any]:
    """A run of some seconds."""
    return recipe(
        "Fork-v0",
        {"hidden_sizes": [32]},
        learner,
        {"hidden_sizes": [32], "gamma": 0.9, **options},
        {"learning_rate": 1e-3, "discriminator_steps": 8, "batch_size": 128},
        {"expert": "goals:fork_expert", "expert_trajectories": 20, "env_steps": 9600, "steps_per_round": 24},
    )


def recipe(
    env_id: str,
    discriminator: dict[str, Any],
    learner: str,
    of_learner: dict[str, Any],
    model: dict[str, Any],
    data: dict[str, Any],
) -> dict[str, Any]:
    """GAIL on one of the two tasks; the policy is judged as the last round left it."""
    return {
        "model": {
            "class_path": "lit_imitation.GAIL",
            "init_args": {
                "discriminator": {"class_path": "lit_imitation.Discriminator", "init_args": discriminator},
                "learner": {"class_path": f"lit_imitation.{learner}", "init_args": of_learner},
                **model,
            },
        },
        "data": {
            "class_path": "lit_imitation.ImitationDataModule",
            "init_args": {
                "env_id": f"goals:{env_id}",
                "backend": "sync",
                "num_envs": 8,
                "rounds_per_epoch": 10,
                "eval_episodes": 0,
                "test_episodes": 20,
                "val_fraction": 0.25,
                **data,
            },
        },
        "trainer": {"accelerator": "cpu", "enable_progress_bar": False},
    }


def recorded(path: Path, half_way: bool = False) -> Path:
    """Eight demonstrations of `Goal`, of all of the way or of its last half."""
    from goals import goal_expert

    envs = make("goals:Goal-v0", 4, 0, "sync", half_way=half_way)
    transitions = collect(envs, goal_expert, 8, 0)
    envs.close()
    write_demonstrations(path, Demonstrations(transitions, transitions.episode_returns(), {"env_id": "Goal-v0"}))
    return path


def run(config: dict[str, Any], seed: int, out: Path) -> dict[str, float]:
    """The return, and the means of what was logged over the last five rounds."""
    out.mkdir(parents=True)
    (out / "recipe.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    arguments = [f"--config={out / 'recipe.yaml'}", f"--trainer.default_root_dir={out}", f"--seed_everything={seed}"]
    command(["fit", *arguments])
    header, *lines = (out / "metrics.csv").read_text().splitlines()
    columns = zip(header.split(","), zip(*(line.split(",") for line in lines), strict=True), strict=True)
    logged = {name.removeprefix("train/"): [float(cell) for cell in cells if cell] for name, cells in columns}
    found = {name: float(np.mean(values[-5:])) for name, values in logged.items() if values}
    return found | {"return_mean": json.loads((out / "summary.json").read_text())["return_mean"]}


def shares(out: Path, episodes: int = 1000) -> list[float]:
    """Of the sampled policy's episodes, those that end on each arm."""
    from goals import arm_shares

    policy, envs = load_policy(out), make("goals:Fork-v0", 8, 0, "sync")

    @torch.no_grad()
    def samples(observation: np.ndarray) -> np.ndarray:
        return policy.sample(policy.head(torch.as_tensor(observation))).numpy()

    transitions = collect(envs, samples, episodes, 0)
    envs.close()
    return arm_shares(transitions.next_observation[transitions.done].numpy()).tolist()


def main() -> None:
    """Measure, write the results, refresh the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests" / "helpers"))
    torch.set_num_threads(1)
    kept = ("jensen_shannon", "reward_mean", "reward_std", "return_mean")
    rows: dict[str, list[dict[str, Any]]] = {"too_strong": [], "modes": []}
    with TemporaryDirectory() as directory:
        out = Path(directory)
        demonstrations = recorded(out / "half_way.npz", half_way=True)
        for i, (name, changed) in enumerate(TOO_STRONG.items()):
            runs = [run(goal(changed, demonstrations), s, out / f"goal_{i}_{s}") for s in range(options.seeds)]
            rows["too_strong"].append({"option": name} | {key: [o[key] for o in runs if key in o] for key in kept})
        for i, (name, of_learner) in enumerate(MODES.items()):
            places = [out / f"fork_{i}_{seed}" for seed in range(options.seeds)]
            for seed, place in enumerate(places):
                run(fork(*of_learner), seed, place)
            rows["modes"].append({"learner": name, "shares": [shares(place) for place in places]})
    atomic_write(RESULTS, json.dumps(rows, indent=1) + "\n")
    refresh()


if __name__ == "__main__":
    main()
