"""Measurements and preparations that a table's YAML names (`experiments.runner`), beyond what `repeat` aggregates."""

from __future__ import annotations

import csv
import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import yaml

from experiments.runner import EXPERTS, ROOT, Done, Row, fit
from lit_imitation import collect, load_expert, load_policy, make
from lit_imitation.rollout import Episodes
from lit_imitation.utils.files import atomic_file, atomic_write
from lit_imitation.utils.statistics import bootstrap_interval

REACHED = 0.95
"""Share of the expert's score at which `equal_labels` counts the labels."""
EPISODES, SEED = 100, 12345
"""For the measurement of an expert's return."""
REPORTED = range(100_000, 100_050)
"""Push-T's starts of Chi et al.; settings were chosen on those of seeds from 200,000 on."""


def summarized(values: Sequence[float]) -> dict[str, Any]:
    """Mean over seeds with its interval."""
    return {"values": list(values), "mean": mean(values), "mean_ci95": list(bootstrap_interval(values, np.mean))}


def logged(run: Path) -> list[dict[str, str]]:
    """The rows of a run's `metrics.csv`."""
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def expert_returns(expert: str, env_id: str, env_kwargs: Mapping[str, Any], deterministic: bool = True) -> list[float]:
    """Returns of `EPISODES` episodes of an expert."""
    envs = make(env_id, 10, SEED, **env_kwargs)
    spaces = envs.single_observation_space, envs.single_action_space
    returns = [
        episode.episode_return
        for episode in Episodes(envs, load_expert(expert, env_id, *spaces, deterministic=deterministic), EPISODES, SEED)
    ]
    envs.close()
    return returns


# Behavioral cloning and DAgger


def equal_labels(done: Done) -> dict[str, Any]:
    """Labels that DAgger used, and what cloning makes of as many.

    Cloning gets the fewest whole trajectories of the expert that hold at least as many labels: all that DAgger used
    (`bc`), and those it used until an evaluation reached `REACHED` (`bc_at_reach`).
    """
    data = done.row.data_settings()
    envs = make(data["env_id"], 10, 0, **data.get("env_kwargs", {}))
    actor = load_expert(data["expert"], data["env_id"], envs.single_observation_space, envs.single_action_space)
    length = float(collect(envs, actor, 50, 0).episode_lengths().double().mean())
    envs.close()
    clone = done.row.compare["bc"]

    def cloned(name: str, labels: float) -> dict[str, Any]:
        trajectories = math.ceil(labels / length - 1e-9)
        overrides = {**clone.get("overrides", {}), "data.num_trajectories": trajectories}
        result = fit(clone["config"], overrides, done.folder / name, done.result["seeds"], done.jobs)
        kept = ("expert_return", "return_mean", "normalized_score", "wall_seconds")
        return {"trajectories": trajectories, **{key: result[key] for key in kept}}

    summaries = done.summaries()
    labels = mean(summary["expert_queries"] for summary in summaries)
    reached = [_labels_to_reach(summary) for summary in summaries]
    known = [count for count in reached if count is not None]
    return {
        "labels": labels,
        "labels_to_reach": reached,
        "bc": cloned("bc", labels),
        "bc_at_reach": cloned("bc_at_reach", mean(known)) if len(known) == len(reached) else None,
    }


def _labels_to_reach(summary: Mapping[str, Any]) -> int | None:
    random, expert = summary["random_return"], summary["expert_return"]
    for record in summary["rounds"]:
        if (record["return_mean"] - random) / (expert - random) >= REACHED:
            return int(record["expert_queries"])
    return None


def pilots(done: Done) -> dict[str, Any]:
    """Draw the README's picture from the runs on LunarLander; adds nothing to the result."""
    if find_spec("matplotlib") is None:
        print("the README's picture is not drawn: matplotlib is not installed (the extra `plot`)")
        return {}
    from experiments.pilots import draw

    draw(done.runs)
    return {}


# The GAIL paper's results


def _published(row: Row, trajectories: int, algorithm: str) -> tuple[list[float], float]:
    """Mean returns of the authors' runs of one algorithm, and the expert's return as they measured it."""
    with (EXPERTS / "gail_paper_results.csv").open(newline="") as file:
        rows = [
            one
            for one in csv.DictReader(file)
            if (one["task"], int(one["num_trajs"]), one["alg"]) == (row.label["paper_task"], trajectories, algorithm)
        ]
    return [float(one["alg_return_mean"]) for one in rows], float(rows[-1]["expert_return_mean"])


def cloned_in_paper(done: Done) -> dict[str, Any]:
    """The authors' behavioral cloning with as many trajectories."""
    values, expert = _published(done.row, done.row.label["trajectories"], "bclone")
    return {
        "theirs": {"mean": float(np.mean(values)), "std": float(np.std(values)), "runs": len(values), "expert": expert}
    }


