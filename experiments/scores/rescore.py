"""Scores of the recipes' results again, from the returns that were measured and each expert's return as it is today.

`python -m experiments.scores.rescore [table …]` measures each expert of the tables (`recipes`, `dagger_mujoco`, …; all by
default) as a run does (100 episodes by its mode, cached), nothing is trained; it then refreshes README, docs and the
recipes' comments. Rows whose expert is not there stay as they are: published ones are read from
`$LIT_IMITATION_EXPERTS` or ../shared/experts.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import yaml

from experiments.scores.readme import refresh
from experiments.scores.recipes import EXPERTS, MORE, PUBLISHED
from lit_imitation import DemonstrationDataModule, TabularDataModule
from lit_imitation.data.module import EnvironmentDataModule
from lit_imitation.training.repeat import aggregate
from lit_imitation.utils.files import atomic_write

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results"
TABLES = ("adversarial_recipes", "recipes", "dagger_recipes", "dagger_mujoco", "reoptimize", "maxent_irl_recipes")
KEPT = ("env_id", "env_kwargs", "backend", "expert", "world")


def data_of(recipe: str, **changes: Any) -> EnvironmentDataModule:
    """The DataModule of a recipe, as far as its expert's return goes."""
    settings = yaml.safe_load((ROOT / "configs" / f"{recipe}.yaml").read_text())["data"]["init_args"] | changes
    if recipe.startswith("maxent_irl/"):
        tabular = TabularDataModule(**settings, seed=0)
        tabular.setup("fit")
        return tabular
    return DemonstrationDataModule(**{name: settings[name] for name in KEPT if name in settings}, seed=0)


def rescored(returns: list[float], data: EnvironmentDataModule) -> dict[str, Any]:
    """What `repeat` makes of runs with these returns."""
    expert, random = data.expert_reference, data.random_reference
    assert expert is not None
    summaries = [
        {
            "method": "",
            "env_id": data.env_id,
            "seed": seed,
            "return_mean": value,
            "return_iqm": value,
            "normalized_score": (value - random.mean) / (expert.mean - random.mean),
            "expert_return": expert.mean,
            "expert_return_error": expert.error,
            "random_return": random.mean,
            "random_return_error": random.error,
        }
        for seed, value in enumerate(returns)
    ]
    return dict(aggregate(summaries)["tasks"][0])


REFERENCES = ("expert_return", "expert_return_error", "random_return", "random_return_error")


def rescore(row: dict[str, Any], data: EnvironmentDataModule) -> None:
    """Put score and references into a row, and scores into those of its parts that have returns."""
    for part in (row, *(value for value in row.values() if isinstance(value, dict))):
        if isinstance(part.get("return_mean"), dict):
            fresh = rescored(part["return_mean"]["values"], data)
            part["normalized_score"] = fresh["normalized_score"]
            part |= {name: fresh[name] for name in REFERENCES if name in part or part is row}
        elif "returns" in part:
            part |= rescored(part["returns"], data)["normalized_score"]
    known = data.expert_reference
    if ("dagger" in row or "fresh" in row) and known is not None:
        row["expert_return"], row["expert_return_error"] = known.mean, known.error


def recipe_of(file: str, row: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """The recipe of a row and what differed from it in the measurement; None where its expert is not there."""
    if file == "reoptimize":
        return f"gcl/{row['task']}", {}
    if file == "dagger_mujoco":
        published, recipe = row["expert"], "bc/hopper"
        changes = {"env_id": row["env_id"], "env_kwargs": {}, "backend": "auto"}
    elif file == "recipes" and row["name"] in PUBLISHED:
        published, recipe = row["name"], f"bc/{row['recipe']}"
        changes = dict(option.removeprefix("--data.").split("=") for option in MORE.get(row["recipe"], []))
    else:
        folder = {"recipes": "bc/", "dagger_recipes": "dagger/", "maxent_irl_recipes": "maxent_irl/"}.get(file, "")
        return folder + row["recipe"], {}
    expert = EXPERTS / f"{published}.npz"
    return (recipe, {**changes, "expert": f"npz:{expert}"}) if expert.exists() else None


def main() -> None:
    """Rescore every row, write the results, refresh the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", choices=[*TABLES, []], help="all by default")
    for file in parser.parse_args().tables or TABLES:
        path = RESULTS / f"{file}.json"
        rows = json.loads(path.read_text())
        for row in rows:
            found = recipe_of(file, row)
            if found is None:
                print(f"{file}, {row['name'] if 'name' in row else row['task']}: left as it is, no expert")
                continue
            rescore(row, data_of(found[0], **found[1]))
            atomic_write(path, json.dumps(rows, indent=1) + "\n")
            print(f"{file}, {found[0]}: expert {row['expert_return']:.4g}", flush=True)
    refresh()


if __name__ == "__main__":
    main()
