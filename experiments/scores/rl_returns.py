"""Returns at equal environment steps: our PPO and SAC beside Stable-Baselines3's, with the same hyper-parameters.

`python -m experiments.scores.rl_returns [task …]` trains what `rl_returns.yaml` names, on either side with as many seeds, and
plays 100 episodes with the mode of each final policy. It writes `experiments/results/rl_returns.json` and puts the table
into docs/reinforcement_learning.md. An interrupted call goes on where it stopped; hours on two cores in all.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from experiments.scores.readme import refresh
from lit_imitation.training.repeat import repeat
from lit_imitation.utils.files import atomic_write
from lit_imitation.utils.statistics import bootstrap_interval

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RESULTS = HERE.parent / "results" / "rl_returns.json"
TASKS: dict[str, Any] = yaml.safe_load((HERE.parent / "tables" / "rl_returns.yaml").read_text())
OURS = {
    "n_epochs": "epochs",
    "ent_coef": "entropy_coefficient",
    "learning_starts": "learning_starts",
    "gradient_steps": "updates_per_step",
}
"""Their names to ours, where they differ."""


def recipe(task: dict[str, Any]) -> dict[str, Any]:
    """The task as a recipe of ours. Without a `ModelCheckpoint` the policy that is tested is the last, as theirs is."""
    parameters = {OURS.get(name, name): value for name, value in task["hyperparameters"].items()}
    if task["algorithm"] == "ppo":
        steps = parameters.pop("n_steps")
        parameters |= {"normalize_observations": task["normalize"], "normalize_rewards": task["normalize"]}
        parameters["compile"] = task["env_steps"] > 100_000  # a minute of compiling pays from there on
    else:
        steps = 50
        parameters["compile"] = True
    return {
        "model": {
            "class_path": "lit_imitation.RL",
            "init_args": {
                "learner": {"class_path": f"lit_imitation.{task['algorithm'].upper()}", "init_args": parameters}
            },
        },
        "data": {
            "class_path": "lit_imitation.RolloutDataModule",
            "init_args": {
                "env_id": task["env_id"],
                "env_steps": task["env_steps"],
                "num_envs": task["num_envs"],
                "steps_per_round": steps,
                "rounds_per_epoch": task["rounds_per_epoch"],
            },
        },
        "trainer": {"enable_progress_bar": False, "accelerator": "cpu", "check_val_every_n_epoch": 10_000},
    }


def theirs(name: str, seed: int) -> dict[str, Any]:
    """One run of Stable-Baselines3, in a process of its own."""
    directory = HERE.parent / "results" / "sb3_returns"
    file = directory / f"{name}-{seed}.json"
    if not file.exists():
        subprocess.run([sys.executable, str(HERE / "sb3_returns.py"), name, str(seed), str(directory)], check=True)
    return dict(json.loads(file.read_text()))


def summarized(returns: list[float]) -> dict[str, Any]:
    """Mean over seeds with its interval."""
    return {"returns": returns, "mean": float(np.mean(returns)), "ci95": list(bootstrap_interval(returns, np.mean))}


def main() -> None:
    """Measure, write the results, refresh the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=list(TASKS))
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in options.tasks:
        task = TASKS[name]
        out = ROOT / "runs" / "rl_returns" / name
        out.mkdir(parents=True, exist_ok=True)
        config = out / "recipe.yaml"
        if not config.exists():
            config.write_text(yaml.safe_dump(recipe(task), sort_keys=False))
        result = repeat([str(config)], seeds=task["seeds"], jobs=1, out=out, overrides=[])
        (mine,) = result["tasks"]
        runs = [theirs(name, seed) for seed in range(task["seeds"])]
        # Read only now: another call may have written its own meanwhile.
        rows = {row["task"]: row for row in json.loads(RESULTS.read_text())} if RESULTS.exists() else {}
        rows[name] = {
            "task": name,
            "env_id": task["env_id"],
            "algorithm": task["algorithm"],
            "env_steps": task["env_steps"],
            "seeds": task["seeds"],
            "ours": summarized(list(mine["return_mean"]["values"]))
            | {"env_steps": mine["env_steps"], "wall_seconds": mine["wall_seconds"]},
            "sb3": summarized([run["return_mean"] for run in runs]) | {"env_steps": runs[0]["env_steps"]},
            "versions": runs[0]["versions"],
        }
        atomic_write(RESULTS, json.dumps([rows[n] for n in TASKS if n in rows], indent=1) + "\n")
        refresh()


if __name__ == "__main__":
    main()
