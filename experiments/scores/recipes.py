"""The table of measured scores: every behavioral cloning recipe over several seeds, through `repeat`.

`python -m experiments.scores.recipes [--jobs 2] [recipe …]` writes `experiments/results/recipes.json`, and puts the table into
the README and the figures into each recipe's first comment. An interrupted call goes on where it stopped. The MuJoCo
recipes are measured as they are, and with 25 trajectories of the experts that the GAIL and RL Zoo authors published as
arrays (`$LIT_IMITATION_EXPERTS` or ../shared/experts), where those are there.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from experiments.scores.readme import refresh
from lit_imitation.training.repeat import repeat
from lit_imitation.utils.files import atomic_write

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results" / "recipes.json"
EXPERTS = Path(os.environ.get("LIT_IMITATION_EXPERTS", ROOT.parent / "shared" / "experts")) / "policies"
SCRIPTED = (
    "cartpole",
    "pendulum",
    "mountain_car",
    "mountain_car_continuous",
    "acrobot",
    "lunar_lander",
    "lunar_lander_continuous",
)
SHIPPED = (
    "hopper",
    "half_cheetah",
    "walker2d",
    "ant",
    "swimmer",
    "reacher",
    "inverted_double_pendulum",
    "bipedal_walker",
    "lunar_lander_shipped",
    "lunar_lander_continuous_shipped",
)
PUBLISHED = {
    "Hopper-v4-trpo": "hopper",
    "HalfCheetah-v4-trpo": "half_cheetah",
    "Walker2d-v4-trpo": "walker2d",
    "Ant-v4-trpo": "ant",
    "Swimmer-v4-trpo": "swimmer",
    "Reacher-v4-trpo": "reacher",
}
# Where the recipe's version shows other observations than the published expert reads.
MORE = {
    "ant": ["--data.env_id=Ant-v4"],
    "reacher": ["--data.env_id=Reacher-v4"],
}


def measure(name: str, seeds: int, jobs: int, out: Path) -> dict[str, object] | None:
    """One recipe's aggregate, or None where its expert is absent."""
    recipe, overrides = PUBLISHED.get(name, name), []
    if name in PUBLISHED:
        expert = EXPERTS / f"{name}.npz"
        if not expert.exists():
            print(f"{name}: left out, there is no {expert}")
            return None
        overrides = [*MORE.get(recipe, []), f"--data.expert=npz:{expert}", "--data.expert_trajectories=25"]
    config = str(ROOT / "configs" / "bc" / f"{recipe}.yaml")
    result = repeat([config], seeds=seeds, jobs=jobs, out=out / name, overrides=overrides)
    (task,) = result["tasks"]
    expert_name = name if name in PUBLISHED else "shipped" if name in SHIPPED else "scripted"
    return {"name": name, "recipe": recipe, "expert": expert_name, **task}


def main() -> None:
    """Measure, write the results, refresh the README."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="*", default=[*SCRIPTED, *SHIPPED, *PUBLISHED])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "recipes")
    options = parser.parse_args()
    rows = {row["name"]: row for row in json.loads(RESULTS.read_text())} if RESULTS.exists() else {}
    for recipe in options.recipes:
        if (row := measure(recipe, options.seeds, options.jobs, options.out)) is not None:
            rows[recipe] = row
            ordered = [rows[name] for name in (*SCRIPTED, *SHIPPED, *PUBLISHED) if name in rows]
            atomic_write(RESULTS, json.dumps(ordered, indent=1) + "\n")
            refresh()


if __name__ == "__main__":
    main()