def gail_paper(done: Done) -> dict[str, Any]:
    """The authors' results, scores relative to the expert's mode, and the environment steps until 0.9.

    The learner is evaluated by its mode, so the expert is too, although it demonstrated with sampled actions.
    """
    data = done.row.data_settings()
    random = done.result["random_return"]
    by_mode = mean(expert_returns(data["expert"], data["env_id"], {}, deterministic=True))

    def score(value: float) -> float:
        return float((value - random) / (by_mode - random))

    curves = [[(steps, score(value)) for steps, value in _validations(run)] for run in done.runs]
    published = {}
    for name, algorithm in (("bc", "bclone"), ("gail", "ga")):
        values, published["expert"] = _published(done.row, done.row.label["paper_trajectories"], algorithm)
        published[name] = float(np.mean(values))
    return {
        "expert_return": by_mode,
        "demonstrator_return": by_mode
        if data["expert_deterministic"]
        else mean(expert_returns(data["expert"], data["env_id"], {}, deterministic=False)),
        "normalized_score": summarized([score(value) for value in done.result["return_mean"]["values"]]),
        "last_score": [curve[-1][1] for curve in curves],
        "env_steps_to_0.9": [next((steps for steps, value in curve if value >= 0.9), None) for curve in curves],
        "published": published,
    }


def _validations(run: Path) -> list[tuple[float, float]]:
    """Environment steps and return of each validation."""
    found, steps = [], 0.0
    for row in logged(run):
        steps = float(row["train/env_steps"] or steps)
        if row.get("val/return_mean"):
            found.append((steps, float(row["val/return_mean"])))
    return found


# Rewards


def gcl_weights(done: Done) -> dict[str, Any]:
    """Medians over the rounds of all seeds of two statistics of GCL's importance weights."""
    names = ("effective_sample_size", "weight_exponent")
    rounds = [[row[f"train/{name}"] for name in names] for run in done.runs for row in logged(run)]
    known = np.array([row for row in rounds if all(row)], dtype=float)
    return dict(zip(names, np.median(known, axis=0).tolist(), strict=True))


def reward_quality(done: Done) -> dict[str, Any]:
    """Distances of the recovered rewards from the true one, and values of their policies."""
    summaries = done.summaries()
    names = ["expected_value_difference", "value_share", "reward_correlation", "epic_distance"]
    names += ["fresh_expected_value_difference", "fresh_value_share"]
    shares = [summary["value_share"] for summary in summaries]
    return {
        **{name: mean(summary[name] for summary in summaries) for name in names if name in summaries[0]},
        "value_shares": {"values": shares, "ci95": list(bootstrap_interval(shares, np.mean))},
    }


def with_gail(row: Row, folder: Path) -> Row:
    """The recipe with GAIL and its defaults in place of its method; the learner stays."""
    recipe = row.recipe()
    learner = recipe["model"]["init_args"]["learner"]
    model = {"class_path": "lit_imitation.GAIL", "init_args": {"learner": learner}}
    return row._replace(config=recipe | {"model": model})


def fresh_policy(done: Done) -> dict[str, Any]:
    """A fresh policy on each seed's frozen reward, with the same learner and as many steps.

    Only the last policy counts: without the true reward there is no way to choose a better one.
    """
    recipe = done.row.recipe()
    omitted = ("demonstrations", "expert", "expert_trajectories", "expert_deterministic", "val_fraction")
    data = {key: value for key, value in recipe["data"]["init_args"].items() if key not in omitted}
    data["expert_return"] = done.result["expert_return"]
    learner = recipe["model"]["init_args"]["learner"]
    found = []
    for seed, run in zip(done.result["seeds"], done.runs, strict=True):
        again = {
            "model": {
                "class_path": "lit_imitation.RL",
                "init_args": {"learner": learner, "reward": str(run.resolve())},
            },
            "data": {"class_path": "lit_imitation.RolloutDataModule", "init_args": data},
        }
        found.append(fit(again, {}, done.folder / "fresh" / str(seed), [seed], 1))
    return {
        "fresh": {
            name: summarized([result[name]["mean"] for result in found]) for name in ("normalized_score", "return_mean")
        }
    }


# Failures of adversarial training, on the tests' environments


def half_way(row: Row, folder: Path) -> Row:
    """Demonstrations that start half-way to the goal, as a file."""
    from goals import record

    folder.mkdir(parents=True, exist_ok=True)
    return row._replace(
        overrides={
            **row.overrides,
            "data.demonstrations": str(record(folder / "half_way.npz", half_way=True).resolve()),
        }
    )


