"""The study of inverse RL: recover a reward from behavior.

In a world of one goal and one lake, true and recovered reward are drawn with their optimal policies; so is a reward
that is not linear in the features, with its linear and deep estimates. In Objectworld and Binaryworld (Levine, Popović
& Koltun 2011; Wulfmeier, Ondruska & Posner 2015) the expected value difference is measured against the number of
demonstrations, in the world of the demonstrations and in a fresh one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments.studies.common import Result, Run, execute, with_interval, write
from experiments.studies.inverse_rl import learners
from experiments.studies.inverse_rl.figures import rewards, value_difference
from experiments.studies.inverse_rl.maps import Map, drawn, epic_distance, optimal_actions, scaled, shaped
from experiments.studies.inverse_rl.page import page
from experiments.studies.inverse_rl.worlds import FIRST_SEED, PICTURED, built
from lit_imitation.tabular.mdp import TabularMDP
from lit_imitation.utils.versions import versions

OPTIMAL = 1e-6
"""A smaller loss counts as zero."""
MODELS = ("deep", "linear")
PLACES = {"training": "", "fresh": "fresh_"}
"""Worlds in which a reward is evaluated, and the prefix of the results' names."""


@dataclass(frozen=True)
class Task:
    """Settings for one kind of world."""

    world: str
    """A key of `WORLDS`."""
    arguments: Mapping[str, Any]
    """Arguments of the world, without its seed."""
    deep: Mapping[str, Any]
    """Arguments of `MLPReward`."""
    model: Mapping[str, Any]
    """Arguments of `MaxEntIRL`, without the reward."""
    data: Mapping[str, Any]
    """Arguments of `TabularDataModule`, without the number of demonstrations."""
    epochs: int


OBJECT_WORLD = Task(
    "object_world",
    arguments={},
    deep={"activation": "relu"},
    model={"gamma": 0.9, "learning_rate": 0.005, "l2_coefficient": 0.01, "step_weights": "discounted"},
    data={"expert": "soft", "expert_gamma": 0.9},
    epochs=40,
)
BINARY_WORLD = replace(OBJECT_WORLD, world="binary_world")
"""The settings of the recipe, which are those of `OBJECT_WORLD`."""
LAKE = Task(
    "lake",
    arguments={"pay": 3.0, "slip": 0.2},
    deep={},
    model={"gamma": 0.9, "learning_rate": 0.05, "step_weights": "discounted"},
    data={"expert": "soft", "expert_gamma": 0.9, "expert_trajectories": 512, "steps_per_trajectory": 40},
    epochs=20,
)


@dataclass(frozen=True)
class Settings:
    """Settings; the defaults are the full study."""

    lake: Task = LAKE
    potential: float = 3.0
    """Standard deviation of Φ, sampled for each cell of the lake's world."""
    tasks: tuple[Task, ...] = (OBJECT_WORLD, BINARY_WORLD)
    demonstrations: tuple[int, ...] = (16, 64, 256, 1024, 4096)
    seeds: int = 5
    """Number of seeds for each number of demonstrations; each seed has a world of its own."""

    def with_seeds(self, seeds: int) -> Settings:
        """These settings with another number of seeds."""
        return replace(self, seeds=seeds)


QUICK = Settings(
    lake=replace(LAKE, data=dict(LAKE.data) | {"expert_trajectories": 64, "passes_per_epoch": 3}),
    tasks=tuple(
        replace(task, arguments=small, data=dict(task.data) | {"passes_per_epoch": 5}, epochs=4)
        for task, small in ((OBJECT_WORLD, {"size": 12, "objects": 14}), (BINARY_WORLD, {"size": 12}))
    ),
    demonstrations=(16, 256),
    seeds=2,
)
"""A miniature in less than a minute; its numbers mean nothing."""


def run(out: Path, settings: Settings, jobs: int = 1) -> dict[str, Any]:
    """Train the missing runs, draw the figures, and write `out/inverse_rl.json` and the page `out/inverse_rl.md`.

    `out/runs` keeps the result of every run, so an interrupted study resumes.

    Returns:
        The content of `inverse_rl.json`.
    """
    runs = {("lake", "linear", 0, FIRST_SEED): _lake(settings.lake)}
    for seed in range(FIRST_SEED, FIRST_SEED + settings.seeds):
        for task in settings.tasks:
            for count in settings.demonstrations:
                for name in MODELS:
                    runs[task.world, name, count, seed] = _learner(task, name, count, seed)
    found = dict(zip(runs, execute(list(runs.values()), out / "runs", jobs), strict=True))
    lake = found["lake", "linear", 0, FIRST_SEED]
    most = max(settings.demonstrations)
    corner = {name: found[PICTURED, name, most, FIRST_SEED] for name in MODELS}
    lake_maps, told = _of_lake(settings.lake, settings.potential, lake)
    (task,) = (task for task in settings.tasks if task.world == PICTURED)
    corner_maps, told_of_corner = _of_corner(task, corner)
    summary: dict[str, Any] = {
        "study": "inverse_rl",
        "settings": asdict(settings),
        "lake": told,
        "pictured": {"demonstrations": most, **told_of_corner},
        "curves": {task.world: curves(task, settings, found) for task in settings.tasks},
        "versions": versions(),
    }
    rewards(lake_maps, lake["shown"], corner_maps, summary, out / "inverse_rl")
    value_difference(summary["curves"], settings.demonstrations, out / "value_difference")
    write(out, summary, page)
    return summary


