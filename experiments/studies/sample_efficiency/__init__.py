"""The study of sample efficiency: the cost of imitation in expert labels and in environment steps.

BC uses demonstrations alone, DAgger the expert's answers on the states that it visits, GAIL few demonstrations and many
steps, and PPO no expert but the true reward.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.studies.common import Result, Run, execute, over_seeds, write
from experiments.studies.finetune.learners import scratch
from experiments.studies.sample_efficiency import learners
from experiments.studies.sample_efficiency.architecture import architecture, at_the_end
from experiments.studies.sample_efficiency.figure import efficiency
from experiments.studies.sample_efficiency.page import page
from lit_imitation.envs import Backend
from lit_imitation.errors import require
from lit_imitation.rollout.random_return import random_return
from lit_imitation.utils.statistics import bootstrap_interval, interquartile_mean, stratified_bootstrap_interval
from lit_imitation.utils.versions import versions


@dataclass(frozen=True)
class Task:
    """Settings of one environment; learners, discriminator and rounds are those of its recipes."""

    env_id: str
    expert: str
    seeds: int
    env_steps: int
    """Environment steps of GAIL and of PPO, rounded up to whole epochs."""
    gail_rounds: Mapping[str, Any]
    """Arguments of `ImitationDataModule`."""
    discriminator: Mapping[str, Any]
    gail_ppo: Mapping[str, Any]
    rounds: Mapping[str, Any]
    """Arguments of `RolloutDataModule`, for PPO on the true reward."""
    ppo: Mapping[str, Any]
    dagger: Mapping[str, Any]
    """Arguments of `DAggerCallback`."""
    clone_steps: int
    """Number of gradient steps of BC."""
    trajectories: int
    """Number of demonstrations for BC, DAgger and GAIL."""
    other_trajectories: tuple[int, ...]
    """Further numbers of demonstrations for BC and GAIL."""
    other_seeds: int
    """Number of seeds with each of those; these runs of GAIL stop at the aim."""
    subsample: int = 20
    """Keep one transition in this many; BC also learns from whole trajectories."""
    episodes: int = 50
    """Number of episodes measured at the end of each run."""
    expert_episodes: int = 200


HOPPER = Task(
    "Hopper-v5",
    "shipped",
    seeds=5,
    env_steps=1_500_000,
    gail_rounds={"num_envs": 32, "steps_per_round": 64, "rounds_per_epoch": 50},
    discriminator={"gradient_penalty": 1.0},
    gail_ppo={"batch_size": 256, "target_kl": 0.02, "compile": True},
    rounds={"num_envs": 32, "steps_per_round": 64, "rounds_per_epoch": 50},
    ppo={"batch_size": 256, "compile": True},
    dagger={"rounds": 10, "steps_per_round": 2000, "epochs_per_round": 4},
    clone_steps=6000,
    trajectories=4,
    other_trajectories=(1, 11),
    other_seeds=5,
)
CARTPOLE = Task(
    "CartPole-v1",
    "scripted",
    seeds=5,
    env_steps=100_000,
    gail_rounds={"num_envs": 8, "steps_per_round": 256, "rounds_per_epoch": 2},
    discriminator={},
    gail_ppo={},
    rounds={"num_envs": 8, "steps_per_round": 256, "rounds_per_epoch": 2},
    ppo={"optimization": {"schedule": "constant"}},
    dagger={"rounds": 10, "steps_per_round": 200, "epochs_per_round": 10},
    clone_steps=3000,
    trajectories=1,
    other_trajectories=(4, 11),
    other_seeds=5,
)


@dataclass(frozen=True)
class Settings:
    """Settings; the defaults are the full study."""

    backend: Backend = "envpool"
    """Backend of all environments; results differ between backends."""
    aim: float = 0.9
    """Normalized score that the methods have to reach: 0 is random acting, 1 the expert."""
    tasks: tuple[Task, ...] = (HOPPER, CARTPOLE)

    def with_seeds(self, seeds: int) -> Settings:
        """These settings with another number of seeds in every part."""
        return replace(self, tasks=tuple(replace(task, seeds=seeds, other_seeds=seeds) for task in self.tasks))


QUICK = Settings(
    tasks=tuple(
        replace(
            task,
            seeds=2,
            env_steps=6000,
            gail_rounds=dict(task.gail_rounds) | {"rounds_per_epoch": 1, "eval_episodes": 2},
            gail_ppo=dict(task.gail_ppo) | {"compile": False, "epochs": 2},
            rounds=dict(task.rounds) | {"rounds_per_epoch": 1, "eval_episodes": 2},
            ppo=dict(task.ppo) | {"compile": False, "epochs": 2},
            dagger={"rounds": 2, "steps_per_round": 500, "epochs_per_round": 1},
            trajectories=2,
            other_trajectories=(1,),
            other_seeds=1,
            clone_steps=200,
            episodes=4,
            expert_episodes=10,
        )
        for task in (HOPPER, CARTPOLE)
    )
)
"""A miniature in about a minute; its numbers mean nothing."""

CURVES = ("dagger", "gail", "ppo")


def run(out: Path, settings: Settings, jobs: int = 1) -> dict[str, Any]:
    """Train the missing runs, draw the figures, and write `out/sample_efficiency.json` and its page.

    `out/runs` keeps the result of every run, so an interrupted study resumes.

    Returns:
        The content of `sample_efficiency.json`.

    Raises:
        MissingExtraError: An environment or EnvPool is not installed.
    """
    if settings.backend == "envpool":
        require("envpool", "envpool", "the study of sample efficiency")
    experts = execute([_expert(task, settings.backend) for task in settings.tasks], out / "runs", jobs)
    aims = [
        _return_at(settings.aim, random_return(task.env_id), float(expert["returns"].mean()))
        for task, expert in zip(settings.tasks, experts, strict=True)
    ]
    runs = [_learners(task, settings.backend, aim) for task, aim in zip(settings.tasks, aims, strict=True)]
    results = iter(execute([run for one in runs for run in one.values()], out / "runs", jobs))
    done = [{cell: next(results) for cell in one} for one in runs]
    tasks = {
        task.env_id: summarize(task, settings.aim, expert, found)
        for task, expert, found in zip(settings.tasks, experts, done, strict=True)
    }
    first = settings.tasks[0]
    shown = done[0]["gail", first.trajectories, first.subsample, 0]
    summary = {
        "study": "sample_efficiency",
        "settings": asdict(settings),
        "tasks": tasks,
        "pooled": pooled(tasks),
        "gail_architecture": {"env_id": first.env_id, "seed": 0, "at_the_end": at_the_end(shown)},
        "versions": versions(),
    }
    efficiency(tasks, settings.aim, out / "sample_efficiency")
    architecture(first.env_id, tasks[first.env_id]["expert"]["mean"], shown, out / "gail_architecture")
    write(out, summary, page)
    return summary


Cell = tuple[str, int, int, int]
"""Method, number of trajectories, subsampling, and seed."""


def _expert(task: Task, backend: Backend) -> Run:
    arguments = {
        "env_id": task.env_id, "backend": backend, "expert": task.expert, "episodes": task.expert_episodes, "seed": 0,
    }  # fmt: skip
    return Run(f"{task.env_id}-expert", learners.expert, arguments)


def _learners(task: Task, backend: Backend, aim: float) -> dict[Cell, Run]:
    """All runs of an environment; `aim` is the return at which GAIL's runs without a curve stop."""
    runs: dict[Cell, Run] = {}
    common = {"env_id": task.env_id, "backend": backend, "episodes": task.episodes}
    steps = {"env_steps": task.env_steps}

    def add(method: str, function: Any, trajectories: int, subsample: int, seed: int, **arguments: Any) -> None:
        if trajectories:
            arguments["demonstrations"] = {
                "expert": task.expert, "expert_deterministic": False, "expert_trajectories": trajectories,
                "subsample": subsample,
            }  # fmt: skip
        name = f"{task.env_id}-{method}" + (f"-{trajectories}-in{subsample}" if trajectories else "") + f"-seed{seed}"
        runs[method, trajectories, subsample, seed] = Run(name, function, common | {"seed": seed} | arguments)

    for seed in range(task.seeds):
        add("ppo", scratch, 0, 0, seed, rounds=dict(task.rounds) | steps, ppo=dict(task.ppo))
        add("dagger", learners.dagger, task.trajectories, task.subsample, seed, dagger=dict(task.dagger))
    for trajectories in (task.trajectories, *task.other_trajectories):
        drawn = trajectories == task.trajectories
        for seed in range(task.seeds if drawn else task.other_seeds):
            for subsample in (task.subsample, 1):
                add("bc", learners.clone, trajectories, subsample, seed, gradient_steps=task.clone_steps)
            add(
                "gail",
                learners.gail,
                trajectories,
                task.subsample,
                seed,
                rounds=dict(task.gail_rounds) | steps,
                discriminator=dict(task.discriminator),
                ppo=dict(task.gail_ppo),
                **({} if drawn else {"aim": aim}),
            )
    return runs


