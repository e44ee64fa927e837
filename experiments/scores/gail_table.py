"""The GAIL paper's table (Ho & Ermon 2016, table 3) with the authors' own experts: GAIL and AIRL by PPO, GAIL by SAC.

`python -m experiments.scores.gail_table [--method gail] [--seeds 5] [--jobs 2] [task …]` writes
`experiments/results/gail_table.json` and puts the tables into docs/adversarial.md; an interrupted call goes on where it
stopped. Continuous experts are sampled from their Gaussian. GAIL has 4 trajectories on MuJoCo, subsampled 1 in 20, and
1 elsewhere, subsampled as in the paper; AIRL has 25 whole ones. The best policy by validation is tested; what the last
one scored in validation is kept beside it. Experts and results of theirs are read from `$LIT_IMITATION_EXPERTS` or
../shared/experts; without them there is nothing to compare with.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.scores.bc_table import CLASSIC, EXPERTS
from experiments.scores.readme import refresh
from lit_imitation.envs import make
from lit_imitation.experts import load_expert
from lit_imitation.rollout import Episodes
from lit_imitation.training.repeat import repeat
from lit_imitation.utils.files import atomic_write
from lit_imitation.utils.statistics import bootstrap_interval

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RESULTS = HERE.parent / "results" / "gail_table.json"
EPISODES, SEED = 100, 12345
"""Of the measurement of an expert."""
PPO = "--model.learner.init_args."


class Task(NamedTuple):
    """One environment of the table."""

    name: str
    env_id: str
    expert: str
    published: str
    """Its name in the authors' results."""
    seeds: int
    changes: tuple[str, ...] = ()
    """What differs from the method's recipe."""


ONE = ("--data.expert_trajectories=1", "--data.expert_deterministic=true")
TASKS = {
    task.name: task
    for task in (
        Task("hopper", "Hopper-v4", "Hopper-v4-trpo", "hopper", 5),
        Task("half_cheetah", "HalfCheetah-v4", "HalfCheetah-v4-trpo", "halfcheetah", 5),
        Task("walker2d", "Walker2d-v4", "Walker2d-v4-trpo", "walker", 3),
        Task("ant", "Ant-v4", "Ant-v4-trpo", "ant", 3),
        *(
            Task(name, env_id, expert, key, 7, (*ONE, f"--data.subsample={every}"))
            for name, (key, (env_id, expert, every)) in zip(
                ("cartpole", "acrobot", "mountain_car"), CLASSIC.items(), strict=True
            )
        ),
    )
}
SMALL = (f"{PPO}batch_size=64", f"{PPO}compile=false", "--data.num_envs=8", "--data.steps_per_round=128")
ENDS_WELL = (
    "--model.discriminator.init_args.reward=negative",
    f"{PPO}learning_rate=1e-3",
    "--data.env_steps=300000",
    "--data.eval_episodes=30",
)
GREEDIER = ("--model.discriminator.init_args.entropy_weight=0.1", "--model.discriminator.init_args.max_logit=4")
"""For AIRL where the entropy in f − log π outweighs f."""
METHODS = {
    "gail": ("gail_table.yaml", tuple(TASKS)),
    "airl": ("airl_table.yaml", ("hopper", "half_cheetah", "walker2d", "ant")),
    "gail_sac": ("gail_sac_table.yaml", ("hopper", "half_cheetah")),
}


MORE: dict[tuple[str, str], tuple[str, ...]] = {
    ("gail", "walker2d"): ("--data.env_steps=2000000",),
    ("gail", "ant"): ("--data.env_steps=1500000", "--data.steps_per_round=128", f"{PPO}initial_std=0.5"),
    ("gail", "cartpole"): (*SMALL, "--data.env_steps=200000"),
    ("gail", "acrobot"): (*SMALL, *ENDS_WELL),
    ("gail", "mountain_car"): (
        *SMALL,
        *ENDS_WELL,
        f"{PPO}gamma=0.995",
        f"{PPO}gae_lambda=0.97",
    ),
    ("gail_sac", "half_cheetah"): ("--data.env_steps=60000",),
    ("airl", "half_cheetah"): ("--data.env_steps=1500000",),
    ("airl", "walker2d"): (
        *GREEDIER,
        "--model.discriminator.init_args.gradient_penalty=1",
        "--model.discriminator_steps=16",
        "--model.replay_rounds=0",
        "--data.env_steps=2000000",
        "--data.steps_per_round=128",
        "--data.rounds_per_epoch=25",
    ),
    ("airl", "ant"): (
        *GREEDIER,
        "--model.discriminator.init_args.gradient_penalty=0.3",
        "--model.discriminator_learning_rate=1e-3",
        f"{PPO}initial_std=0.3",
        "--data.env_steps=1000000",
        "--data.steps_per_round=128",
    ),
}
"""What differs for one method on one task."""


