"""The behavioral cloning column of the GAIL paper (Ho & Ermon 2016, table 3) with the authors' own experts.

Experts are sampled from their Gaussian, trajectories subsampled 1 in 20 from a random offset; those of the classic
tasks, for docs/adversarial.md, are the RL Zoo's and deterministic. Theirs are the raw results that the authors
released. `python -m experiments.scores.bc_table [--seeds 3] [--jobs 2] [task …]` writes
`experiments/results/bc_table.json` and puts the table into the README; an interrupted call goes on where it stopped.
Experts and results of theirs are read from `$LIT_IMITATION_EXPERTS` or ../shared/experts; without them there is nothing
to compare with.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.scores.readme import refresh
from lit_imitation.training.repeat import repeat
from lit_imitation.utils.files import atomic_write

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results" / "bc_table.json"
EXPERTS = Path(os.environ.get("LIT_IMITATION_EXPERTS", ROOT.parent / "shared" / "experts"))
TASKS = {"hopper": "Hopper", "halfcheetah": "HalfCheetah", "walker": "Walker2d", "ant": "Ant"}
COUNTS = (25, 4, 11, 18)  # the last column first: it is what the target speaks of
CLASSIC = {
    "cartpole": ("CartPole-v1", "CartPole-v1-ppo", 10),
    "acrobot": ("Acrobot-v1", "Acrobot-v1-ppo", 5),
    "mountaincar": ("MountainCar-v0", "MountainCar-v0-dqn", 5),
}
"""Environment, expert, and one transition in how many, as in the paper; GAIL is shown the same."""
DISCRETE = (
    "--data.expert_deterministic=true",
    "--model.policy.class_path=lit_imitation.CategoricalPolicy",
    "--model.policy.init_args.hidden_sizes=[100, 100]",
    "--model.policy.init_args.activation=tanh",
)


class Cell(NamedTuple):
    """One task at one number of trajectories."""

    published: str
    """The task's name in the authors' results."""
    env_id: str
    expert: str
    trajectories: int
    changes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """As the tables have it."""
        return self.env_id.split("-")[0]


CELLS = [
    *(Cell(key, f"{name}-v4", f"{name}-v4-trpo", count) for count in COUNTS for key, name in TASKS.items()),
    *(
        Cell(key, env_id, expert, 1, (*DISCRETE, f"--data.subsample={every}"))
        for key, (env_id, expert, every) in CLASSIC.items()
    ),
]


def published() -> dict[tuple[str, int], dict[str, float]]:
    """Theirs: (task, trajectories) to the mean and deviation over runs, and the expert's return as they measured it."""
    returns: dict[tuple[str, int], list[float]] = defaultdict(list)
    experts: dict[tuple[str, int], float] = {}
    with (EXPERTS / "gail_paper_results.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["alg"] == "bclone":
                key = row["task"], int(row["num_trajs"])
                returns[key].append(float(row["alg_return_mean"]))
                experts[key] = float(row["expert_return_mean"])
    return {
        key: {"mean": float(np.mean(values)), "std": float(np.std(values)), "runs": len(values), "expert": experts[key]}
        for key, values in returns.items()
    }


def main() -> None:
    """Measure what is not measured yet, write the results, refresh the README."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", help="as Hopper or CartPole; default all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bc_table")
    options = parser.parse_args()
    if not (EXPERTS / "gail_paper_results.csv").exists():
        sys.exit(f"skipped: the authors' experts and results are not in {EXPERTS} (set $LIT_IMITATION_EXPERTS)")
    theirs = published()
    rows = (
        {(row["task"], row["trajectories"]): row for row in json.loads(RESULTS.read_text())} if RESULTS.exists() else {}
    )
    for cell in CELLS:
        if options.tasks and cell.name not in options.tasks:
            continue
        expert = EXPERTS / "policies" / f"{cell.expert}.npz"
        overrides = [
            f"--data.env_id={cell.env_id}",
            f"--data.expert=npz:{expert}",
            f"--data.num_trajectories={cell.trajectories}",
            *cell.changes,
        ]
        result = repeat(
            [str(ROOT / "experiments" / "tables" / "bc_table.yaml")],
            seeds=options.seeds,
            jobs=options.jobs,
            out=options.out / f"{cell.published}_{cell.trajectories}",
            overrides=overrides,
        )
        (task,) = result["tasks"]
        rows[cell.name, cell.trajectories] = {
            "task": cell.name,
            "trajectories": cell.trajectories,
            "ours": task["return_mean"],
            "normalized_score": task["normalized_score"],
            "expert_return": task["expert_return"],
            "seeds": task["seeds"],
            "theirs": theirs[cell.published, cell.trajectories],
            "versions": task["versions"],
        }
        ordered = [rows[key] for key in ((cell.name, cell.trajectories) for cell in CELLS) if key in rows]
        atomic_write(RESULTS, json.dumps(ordered, indent=1) + "\n")
        refresh()


if __name__ == "__main__":
    main()
