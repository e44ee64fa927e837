"""DAgger and, beside it, behavioral cloning on the same number of labels, each over several seeds through `repeat`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from lit_imitation import collect, load_expert, make
from lit_imitation.training.repeat import repeat

REACHED = 0.95
"""The share of the expert's score at which the labels it took are counted."""
KEPT = ("return_mean", "normalized_score", "wall_seconds")


def compare(
    dagger: list[str],
    bc: list[str],
    out: Path,
    seeds: int,
    jobs: int,
    env_id: str,
    expert: str,
    batch: list[str],
    env_kwargs: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """One row: DAgger with its recipe, then cloning with its own on as many labels.

    Cloning gets the fewest whole trajectories of the expert that hold at least as many labels as DAgger used: in all,
    and until it had reached `REACHED`.

    Args:
        dagger: DAgger's recipe, and arguments of `fit`.
        bc: cloning's recipe, and arguments of `fit`.
        out: folder of the runs.
        seeds: how many.
        jobs: processes at a time.
        env_id: of the expert that is rolled out to learn how long its episodes are.
        expert: as `load_expert` names it.
        batch: arguments of `fit` for both.
        env_kwargs: of the environment that the expert is rolled out in.
    """
    (task,) = repeat([dagger[0]], seeds, jobs, out / "dagger", [*dagger[1:], *batch])["tasks"]
    summaries = [json.loads((out / "dagger" / f"seed_{seed}" / "summary.json").read_text()) for seed in range(seeds)]
    length = _length(env_id, expert, env_kwargs or {})

    def clone(name: str, labels: float) -> dict[str, Any]:
        trajectories = math.ceil(labels / length - 1e-9)
        arguments = [*bc[1:], *batch, f"--data.num_trajectories={trajectories}"]
        (cloned,) = repeat([bc[0]], seeds, jobs, out / name, arguments)["tasks"]
        return {"trajectories": trajectories, "expert_return": cloned["expert_return"], **{k: cloned[k] for k in KEPT}}

    labels = float(np.mean([summary["expert_queries"] for summary in summaries]))
    reached = [_labels_to_reach(summary) for summary in summaries]
    known = [labels for labels in reached if labels is not None]
    return {
        "env_id": env_id,
        "seeds": task["seeds"],
        "expert_return": task["expert_return"],
        "labels": labels,
        "labels_to_reach": reached,
        "dagger": {name: task[name] for name in KEPT},
        "bc": clone("bc", labels),
        "bc_at_reach": clone("bc_at_reach", float(np.mean(known))) if len(known) == seeds else None,
        "versions": task["versions"],
    }


def _length(env_id: str, expert: str, env_kwargs: dict[str, Any]) -> float:
    """Mean number of steps of the expert's episodes, over 50."""
    envs = make(env_id, 10, 0, **env_kwargs)
    actor = load_expert(expert, env_id, envs.single_observation_space, envs.single_action_space)
    lengths = collect(envs, actor, 50, 0).episode_lengths().double()
    envs.close()
    return float(lengths.mean())


def _labels_to_reach(summary: dict[str, Any]) -> int | None:
    """Labels behind the first round whose policy scored `REACHED` in its evaluation, or None."""
    random, expert = summary["random_return"], summary["expert_return"]
    for record in summary["rounds"]:
        if (record["return_mean"] - random) / (expert - random) >= REACHED:
            return int(record["expert_queries"])
    return None
