"""The horizon study: how the cost of imitation grows with the length of the task, for BC and DAgger.

Ross & Bagnell (2010) bound the cost of a clone that errs with rate ε on the expert's states by εT². Ross, Gordon &
Bagnell (2011) bound that of DAgger by uTε, where u is the cost of one error for an expert that continues from there.
The study trains both on equally many labels and measures:

- on `Corridor`, where both bounds are tight, the exponents of T with their intervals, and that of the same clones where
  every error is recovered;
- on `LaneKeeping` and LunarLander, errors along the episode, visited states, and the same exponents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.studies.common import Result, Run, execute, interval, log_log_slope, write
from experiments.studies.horizon import corridor, lane_keeping, lunar_lander
from experiments.studies.horizon.figures import ALL, BOTH, compounding_error, stacked, state_distributions, trajectories
from experiments.studies.horizon.page import page
from lit_imitation.errors import require
from lit_imitation.utils.versions import versions


@dataclass(frozen=True)
class Settings:
    """Settings; the defaults are the full study."""

    horizons: tuple[int, ...] = (10, 20, 40, 80)
    """Values of T of the corridors."""
    labels: tuple[tuple[float, int], ...] = ((0.003, 6400), (0.0015, 12800))
    """p of a rare situation, and the number of labels: each situation is met once on average."""
    situations: int = 20
    corridor_seeds: int = 20
    corridor_epochs: int = 8
    corridor_steps: int = 2_000_000
    """Number of steps measured with each policy."""
    lane: dict[str, Any] = field(
        default_factory=lambda: {
            "labels": 2000, "initial": 400, "rounds": 8, "epochs": 60, "learning_rate": 3e-3, "batch_size": 64,
        }
    )  # fmt: skip
    lane_horizon: int = 200
    lane_episodes: int = 200
    lander: dict[str, Any] = field(
        default_factory=lambda: {
            "labels": 5000, "initial": 1000, "rounds": 16, "episode": 250, "epochs": 15, "learning_rate": 3e-3,
            "batch_size": 64,
        }
    )  # fmt: skip
    lander_horizon: int = 320
    lander_episodes: int = 100
    seeds: int = 10
    """Number of seeds of LaneKeeping and LunarLander."""

    def with_seeds(self, seeds: int) -> Settings:
        """These settings with another number of seeds in every part."""
        return replace(self, seeds=seeds, corridor_seeds=seeds)


QUICK = Settings(
    horizons=(5, 10, 20),
    labels=((0.02, 500),),
    situations=10,
    corridor_seeds=3,
    corridor_steps=100_000,
    lane={"labels": 600, "initial": 200, "rounds": 2, "epochs": 40, "learning_rate": 3e-3, "batch_size": 64},
    lane_episodes=20,
    lander={
        "labels": 1000, "initial": 500, "rounds": 2, "episode": 250, "epochs": 15, "learning_rate": 3e-3,
        "batch_size": 64,
    },
    lander_episodes=5,
    seeds=2,
)  # fmt: skip
"""A miniature in less than a minute; its numbers mean nothing."""


def run(out: Path, settings: Settings, jobs: int = 1) -> dict[str, Any]:
    """Train the missing runs, draw the figures, and write `out/horizon.json` and the page `out/horizon.md`.

    `out/runs` keeps the result of every run, so an interrupted study resumes.

    Returns:
        The content of `horizon.json`.

    Raises:
        MissingExtraError: LunarLander's physics engine is not installed.
    """
    require("Box2D", "box2d", "the horizon study, for its LunarLander part,")
    cells = [(p, labels, T) for p, labels in settings.labels for T in settings.horizons]
    runs = [
        Run(
            f"corridor-p{p:g}-T{T}-seed{seed}",
            corridor.run,
            {
                "horizon": T,
                "probability": p,
                "situations": settings.situations,
                "recipe": {
                    "labels": labels,
                    "initial": labels // 5,
                    "rounds": 4,
                    "epochs": settings.corridor_epochs,
                    "learning_rate": 0.05,
                    "batch_size": 256,
                },
                "steps": settings.corridor_steps,
                "seed": seed,
            },
        )
        for p, labels, T in cells
        for seed in range(settings.corridor_seeds)
    ]
    for name, module, recipe, horizon, episodes in (
        ("lane_keeping", lane_keeping, settings.lane, settings.lane_horizon, settings.lane_episodes),
        ("lunar_lander", lunar_lander, settings.lander, settings.lander_horizon, settings.lander_episodes),
    ):
        runs += [
            Run(
                f"{name}-seed{seed}",
                module.run,
                {"horizon": horizon, "recipe": recipe, "episodes": episodes, "seed": seed},
            )
            for seed in range(settings.seeds)
        ]
    results = execute(runs, out / "runs", jobs)

    count = settings.corridor_seeds
    corridors = {(p, T): results[i * count : (i + 1) * count] for i, (p, _, T) in enumerate(cells)}
    lanes, landers = results[-2 * settings.seeds : -settings.seeds], results[-settings.seeds :]
    summary = summarize(settings, corridors, lanes, landers)
    trajectories(lanes, out / "trajectories")
    state_distributions(lanes, landers, out / "state_distributions")
    compounding_error(corridors, lanes, landers, summary, out / "compounding_error")
    write(out, summary, page)
    return summary


def halvings(horizon: int) -> list[int]:
    """T/16, T/8, T/4, T/2 and T, at which the costs of LaneKeeping and LunarLander are measured."""
    return [horizon // 2**i for i in range(4, -1, -1)]


def closed_form(epsilon: float, horizon: int, *, recovers: bool) -> float:
    """The corridor's cost for an error rate ε that is independent at every step.

        Σ_{t=1}^T x_t,  x_t = ε (1 − x_{t−1}) + x_{t−1} · 1[does not recover],  x_0 = 0

    x_t is the probability of being off after step t; a learner that does not recover has x_t = 1 − (1 − ε)ᵗ.
    """
    off = total = 0.0
    for _ in range(horizon):
        off = epsilon * (1 - off) + (0.0 if recovers else off)
        total += off
    return total


def summarize(
    settings: Settings,
    corridors: Mapping[tuple[float, int], Sequence[Result]],
    lanes: Sequence[Result],
    landers: Sequence[Result],
) -> dict[str, Any]:
    """Headline values: slopes with intervals, measured error rates, costs, seeds and versions."""
    horizons = settings.horizons
    slopes: dict[str, dict[str, Any]] = {}
    cells: list[dict[str, Any]] = []
    for p, labels in settings.labels:
        entries: dict[str, Any] = {}
        cost = {}
        for name in (*BOTH, "recoverable"):
            cost[name] = np.stack([stacked(corridors[p, T], f"{name}_cost").sum(axis=1) for T in horizons], axis=1)
            learner = "dagger" if name == "dagger" else "bc"
            epsilon = [float(stacked(corridors[p, T], f"{learner}_epsilon").mean()) for T in horizons]
            forms = [closed_form(e, T, recovers=name != "bc") for e, T in zip(epsilon, horizons, strict=True)]
            same = [closed_form(float(np.mean(epsilon)), T, recovers=name != "bc") for T in horizons]
            entries[name] = _slope(horizons, cost[name]) | {
                "closed_form_slope": log_log_slope(horizons, [same]).value,
                "epsilon": float(np.mean(epsilon)),
            }
            for i, T in enumerate(horizons):
                cells.append(
                    {
                        "p": p,
                        "T": T,
                        "labels": labels,
                        "learner": name,
                        "epsilon": epsilon[i],
                        "epsilon_T": epsilon[i] * T,
                        "cost": interval(cost[name][:, i]),
                        "closed_form_cost": forms[i],
                    }
                )
        slopes[f"corridor p={p:g}"] = entries
    for part, results, loss in (("lane_keeping", lanes, "error"), ("lunar_lander", landers, "cost")):
        read = halvings(len(results[0]["bc_cost"]))
        slopes[part] = {"T": read}
        for name in BOTH:
            slopes[part][name] = _slope(read, stacked(results, f"{name}_{loss}").cumsum(axis=1)[:, np.array(read) - 1])
    everyone = [result for cell in corridors.values() for result in cell]
    return {
        "study": "horizon",
        "settings": asdict(settings),
        "slopes": slopes,
        "corridor": cells,
        "corridor_checks": {
            "bc_training_error": float(np.mean([result["bc_training_error"] for result in everyone])),
            "bc_returns_from_off": float(np.mean([result["bc_returns"] for result in everyone])),
            "dagger_returns_from_off": float(np.mean([result["dagger_returns"] for result in everyone])),
        },
        "lane_keeping": {
            name: {
                "labels": 0 if name == "expert" else int(lanes[0]["labels"][-1]),
                "steps_in_hazard": interval(stacked(lanes, f"{name}_cost").sum(axis=1)),
                "share_that_leaves": interval(stacked(lanes, f"{name}_left")),
                "error_on_demonstrations": interval(stacked(lanes, f"{name}_training_error")),
                "error_on_own_states": interval(stacked(lanes, f"{name}_error").mean(axis=1)),
                "mean_offset": interval(stacked(lanes, f"{name}_offset").mean(axis=1)),
            }
            for name in ALL
        },
        "lunar_lander": {
            name: {
                "labels": 0 if name == "expert" else int(landers[0]["labels"][-1]),
                "cost": interval(stacked(landers, f"{name}_cost").sum(axis=1)),
                "return": interval(stacked(landers, f"{name}_return")),
                "crashed": interval(stacked(landers, f"{name}_crashed")),
                "error_on_demonstrations": interval(stacked(landers, f"{name}_training_error")),
            }
            for name in ALL
        },
        "versions": versions(),
    }


def _slope(x: Any, y: NDArray[Any]) -> dict[str, Any]:
    estimate = log_log_slope(x, y)
    return {"slope": estimate.value, "ci95": [estimate.low, estimate.high]}
