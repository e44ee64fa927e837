"""Whether a learned reward is one without the learner beside it: frozen, and a fresh policy trained on it by PPO.

`python -m experiments.scores.reoptimize [--seeds 5] [navigation pendulum]` trains GCL by its recipe (or takes the runs that
`adversarial_recipes.py` left) and GAIL with the same demonstrations, learner and environment steps, and then on the
reward of each run a policy from scratch, with the same learner and as many steps again; of that it is the last policy
that counts, since without the true reward nobody could tell a better one. It writes
`experiments/results/reoptimize.json`, and puts the table into docs/guided_cost_learning.md. An interrupted call goes on
where it stopped.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from experiments.scores.readme import refresh
from lit_imitation.training.repeat import repeat
from lit_imitation.utils.files import atomic_write
from lit_imitation.utils.statistics import bootstrap_interval

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results" / "reoptimize.json"
TASKS, METHODS = ("navigation", "pendulum"), ("gcl", "gail")
OF_DEMONSTRATIONS = ("demonstrations", "expert", "expert_trajectories", "expert_deterministic", "val_fraction")


def recipe_file(task: str) -> Path:
    """Of GCL."""
    return ROOT / "configs" / "gcl" / f"{task}.yaml"


def learners(task: str, method: str, seeds: int, out: Path) -> list[Path]:
    """A run's folder for each seed: of the recipe, or of the same with GAIL and its defaults."""
    config, runs = recipe_file(task), ROOT / "runs" / "adversarial_recipes" / "gcl" / task
    if method == "gail":
        recipe = yaml.safe_load(config.read_text())
        learner = recipe["model"]["init_args"]["learner"]
        recipe["model"] = {"class_path": "lit_imitation.GAIL", "init_args": {"learner": learner}}
        config, runs = out / task / "gail.yaml", out / task / "gail"
        config.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(config, yaml.safe_dump(recipe))
    repeat([str(config)], seeds=seeds, jobs=1, out=runs, overrides=[])
    return [runs / f"seed_{seed}" for seed in range(seeds)]


def on_reward(task: str, directory: Path, expert_return: float) -> dict[str, Any]:
    """A fresh policy on the reward of a run."""
    recipe = yaml.safe_load(recipe_file(task).read_text())
    learner = recipe["model"]["init_args"]["learner"]
    data = {k: v for k, v in recipe["data"]["init_args"].items() if k not in OF_DEMONSTRATIONS}
    return {
        "model": {"class_path": "lit_imitation.RL", "init_args": {"learner": learner, "reward": str(directory)}},
        "data": {
            "class_path": "lit_imitation.RolloutDataModule",
            "init_args": {**data, "expert_return": expert_return},
        },
    }


def mean(values: list[float]) -> dict[str, Any]:
    """With the interval that `readme._score` prints."""
    return {"mean": sum(values) / len(values), "mean_ci95": list(bootstrap_interval(values, np.mean)), "values": values}


def main() -> None:
    """Measure, write the results, refresh the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", default=TASKS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "reoptimize")
    options = parser.parse_args()
    for task in options.tasks:
        for method in METHODS:
            scores: dict[str, list[float]] = {"learner": [], "fresh": []}
            returns: dict[str, list[float]] = {"learner": [], "fresh": []}
            for seed, learned in enumerate(learners(task, method, options.seeds, options.out)):
                summary = json.loads((learned / "summary.json").read_text())
                runs = options.out / task / f"{method}_fresh" / str(seed)
                runs.mkdir(parents=True, exist_ok=True)
                again = runs / "recipe.yaml"
                atomic_write(again, yaml.safe_dump(on_reward(task, learned.resolve(), summary["expert_return"])))
                repeat([str(again)], seeds=1, jobs=1, out=runs, overrides=[], first_seed=seed)
                fresh = runs / f"seed_{seed}"
                for name, result in (("learner", summary), ("fresh", json.loads((fresh / "summary.json").read_text()))):
                    scores[name].append(result["normalized_score"])
                    returns[name].append(result["return_mean"])
            rows = {(row["task"], row["method"]): row for row in _written()}
            rows[task, method] = {
                "task": task,
                "method": method,
                **{name: {**mean(of), "returns": returns[name]} for name, of in scores.items()},
                **{name: summary[name] for name in ("expert_return", "random_return")},
            }
            order = [rows[t, m] for t in TASKS for m in METHODS if (t, m) in rows]
            atomic_write(RESULTS, json.dumps(order, indent=1) + "\n")
            refresh()


def _written() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    return found


if __name__ == "__main__":
    main()
