"""Starting up, and a round of PPO, GAIL, AIRL and SAC, in this checkout and in an earlier commit, in turns.

Each run is a process of its own, `fit` with the defaults of its commit on the same task; the first rounds do not count.
The ratio is the earlier commit's time over ours, within each turn; above 1 we are faster. Processor seconds are given
too, which depend less on other work of the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from experiments.markdown import table
from experiments.speed.common import RESULTS, ROOT, machine, measured, ratios, save

BEFORE = "8909f0b"
"""The last commit before the rebuild."""
TASKS: dict[str, dict[str, Any]] = {
    "PPO, CartPole-v1": {"learner": "PPO", "env_id": "CartPole-v1", "compile": False},
    "PPO, Hopper-v5": {"learner": "PPO", "env_id": "Hopper-v5", "compile": True},
    "GAIL, CartPole-v1": {"method": "GAIL", "learner": "PPO", "env_id": "CartPole-v1", "compile": False},
    "GAIL, Hopper-v5": {"method": "GAIL", "learner": "PPO", "env_id": "Hopper-v5", "compile": True},
    "AIRL, CartPole-v1": {"method": "AIRL", "learner": "PPO", "env_id": "CartPole-v1", "compile": False},
    "AIRL, Hopper-v5": {"method": "AIRL", "learner": "PPO", "env_id": "Hopper-v5", "compile": True},
    "SAC, Pendulum-v1": {"learner": "SAC", "env_id": "Pendulum-v1", "compile": False},
    "SAC, Hopper-v5": {"learner": "SAC", "env_id": "Hopper-v5", "compile": True},
}
ROLLOUT = {"PPO": {"num_envs": 8, "steps_per_round": 256}, "SAC": {"num_envs": 1, "steps_per_round": 50}}
WARMUP, ROUNDS = {"PPO": 4, "SAC": 20}, {"PPO": 12, "SAC": 30}
LIMIT = 0.97


START = {
    "fit --help": ["--help"],
    "first steps of bc/cartpole": ["--config", "bc/cartpole", "--trainer.max_epochs", "1"],
}
"""Commands timed from the start of the process, to its end or to that of its first block of steps."""


def config(task: dict[str, Any], option: str = "learner") -> dict[str, Any]:
    """Recipe of a run, the same for both commits but for the name of the learner's option."""
    name = task["learner"]
    arguments = {"compile": task["compile"]} | ({"learning_starts": 300} if name == "SAC" else {})
    learner = {"class_path": f"lit_imitation.{name}", "init_args": arguments}
    data = ROLLOUT[name] | {"env_id": task["env_id"], "eval_episodes": 0}
    data["rounds_per_epoch"] = WARMUP[name] + ROUNDS[name]
    module = "RolloutDataModule"
    if "method" in task:
        module = "ImitationDataModule"
        data |= {"expert": "scripted" if task["env_id"] == "CartPole-v1" else "shipped", "expert_trajectories": 4}
    return {
        "model": {
            "class_path": f"lit_imitation.{task.get('method', 'RL')}",
            "init_args": {option: learner},
        },
        "data": {"class_path": f"lit_imitation.{module}", "init_args": data},
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "enable_checkpointing": False},
    }


def fit(checkout: Path, folder: Path, arguments: list[str]) -> None:
    """The command `fit` of a checkout in a process of its own.

    Raises:
        RuntimeError: The command failed.
    """
    done = subprocess.run(
        [sys.executable, "-m", "lit_imitation", "fit", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": f"{checkout}:{Path(__file__).parent}"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{checkout}: {done.stderr[-2000:]}")


def start(checkout: Path, arguments: list[str]) -> dict[str, float]:
    """Wall seconds until a command ends, or until its first block of steps."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, times = Path(temporary), Path(temporary) / "times.json"
        if "--help" not in arguments:
            arguments = [
                *arguments,
                f"--trainer.default_root_dir={folder / 'run'}",
                "--trainer.callbacks+=clock.Clock",
                f"--trainer.callbacks.file={times}",
            ]
        begun = time.perf_counter()
        fit(checkout, folder, arguments)
        # On Linux, all processes share the clock of `perf_counter`.
        ended = json.loads(times.read_text())[0][0] if times.exists() else time.perf_counter()
    return {"seconds": ended - begun}


def run(checkout: Path, task: dict[str, Any], option: str = "learner") -> dict[str, float]:
    """Wall and processor seconds of a round."""
    warmup = WARMUP[task["learner"]]
    with tempfile.TemporaryDirectory() as temporary:
        folder, times = Path(temporary), Path(temporary) / "times.json"
        recipe = config(task, option)
        recipe["trainer"]["default_root_dir"] = str(folder / "run")
        recipe["trainer"]["callbacks"] = [{"class_path": "clock.Clock", "init_args": {"file": str(times)}}]
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        fit(checkout, folder, ["--config", str(folder / "recipe.yaml"), "--trust", "true"])
        ends = json.loads(times.read_text())
    (wall, cpu), (last_wall, last_cpu) = ends[warmup - 1], ends[-1]
    count = len(ends) - warmup
    return {"seconds": (last_wall - wall) / count, "cpu_seconds": (last_cpu - cpu) / count}


@contextmanager
def checkout_of(commit: str) -> Iterator[Path]:
    """A working tree of a commit, for a while."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "checkout"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(path), commit], check=True)
        try:
            yield path
        finally:
            subprocess.run([*git, "remove", "--force", str(path)], check=True)


def main() -> None:
    """Measure, print a table, write `results/commits.json`; it keeps other tasks that were measured earlier."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", help=f"some of {', '.join([*START, *TASKS])} (default: all)")
    parser.add_argument("--before", default=BEFORE, help=f"commit to compare with (default: {BEFORE})")
    parser.add_argument(
        "--option", default="generator", help="name of the learner's option in that commit (default: generator)"
    )
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    result: dict[str, Any] = {"before": options.before, "tasks": stored_tasks(options.before)}
    rows = []
    with checkout_of(options.before) as before:
        for name in options.tasks or [*START, *TASKS]:
            contenders = {
                "before": partial(contender, name, before, options.option),
                "now": partial(contender, name, ROOT),
            }
            runs = measured(contenders, options.repeats, name)
            found = {clock: ratios(*([one[clock] for one in runs[side]] for side in runs)) for clock in runs["now"][0]}
            result["tasks"][name] = machine() | {"runs": runs, "before_over_now": found}
            path = save("commits", result)
            shown = [f"{found[clock]['median']:.2f}" if clock in found else "" for clock in ("seconds", "cpu_seconds")]
            rows.append([name, f"{median(one['seconds'] for one in runs['now']):.3f}", *shown, f"≥ {LIMIT}"])
    heads = ["a round", "s", f"× as fast as {options.before}", "by processor seconds", "target"]
    print(f"\n{table(heads, rows)}\n\nwritten: {path}")


def stored_tasks(before: str) -> dict[str, Any]:
    """Tasks that were compared with this commit earlier; those that are measured now replace theirs."""
    file = RESULTS / "commits.json"
    stored = json.loads(file.read_text()) if file.exists() else {}
    return dict(stored["tasks"]) if stored.get("before") == before else {}


def contender(name: str, checkout: Path, option: str = "learner") -> dict[str, float]:
    """One measurement of a task of this module in a checkout."""
    return start(checkout, START[name]) if name in START else run(checkout, TASKS[name], option)