def _lake(task: Task) -> Run:
    arguments = {
        "world": task.world, "arguments": dict(task.arguments), "fresh": None, "deep": None, "model": dict(task.model),
        "data": dict(task.data), "epochs": task.epochs, "seed": FIRST_SEED,
    }  # fmt: skip
    return Run("lake", learners.recovered, arguments)


def _learner(task: Task, name: str, count: int, seed: int) -> Run:
    arguments = {
        "world": task.world, "arguments": _place(task, seed, 0), "fresh": _place(task, seed, 1),
        "deep": dict(task.deep) if name == "deep" else None, "model": dict(task.model),
        "data": dict(task.data) | {"expert_trajectories": count}, "epochs": task.epochs, "seed": seed,
    }  # fmt: skip
    return Run(f"{task.world}-{name}-{count}-seed{seed}", learners.recovered, arguments)


def _place(task: Task, seed: int, number: int) -> dict[str, Any]:
    """Arguments of a seed's world: number 0 has the demonstrations. All worlds differ."""
    return dict(task.arguments) | {"seed": 100 * seed + number}


# Numbers


def _of_lake(task: Task, size: float, result: Result) -> tuple[list[Map], dict[str, Any]]:
    """True, recovered and shaped reward, and their statistics."""
    mdp, gamma = built(task.world, dict(task.arguments)), float(task.model["gamma"])
    true, recovered = _true(mdp, gamma), drawn(mdp, result["reward"], gamma)
    phi = np.random.default_rng(0).normal(0.0, size, mdp.num_states)
    other = shaped(mdp, phi, gamma)
    return [true, recovered, other.map], {
        "recovered": _told(mdp, result, gamma) | {"optimal_actions": _share(recovered)},
        "with_potential": {
            "epic_distance": other.epic,
            "pearson_distance": other.pearson,
            "optimal_actions": _share(other.map),
            "same_actions": float((other.map.action == true.action).mean()),
        },
    }


def _of_corner(task: Task, results: Mapping[str, Result]) -> tuple[list[Map], dict[str, Any]]:
    """True, deep and linear reward of the first seed's world."""
    mdp, gamma = built(task.world, _place(task, FIRST_SEED, 0)), float(task.model["gamma"])
    maps = {name: drawn(mdp, result["reward"], gamma) for name, result in results.items()}
    told = {
        name: _told(mdp, result, gamma) | {"optimal_actions": _share(maps[name])} for name, result in results.items()
    }
    return [_true(mdp, gamma), *maps.values()], told


def _true(mdp: TabularMDP, gamma: float) -> Map:
    assert mdp.reward is not None
    action = optimal_actions(mdp, mdp.reward, gamma)
    return Map(mdp.reward.values.numpy(), action, np.zeros(mdp.num_states))


def _share(one: Map) -> float:
    """The share of cells in which the policy is optimal under the true reward."""
    return float((one.loss < OPTIMAL).mean())


def _told(mdp: TabularMDP, result: Result, gamma: float) -> dict[str, Any]:
    assert mdp.reward is not None
    truth, found = mdp.reward.values.numpy(), result["reward"]
    return {
        "factor": scaled(found, truth)[1],
        "correlation": float(np.corrcoef(found, truth)[0, 1]),
        "epic_distance": epic_distance(mdp, found, gamma),
        "value_share": float(result["reached"] / result["optimal"]),
        "expected_value_difference": float(result["optimal"] - result["reached"]),
        "expert_value_share": float(result["expert"] / result["optimal"]),
        "steps": int(result["steps"]),
    }


def curves(task: Task, settings: Settings, found: Mapping[tuple[str, str, int, int], Result]) -> dict[str, Any]:
    """Both statistics by reward, world and number of demonstrations, and those of the expert."""
    seeds = range(FIRST_SEED, FIRST_SEED + settings.seeds)
    world = task.world
    told: dict[str, Any] = {}
    for name in MODELS:
        by_count = [[found[world, name, count, seed] for seed in seeds] for count in settings.demonstrations]
        told[name] = {place: _figures(by_count, prefix, "reached") for place, prefix in PLACES.items()}
    worlds = [[found[world, MODELS[0], settings.demonstrations[0], seed] for seed in seeds]]
    told["expert"] = {place: _figures(worlds, prefix, "expert") for place, prefix in PLACES.items()}
    return told | {"grid": built(world, _place(task, FIRST_SEED, 0)).grid}


def _figures(results: Sequence[Sequence[Result]], prefix: str, whose: str) -> dict[str, Any]:
    """Both statistics of `results: [K][seeds]`."""
    optimal, value = (
        np.array([[float(one[prefix + name]) for one in seeds] for seeds in results]) for name in ("optimal", whose)
    )
    return {
        "expected_value_difference": [with_interval(row) for row in optimal - value],
        "value_share": [with_interval(row) for row in value / optimal],
    }
