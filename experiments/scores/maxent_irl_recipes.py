"""The MaxEntIRL recipes over several seeds, through `repeat`.

`python -m experiments.scores.maxent_irl_recipes [--seeds 3] [--jobs 2] [recipe …]` (as `taxi`) writes
`experiments/results/maxent_irl_recipes.json`, and puts the table into docs/maxent_irl.md and the figures into each
recipe's first comment. An interrupted call goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import yaml

from experiments.scores.readme import refresh
from lit_imitation.training.repeat import repeat
from lit_imitation.utils.files import atomic_write
from lit_imitation.utils.statistics import bootstrap_interval

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results" / "maxent_irl_recipes.json"
RECIPES = [path.stem for path in sorted((ROOT / "configs" / "maxent_irl").glob("*.yaml"))]
FIGURES = (
    "expected_value_difference",
    "value_share",
    "reward_correlation",
    "epic_distance",
    "fresh_expected_value_difference",
    "fresh_value_share",
)


def main() -> None:
    """Measure, write the results, refresh page and recipes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=RECIPES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "maxent_irl_recipes")
    options = parser.parse_args()
    for recipe in options.recipes:
        path = ROOT / "configs" / "maxent_irl" / f"{recipe}.yaml"
        data = yaml.safe_load(path.read_text())["data"]["init_args"]
        out = options.out / recipe
        (task,) = repeat([str(path)], seeds=options.seeds, jobs=options.jobs, out=out, overrides=[])["tasks"]
        summaries = [json.loads((out / f"seed_{seed}" / "summary.json").read_text()) for seed in range(options.seeds)]
        found: dict[str, Any] = {name: mean(one[name] for one in summaries) for name in FIGURES if name in summaries[0]}
        shares = [one["value_share"] for one in summaries]
        found["value_shares"] = {"values": shares, "ci95": list(bootstrap_interval(shares, np.mean))}
        told = {"expert": data.get("expert", "optimal"), "trajectories": data.get("expert_trajectories", 64)}
        rows = {row["recipe"]: row for row in json.loads(RESULTS.read_text())} if RESULTS.exists() else {}
        rows[recipe] = {"recipe": recipe, **told, **task, **found}
        atomic_write(RESULTS, json.dumps([rows[name] for name in RECIPES if name in rows], indent=1) + "\n")
        refresh()


if __name__ == "__main__":
    main()
