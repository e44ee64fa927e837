"""The GAIL, AIRL and GCL recipes over several seeds, through `repeat`.

`python -m experiments.scores.adversarial_recipes [--seeds 3] [--jobs 2] [recipe …]` (as `gail/hopper`) writes
`experiments/results/adversarial_recipes.json`, and puts the tables into docs/adversarial.md and
docs/guided_cost_learning.md, and the figures into each recipe's first comment. An interrupted call goes on where it
stopped.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import numpy as np
import yaml

from experiments.scores.readme import refresh
from lit_imitation.training.repeat import repeat
from lit_imitation.utils.files import atomic_write

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results" / "adversarial_recipes.json"
RECIPES = [
    f"{kind}/{path.stem}"
    for kind in ("gail", "airl", "gcl")
    for path in sorted((ROOT / "configs" / kind).glob("*.yaml"))
]


def weights(runs: Path, seeds: int) -> dict[str, float]:
    """Medians over the rounds of all seeds of what GCL says of its importance weights."""
    names, rounds = ("effective_sample_size", "weight_exponent"), []
    for seed in range(seeds):
        with (runs / f"seed_{seed}" / "metrics.csv").open(newline="") as file:
            rounds += [[row[f"train/{name}"] for name in names] for row in csv.DictReader(file)]
    told = np.array([row for row in rounds if all(row)], dtype=float)
    return dict(zip(names, np.median(told, axis=0).tolist(), strict=True))


def main() -> None:
    """Measure, write the results, refresh page and recipes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="*", default=RECIPES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "adversarial_recipes")
    options = parser.parse_args()
    for recipe in options.recipes:
        path = ROOT / "configs" / f"{recipe}.yaml"
        data = yaml.safe_load(path.read_text())["data"]["init_args"]
        result = repeat([str(path)], seeds=options.seeds, jobs=options.jobs, out=options.out / recipe, overrides=[])
        (task,) = result["tasks"]
        rows = {row["recipe"]: row for row in json.loads(RESULTS.read_text())} if RESULTS.exists() else {}
        told = {"expert": data["expert"], "expert_trajectories": data.get("expert_trajectories", 25)}
        told["subsample"] = data.get("subsample", 1)
        rows[recipe] = {"recipe": recipe, **told, **task}
        if recipe.startswith("gcl/"):
            rows[recipe] |= weights(options.out / recipe, options.seeds)
        atomic_write(RESULTS, json.dumps([rows[name] for name in RECIPES if name in rows], indent=1) + "\n")
        refresh()


if __name__ == "__main__":
    main()
