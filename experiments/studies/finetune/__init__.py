"""The study of fine-tuning: past a mediocre expert, by imitation first and reinforcement after.

A clone is at best as good as its expert. PPO continues from the clone on the environment's own reward, and is compared
with the clone alone and with PPO from scratch with the same settings and number of environment steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.studies.common import Result, Run, execute, interval, mean, write
from experiments.studies.finetune import learners
from experiments.studies.finetune.figure import returns
from experiments.studies.finetune.page import page
from lit_imitation.envs import Backend
from lit_imitation.errors import require
from lit_imitation.rollout.random_return import random_return
from lit_imitation.utils.versions import versions


@dataclass(frozen=True)
class Task:
    """Settings of one environment."""

    env_id: str
    seeds: int
    aim: float
    """Mean return at which the expert's training stops."""
    env_steps: int
    """Environment steps of a run, rounded up to whole epochs."""
    rounds: Mapping[str, Any]
    """Arguments of `RolloutDataModule`; a validation follows every epoch."""
    ppo: Mapping[str, Any]
    """Arguments of `PPO`, the same for the expert, from scratch and from the clone."""
    start: Mapping[str, Any]
    """Additional arguments of `PPO` from the clone."""
    bc: Mapping[str, Any]
    """`epochs`, `batch_size`, and further arguments of `BC`."""
    demonstrations: int = 20
    """Number of expert episodes per clone, new ones for each seed."""
    expert_seed: int = 1
    expert_rounds: int = 1
    """Rounds between two validations of the expert; few, so that it stops close to `aim`."""
    expert_steps: int = 1_000_000
    """Environment steps after which the expert's training stops without reaching `aim`."""
    episodes: int = 100
    """Number of episodes measured at the end of each run."""


LUNAR_LANDER = Task(
    "LunarLander-v3",
    seeds=5,
    aim=100.0,
    env_steps=300_000,
    rounds={"num_envs": 16, "steps_per_round": 256, "rounds_per_epoch": 4, "eval_episodes": 20},
    ppo={
        "batch_size": 128, "gamma": 0.999, "gae_lambda": 0.98, "entropy_coefficient": 0.01, "compile": True,
    },
    start={"warmup_rounds": 5},
    bc={"epochs": 20, "batch_size": 64},
)  # fmt: skip
HOPPER = Task(
    "Hopper-v5",
    seeds=3,
    aim=1000.0,
    env_steps=500_000,
    rounds={"num_envs": 8, "steps_per_round": 256, "rounds_per_epoch": 12, "eval_episodes": 20},
    ppo={"batch_size": 128, "compile": True},
    start={"warmup_rounds": 10},
    bc={"epochs": 20, "batch_size": 64},
    expert_rounds=2,
)


@dataclass(frozen=True)
class Settings:
    """Settings; the defaults are the full study."""

    backend: Backend = "envpool"
    """Backend of all environments; results differ between backends."""
    tasks: tuple[Task, ...] = (LUNAR_LANDER, HOPPER)

    def with_seeds(self, seeds: int) -> Settings:
        """These settings with another number of seeds in each environment."""
        return replace(self, tasks=tuple(replace(task, seeds=seeds) for task in self.tasks))


QUICK = Settings(
    tasks=tuple(
        replace(
            task,
            seeds=2,
            aim=aim,
            env_steps=8000,
            expert_steps=4000,
            rounds=dict(task.rounds) | {"rounds_per_epoch": 1, "eval_episodes": 5},
            ppo=dict(task.ppo) | {"compile": False, "epochs": 4},
            start=dict(task.start) | {"warmup_rounds": 1},
            bc=dict(task.bc) | {"epochs": 5},
            demonstrations=3,
            episodes=10,
        )
        for task, aim in ((LUNAR_LANDER, -250.0), (HOPPER, 50.0))
    )
)
"""A miniature in less than a minute; its numbers mean nothing."""


SHARES = {"quarter": 0.25, "half": 0.5}
"""Shares of the steps after which the two are compared during training."""


def run(out: Path, settings: Settings, jobs: int = 1) -> dict[str, Any]:
    """Train the missing runs, draw the figures, and write `out/finetune.json` and the page `out/finetune.md`.

    `out/runs` keeps the result of every run, so an interrupted study resumes.

    Returns:
        The content of `finetune.json`.

    Raises:
        MissingExtraError: An environment or EnvPool is not installed.
    """
    if settings.backend == "envpool":
        require("envpool", "envpool", "the study of fine-tuning")
    # The experts first, because the clones need them.
    experts = [_expert(task, settings.backend) for task in settings.tasks]
    taught = execute(experts, out / "runs", jobs)
    runs = [
        run
        for task, expert in zip(settings.tasks, experts, strict=True)
        for seed in range(task.seeds)
        for run in _learners(task, settings.backend, seed, expert, out / "runs")
    ]
    results = iter(execute(runs, out / "runs", jobs))
    tasks: dict[str, Any] = {}
    for task, expert in zip(settings.tasks, taught, strict=True):
        pairs = [(next(results), next(results)) for _ in range(task.seeds)]
        tasks[task.env_id] = summarize(task, expert, [pair[0] for pair in pairs], [pair[1] for pair in pairs])
    summary = {"study": "finetune", "settings": asdict(settings), "tasks": tasks, "versions": versions()}
    returns(tasks, out / "finetune")
    write(out, summary, page)
    return summary