def published(task: Task) -> dict[str, dict[str, float]]:
    """Theirs, BC and GAIL, from 4 trajectories on MuJoCo and 1 elsewhere: mean over runs; and the expert's return."""
    count = "1" if task.changes[:1] == ONE[:1] else "4"
    found = {}
    with (EXPERTS / "gail_paper_results.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["task"] == task.published and row["num_trajs"] == count]
    for name, label in (("bc", "bclone"), ("gail", "ga")):
        mine = [row for row in rows if row["alg"] == label]
        found[name] = float(np.mean([float(row["alg_return_mean"]) for row in mine]))
        found["expert"] = float(mine[0]["expert_return_mean"])
    return found


def validations(run: Path) -> list[tuple[float, float]]:
    """(environment steps, return) of each validation of a run."""
    found, steps = [], 0.0
    with (run / "metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            steps = float(row["train/env_steps"] or steps)
            if row.get("val/return_mean"):
                found.append((steps, float(row["val/return_mean"])))
    return found


def expert_return(task: Task, deterministic: bool) -> float:
    """Mean over `EPISODES` episodes of the expert's mode, or of draws; a single trajectory may be a lucky one."""
    envs = make(task.env_id, 10, SEED)
    spaces = envs.single_observation_space, envs.single_action_space
    expert = load_expert(_expert(task), task.env_id, *spaces, deterministic=deterministic)
    returns = [episode.episode_return for episode in Episodes(envs, expert, EPISODES, SEED)]
    envs.close()
    return float(np.mean(returns))


def measure(method: str, task: Task, seeds: int, jobs: int, out: Path) -> dict[str, Any]:
    """All seeds of one method on one task."""
    config = HERE.parent / "tables" / METHODS[method][0]
    overrides = [
        f"--data.env_id={task.env_id}",
        f"--data.expert={_expert(task)}",
        *task.changes,
        *MORE.get((method, task.name), ()),
    ]
    result = repeat([str(config)], seeds=seeds, jobs=jobs, out=out, overrides=overrides)
    (measured,) = result["tasks"]
    # The learner is measured by its mode, so the expert is too, although it demonstrated by draws.
    expert, random = expert_return(task, deterministic=True), measured["random_return"]
    scores = [(value - random) / (expert - random) for value in measured["return_mean"]["values"]]
    curves = [
        [(steps, (value - random) / (expert - random)) for steps, value in validations(out / f"seed_{seed}")]
        for seed in range(seeds)
    ]
    return {
        "method": method,
        "task": task.name,
        "env_id": task.env_id,
        **{name: measured[name] for name in ("seeds", "return_mean", "random_return")},
        "expert_return": expert,
        "demonstrator_return": expert if ONE[1] in task.changes else expert_return(task, deterministic=False),
        "normalized_score": {
            "values": scores,
            "mean": float(np.mean(scores)),
            "mean_ci95": list(bootstrap_interval(scores, np.mean)),
        },
        **{name: measured[name] for name in ("env_steps", "wall_seconds", "versions")},
        "last_score": [curve[-1][1] for curve in curves],
        "env_steps_to_0.9": [next((steps for steps, score in curve if score >= 0.9), None) for curve in curves],
        "published": published(task),
    }


def main() -> None:
    """Measure what is not measured yet, write the results, refresh the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", choices=[*TASKS, []])
    parser.add_argument("--method", choices=METHODS, default="gail")
    parser.add_argument("--seeds", type=int, help="else 5 on Hopper and HalfCheetah, 3 on Walker2d and Ant, 7 else")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "gail_table")
    options = parser.parse_args()
    if not (EXPERTS / "gail_paper_results.csv").exists():
        sys.exit(f"skipped: the authors' experts and results are not in {EXPERTS} (set $LIT_IMITATION_EXPERTS)")
    for name in options.tasks or METHODS[options.method][1]:
        task = TASKS[name]
        out = options.out / f"{options.method}_{name}"
        row = measure(options.method, task, options.seeds or task.seeds, options.jobs, out)
        # Read only now: another call may have written its own meanwhile.
        rows = {(row["method"], row["task"]): row for row in _results()}
        rows[options.method, name] = row
        ordered = [rows[key] for key in ((m, t) for m in METHODS for t in TASKS) if key in rows]
        atomic_write(RESULTS, json.dumps(ordered, indent=1) + "\n")
        refresh()


def _expert(task: Task) -> str:
    return f"npz:{EXPERTS / 'policies' / task.expert}.npz"


def _results() -> list[dict[str, Any]]:
    return list(json.loads(RESULTS.read_text())) if RESULTS.exists() else []


if __name__ == "__main__":
    main()