# Numbers


def _return_at(score: float, random: float, expert: float) -> float:
    return random + score * (expert - random)


def steps_to(aim: float, result: Result, first: int) -> tuple[float, float]:
    """Environment steps and labels at the first validation with a mean return of `aim`; infinite if never.

    `first` is 1 where the curve starts with an untrained policy, whose return may reach the aim by chance.
    """
    reached = first + np.flatnonzero(result["curve"][first:] >= aim)
    if not len(reached):
        return math.inf, math.inf
    labels = np.broadcast_to(result.get("labels", np.array(0)), result["curve"].shape)
    return float(result["env_steps"][reached[0]]), float(labels[reached[0]])


def censored(values: Sequence[float]) -> dict[str, Any]:
    """Interquartile mean over seeds, its interval and the seeds; infinite values become None.

    A seed that never reached the aim counts as later than all others; a mean that includes such a seed is None.
    """
    never = 1e15
    finite = np.minimum(values, never)
    ends = (float(interquartile_mean(finite)), *bootstrap_interval(finite, interquartile_mean))
    # A resample's mean that includes a single `never` is far above any count of steps.
    value, low, high = (end if end < never / 1000 else None for end in ends)
    return {"iqm": value, "ci95": [low, high], "seeds": [v if v < never else None for v in finite.tolist()]}


