"""The DAgger recipes over several seeds, and behavioral cloning on the same number of labels beside each.

`python -m experiments.scores.dagger_recipes [--seeds 5] [--jobs 2] [recipe …]` writes `experiments/results/dagger_recipes.json`,
and puts the table into the README and the figures into each recipe's first comment. An interrupted call goes on where
it stopped.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import yaml

from experiments.scores.beside import compare
from experiments.scores.readme import refresh
from lit_imitation.utils.files import atomic_write

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results" / "dagger_recipes.json"
RECIPES = sorted(path.stem for path in (ROOT / "configs" / "dagger").glob("*.yaml"))


def main() -> None:
    """Measure, write the results, refresh README and recipes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="*", default=RECIPES)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "dagger_recipes")
    options = parser.parse_args()
    rows = {row["recipe"]: row for row in json.loads(RESULTS.read_text())} if RESULTS.exists() else {}
    for recipe in options.recipes:
        path = ROOT / "configs" / "dagger" / f"{recipe}.yaml"
        data = yaml.safe_load(path.read_text())["data"]["init_args"]
        cloning = ROOT / "configs" / "bc" / f"{recipe.removesuffix('_planner')}.yaml"
        rows[recipe] = {
            "recipe": recipe,
            "expert": data["expert"],
            **compare(
                [str(path)],
                [str(cloning), f"--data.expert={data['expert']}"],
                options.out / recipe,
                options.seeds,
                options.jobs,
                data["env_id"],
                data["expert"],
                [],
                data.get("env_kwargs"),
            ),
        }
        atomic_write(RESULTS, json.dumps([rows[name] for name in RECIPES if name in rows], indent=1) + "\n")
        refresh()


if __name__ == "__main__":
    main()