def last_rounds(done: Done) -> dict[str, Any]:
    """Per seed, the means of logged metrics over the last five rounds."""
    found: dict[str, list[float]] = {}
    for name in ("jensen_shannon", "reward_mean", "reward_std"):
        columns = [
            [float(row[f"train/{name}"]) for row in logged(run) if row.get(f"train/{name}")] for run in done.runs
        ]
        found[name] = [float(np.mean(values[-5:])) for values in columns if values]
    return found


def arms(done: Done) -> dict[str, Any]:
    """Per seed, the share of the sampled policy's episodes that end on each arm."""
    from goals import sampled_shares

    return {"shares": [sampled_shares(load_policy(run)) for run in done.runs]}


def lengths(done: Done) -> dict[str, Any]:
    """Per seed, the mean length of the learner's episodes."""
    return {"lengths": [summary["length_mean"] for summary in done.summaries()]}


# Policies that plan ahead


def gates(done: Done) -> dict[str, Any]:
    """Total variation between the shares of Fork's gates in the policy's episodes and in the expert's, per seed.

    An episode that passes no gate counts as one of its own kind.
    """
    from experiments.studies.multimodal.learners import play
    from lit_imitation.experts.fork import ForkExpert

    modes = done.row.data_settings()["env_kwargs"]["modes"]

    def shares(actor: Any, episodes: int) -> Any:
        return np.bincount(play(actor, modes, episodes, SEED)["mode"] + 1, minlength=modes + 1) / episodes

    demonstrated = shares(ForkExpert(modes), 20_000)
    found = [0.5 * float(np.abs(shares(load_policy(run).actor(False), 1000) - demonstrated).sum()) for run in done.runs]
    return {"total_variation": summarized(found)}


# Push-T


def push_t_data(row: Row, folder: Path) -> Row:
    """The human demonstrations as the environment records them, in a file; `mirrored` rows add their mirror images."""
    from experiments.push_t import prepare

    folder.mkdir(parents=True, exist_ok=True)
    source = EXPERTS / "demonstrations" / "pusht-human-0-149.npz"
    columns = prepare(source, row.label["mirrored"])
    with atomic_file(folder / "push_t.npz") as file:
        np.savez(file, **columns)
    return row._replace(overrides={**row.overrides, "data.demonstrations": str((folder / "push_t.npz").resolve())})


def push_t_scores(done: Done) -> dict[str, Any]:
    """Published protocol: largest and mean score of the last ten checkpoints over 50 starts, mean over the seeds."""
    from experiments.push_t import scores

    found = [scores(run, REPORTED) for run in done.runs]
    return {
        "checkpoint_scores": found,
        "max": summarized([max(one) for one in found]),
        "mean": summarized([mean(one) for one in found]),
    }


# Reinforcement learning


def stable_baselines3(done: Done) -> dict[str, Any]:
    """The same task and settings in Stable-Baselines3, each seed in a process of its own."""
    folder = done.folder / "stable_baselines3"
    folder.mkdir(exist_ok=True)
    recipe, runs = folder / "recipe.yaml", []
    atomic_write(recipe, yaml.safe_dump(done.row.recipe(), sort_keys=False))
    for seed in done.result["seeds"]:
        file = folder / f"{seed}.json"
        if not file.exists():
            command = [sys.executable, "-m", "experiments.peer_sb3", str(recipe), str(seed), str(file)]
            subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True)
        runs.append(json.loads(file.read_text(encoding="utf-8")))
    versions = runs[0].pop("versions")
    return {
        "sb3": {
            "return_mean": summarized([run["return_mean"] for run in runs]),
            "env_steps": runs[0]["env_steps"],
            "runs": [{key: value for key, value in run.items() if key != "versions"} for run in runs],
            "versions": versions,
        }
    }


def ship(done: Done) -> dict[str, Any]:
    """Write the policy as an expert of the package, and measure it as one."""
    from lit_imitation.experts import SHIPPED
    from lit_imitation.experts.arrays import save_arrays

    (run,), (summary,) = done.runs, done.summaries()
    env_id, env_kwargs = summary["env_id"], done.row.data_settings().get("env_kwargs") or {}
    SHIPPED.mkdir(exist_ok=True)
    file = SHIPPED / f"{env_id}{'-continuous' if env_kwargs.get('continuous') else ''}.npz"
    notes = {"env_id": env_id, "recipe": done.row.name, "seed": summary["seed"], "env_steps": summary["env_steps"]}
    save_arrays(load_policy(run), file, **notes)
    returns = expert_returns("shipped", env_id, env_kwargs)
    return {
        "env_kwargs": env_kwargs,
        "seed": summary["seed"],
        "return_mean": float(np.mean(returns)),
        "return_std": float(np.std(returns)),
        "episodes": EPISODES,
        "kilobytes": round(file.stat().st_size / 1e3),
    }
