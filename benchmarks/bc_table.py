"""The behavioural cloning column of the GAIL paper (Ho & Ermon 2016, table 3) with the authors' own experts.

Experts are sampled from their Gaussian, trajectories subsampled 1 in 20 from a random offset. Theirs are the raw
results that the authors released. `python benchmarks/bc_table.py [--seeds 3] [--jobs 2]` writes
`benchmarks/results/bc_table.json` and puts the table into the README; an interrupted call goes on where it stopped.
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

import numpy as np
from readme import refresh

from lit_imitation.files import atomic_write
from lit_imitation.repeat import repeat

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "bc_table.json"
EXPERTS = Path(os.environ.get("LIT_IMITATION_EXPERTS", ROOT.parent / "shared" / "experts"))
TASKS = {"hopper": "Hopper", "halfcheetah": "HalfCheetah", "walker": "Walker2d", "ant": "Ant"}
COUNTS = (25, 4, 11, 18)  # the last column first: it is what the target speaks of


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
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bc_table")
    options = parser.parse_args()
    if not (EXPERTS / "gail_paper_results.csv").exists():
        sys.exit(f"skipped: the authors' experts and results are not in {EXPERTS} (set $LIT_IMITATION_EXPERTS)")
    theirs = published()
    cells = []
    for count in COUNTS:
        for key, name in TASKS.items():
            expert = EXPERTS / "policies" / f"{name}-v4-trpo.npz"
            overrides = [f"--data.env_id={name}-v4", f"--data.expert=npz:{expert}", f"--data.num_trajectories={count}"]
            result = repeat(
                [str(ROOT / "benchmarks" / "bc_table.yaml")],
                seeds=options.seeds,
                jobs=options.jobs,
                out=options.out / f"{key}_{count}",
                overrides=overrides,
            )
            (task,) = result["tasks"]
            cells.append(
                {
                    "task": name,
                    "trajectories": count,
                    "ours": task["return_mean"],
                    "normalized_score": task["normalized_score"],
                    "expert_return": task["expert_return"],
                    "seeds": task["seeds"],
                    "theirs": theirs[key, count],
                    "versions": task["versions"],
                }
            )
            atomic_write(RESULTS, json.dumps(cells, indent=1) + "\n")
            refresh()


if __name__ == "__main__":
    main()
