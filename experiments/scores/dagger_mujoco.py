"""DAgger on MuJoCo with experts published by others, deterministic, from 2 of their trajectories; cloning beside it.

`python -m experiments.scores.dagger_mujoco [--seeds 3] [--jobs 2] [task …]` writes `experiments/results/dagger_mujoco.json` and
puts the table into the README; an interrupted call goes on where it stopped. The experts are read from
`$LIT_IMITATION_EXPERTS` or ../shared/experts; without them there is nobody to ask.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from experiments.scores.beside import compare
from experiments.scores.readme import refresh
from lit_imitation.utils.files import atomic_write

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results" / "dagger_mujoco.json"
EXPERTS = Path(os.environ.get("LIT_IMITATION_EXPERTS", ROOT.parent / "shared" / "experts")) / "policies"
TASKS = {"hopper": "Hopper", "half_cheetah": "HalfCheetah", "walker2d": "Walker2d", "ant": "Ant"}


def main() -> None:
    """Measure what is not measured yet, write the results, refresh the README."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", default=list(TASKS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "dagger_mujoco")
    options = parser.parse_args()
    if not EXPERTS.is_dir():
        sys.exit(f"skipped: the published experts are not in {EXPERTS} (set $LIT_IMITATION_EXPERTS)")
    rows = {row["task"]: row for row in json.loads(RESULTS.read_text())} if RESULTS.exists() else {}
    for task in options.tasks:
        env_id, expert = f"{TASKS[task]}-v4", f"npz:{EXPERTS / TASKS[task]}-v4-trpo.npz"
        rows[task] = {
            "task": task,
            "expert": f"{TASKS[task]}-v4-trpo",
            **compare(
                [str(ROOT / "experiments" / "tables" / "dagger_mujoco.yaml")],
                [str(ROOT / "configs" / "bc" / f"{task}.yaml"), "--data.demonstrations=", "--data.test_episodes=50"],
                options.out / task,
                options.seeds,
                options.jobs,
                env_id,
                expert,
                [f"--data.env_id={env_id}", f"--data.expert={expert}"],
            ),
        }
        atomic_write(RESULTS, json.dumps([rows[name] for name in TASKS if name in rows], indent=1) + "\n")
        refresh()


if __name__ == "__main__":
    main()