def summarize(task: Task, aim: float, expert: Result, found: Mapping[Cell, Result]) -> dict[str, Any]:
    """Headline values of one environment, the curves, and steps against labels."""
    random, level = random_return(task.env_id), float(expert["returns"].mean())
    cells: dict[tuple[str, int, int], list[Result]] = {}
    for (method, trajectories, subsample, _), result in found.items():
        cells.setdefault((method, trajectories, subsample), []).append(result)
    main = {name: cells[name, task.trajectories, task.subsample] for name in ("bc", "dagger", "gail")}
    main["ppo"] = cells["ppo", 0, 0]

    def score(results: Sequence[Result]) -> NDArray[Any]:
        return np.array([(result["returns"].mean() - random) / (level - random) for result in results])

    trade = []
    for (method, trajectories, subsample), results in cells.items():
        scores = score(results)
        entry: dict[str, Any] = {
            "method": method,
            "trajectories": trajectories,
            "subsample": subsample,
            "seeds": len(scores),
        }
        if method == "bc":
            entry |= {"labels": float(np.mean([result["labels"] for result in results])), "score": _iqm(scores)}
            entry["there"] = entry["score"]["iqm"] >= aim
            entry["seeds_there"] = int((scores >= aim).sum())
        else:
            first, at = 0 if method == "dagger" else 1, _return_at(aim, random, level)  # DAgger begins with a clone
            steps, labels = zip(*(steps_to(at, result, first) for result in results), strict=True)
            given = labels if method == "dagger" else [float(result.get("labels", 0)) for result in results]
            # The mean, as for BC, so that equal demonstrations give equal labels.
            mean = float(np.mean(given)) if np.isfinite(given).all() else None
            seeds = [n if math.isfinite(n) else None for n in given]
            entry |= {"env_steps": censored(steps), "labels": {"mean": mean, "seeds": seeds}}
            entry["seeds_there"] = int(np.isfinite(steps).sum())
        trade.append(entry)
    return {
        "random_return": random,
        "expert": {"mean": level, "std": float(expert["returns"].std()), "episodes": len(expert["returns"])},
        "curves": {name: _curve(main[name]) for name in CURVES},
        "returns": {name: _iqm([r["returns"].mean() for r in results]) for name, results in main.items()},
        "scores": {name: _iqm(score(results)) for name, results in main.items()},
        "labels": {
            name: int(np.max([r.get("labels", np.array(0)) for r in results])) for name, results in main.items()
        },
        "trade": trade,
    }


def pooled(tasks: Mapping[str, Any]) -> dict[str, Any]:
    """Interquartile mean of the normalized scores over seeds and environments, stratified by environment."""
    result = {}
    for name in ("bc", *CURVES):
        strata = [task["scores"][name]["seeds"] for task in tasks.values()]
        result[name] = {
            "iqm": float(interquartile_mean(np.concatenate(strata))),
            "ci95": list(stratified_bootstrap_interval(strata, interquartile_mean)),
        }
    return result


def _curve(results: Sequence[Result]) -> dict[str, Any]:
    """Returns and steps, `[validations + 1]` each."""
    steps = np.mean(
        [result["env_steps"] for result in results], axis=0
    )  # they differ by the steps that only reset an environment
    curves = np.stack([result["curve"] for result in results])
    value, low, high = over_seeds(curves, lambda sample: interquartile_mean(sample, axis=0), resamples=1000)
    return {
        "env_steps": steps.tolist(), "iqm": value.tolist(), "low": low.tolist(), "high": high.tolist(),
        "seeds": curves.tolist(),
    }  # fmt: skip


def _iqm(values: Any) -> dict[str, Any]:
    values = np.asarray(values, dtype=np.float64)
    return {
        "iqm": float(interquartile_mean(values)),
        "ci95": list(bootstrap_interval(values, interquartile_mean)),
        "seeds": values.tolist(),
    }