def _expert(task: Task, backend: Backend) -> Run:
    rounds = dict(task.rounds) | {"rounds_per_epoch": task.expert_rounds, "env_steps": task.expert_steps}
    arguments = {
        "env_id": task.env_id, "backend": backend, "rounds": rounds, "ppo": dict(task.ppo), "aim": task.aim,
        "episodes": task.episodes, "seed": task.expert_seed,
    }  # fmt: skip
    return Run(f"{task.env_id}-expert", learners.expert, arguments)


def _learners(task: Task, backend: Backend, seed: int, expert: Run, directory: Path) -> tuple[Run, Run]:
    """The runs of PPO from the clone and from scratch."""
    common = {
        "env_id": task.env_id, "backend": backend, "rounds": dict(task.rounds) | {"env_steps": task.env_steps},
        "ppo": dict(task.ppo), "episodes": task.episodes, "seed": seed,
    }  # fmt: skip
    cloned = {
        "ppo": dict(task.ppo) | dict(task.start), "teacher": dict(expert.arguments),
        "demonstrations": task.demonstrations, "bc": dict(task.bc),
    }  # fmt: skip
    return (
        Run(
            f"{task.env_id}-finetuned-seed{seed}",
            learners.finetuned,
            common | cloned,
            {"expert": expert.file(directory)},
        ),
        Run(f"{task.env_id}-scratch-seed{seed}", learners.scratch, common),
    )


def summarize(task: Task, expert: Result, finetuned: Sequence[Result], scratch: Sequence[Result]) -> dict[str, Any]:
    """Headline values of one environment, and the curves that are drawn."""
    final = {
        "clone": np.array([result["clone_returns"].mean() for result in finetuned]),
        "finetuned": np.array([result["returns"].mean() for result in finetuned]),
        "scratch": np.array([result["returns"].mean() for result in scratch]),
    }
    level = float(expert["returns"].mean())
    return {
        "seeds": task.seeds,
        "random_return": random_return(task.env_id),
        "expert": interval(expert["returns"]) | {"env_steps": int(expert["env_steps"][-1])},
        "demonstrated_return": float(np.mean([result["shown_returns"].mean() for result in finetuned])),
        "labels": float(np.mean([result["labels"] for result in finetuned])),
        **{name: interval(values) | {"seeds": values.tolist()} for name, values in final.items()},
        "finetuned_minus_clone": interval(final["finetuned"] - final["clone"]),
        "finetuned_minus_scratch": interval(final["finetuned"] - final["scratch"]),
        "finetuned_minus_scratch_on_the_way": {
            name: interval(at(share, finetuned) - at(share, scratch)) for name, share in SHARES.items()
        },
        "finetuned_minus_scratch_over_training": interval(area(finetuned) - area(scratch)),
        "curves": {name: _curve(results, level) for name, results in (("finetuned", finetuned), ("scratch", scratch))},
    }


def at(share: float, results: Sequence[Result]) -> NDArray[Any]:
    """`[seeds]`: the curve's return after this share of the steps, linearly interpolated."""
    return np.array([np.interp(share * r["env_steps"][-1], r["env_steps"], r["curve"]) for r in results])


def area(results: Sequence[Result]) -> NDArray[Any]:
    """`[seeds]`: the mean of the curve over all steps."""
    pairs = ((r["env_steps"].astype(np.float64), r["curve"]) for r in results)
    return np.array([np.diff(x) @ (y[1:] + y[:-1]) / 2 / (x[-1] - x[0]) for x, y in pairs])


def _curve(results: Sequence[Result], level: float) -> dict[str, Any]:
    """Returns and steps, `[validations + 1]` each, and the mean return over training."""
    steps = np.mean(
        [result["env_steps"] for result in results], axis=0
    )  # they differ by the steps that only reset an environment
    curves = np.stack([result["curve"] for result in results])
    value, low, high = mean(curves)
    above = np.flatnonzero(value >= level)
    return {
        "env_steps": steps.tolist(),
        "mean": value.tolist(),
        "low": low.tolist(),
        "high": high.tolist(),
        "seeds": curves.tolist(),
        "steps_to_expert": float(steps[above[0]]) if len(above) else None,
        "over_training": interval(area(results)),
    }
