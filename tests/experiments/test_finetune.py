"""The study of fine-tuning on small settings, from the expert to the page."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from study_checks import resumes, rows, runs_of

from experiments.__main__ import main
from experiments.studies.finetune import QUICK, Settings, Task, run

COMMON = {
    "seeds": 2,
    "env_steps": 700,
    "rounds": {"num_envs": 4, "steps_per_round": 64, "rounds_per_epoch": 1, "eval_episodes": 2},
    "bc": {"epochs": 2, "batch_size": 64},
    "demonstrations": 2,
    "expert_steps": 600,
    "episodes": 4,
}
PPO = {"epochs": 2, "batch_size": 64}
TINY = Settings(
    backend="sync",
    tasks=(
        Task("CartPole-v1", aim=0.0, ppo=PPO, start={"warmup_rounds": 1}, **COMMON),
        Task("Pendulum-v1", aim=0.0, ppo=PPO, start={"warmup_rounds": 1, "initial_std": 0.5}, **COMMON),
    ),
)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    return out, run(out, TINY)


def test_all_files_are_written(study):
    out, summary = study
    assert (out / "finetune.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (out / "finetune.svg").read_text()
    assert json.loads((out / "finetune.json").read_text()) == json.loads(json.dumps(summary))
    page = (out / "finetune.md").read_text()
    assert all(f"](finetune.{suffix})" in page for suffix in ("png", "svg", "csv", "json"))
    assert f"**{summary['tasks']['CartPole-v1']['finetuned']['mean']:,.1f}** [" in page
    assert "nan" not in page


def test_the_expert_stops_at_its_aim_or_its_last_step(study):
    out, _ = study
    (reached,) = runs_of(out, "CartPole-v1-expert")
    (never,) = runs_of(out, "Pendulum-v1-expert")
    assert len(reached["curve"]) == 2  # before training, and the first validation
    assert never["env_steps"][-1] == 768  # 600 in whole epochs


def test_fine_tuning_starts_from_the_clone(study):
    out, _ = study
    for result in runs_of(out, "CartPole-v1-finetuned"):
        np.testing.assert_array_equal(result["curve"][0], result["curve"][1])  # only the value function has learned
        assert result["env_steps"].tolist() == [0, 256, 512, 768]
    first, second = runs_of(out, "CartPole-v1-finetuned")
    assert not np.array_equal(first["shown_returns"], second["shown_returns"])


def test_both_sides_take_the_same_number_of_steps(study):
    out, _ = study
    for env_id in ("CartPole-v1", "Pendulum-v1"):
        tuned, scratch = runs_of(out, f"{env_id}-finetuned"), runs_of(out, f"{env_id}-scratch")
        assert all(np.array_equal(a["env_steps"], b["env_steps"]) for a, b in zip(tuned, scratch, strict=True))
        assert not np.array_equal(scratch[0]["curve"], scratch[1]["curve"])


def test_plotted_numbers_match_the_runs(study):
    out, summary = study
    plotted = rows(out, "finetune")
    for env_id, name, label in (
        ("CartPole-v1", "finetuned", "BC, then PPO"),
        ("CartPole-v1", "scratch", "PPO from scratch"),
        ("Pendulum-v1", "finetuned", "BC, then PPO"),
    ):
        curves = np.array([result["curve"] for result in runs_of(out, f"{env_id}-{name}")])
        mine = [row for row in plotted if (row["environment"], row["series"]) == (env_id, label)]
        for seed, curve in (*enumerate(curves), ("mean", curves.mean(axis=0))):
            drawn = [float(row["return"]) for row in mine if row["seed"] == str(seed)]
            np.testing.assert_allclose(drawn, curve, rtol=1e-5)
        levels = {row["series"]: float(row["return"]) for row in plotted if row["env_steps"] == ""}
        assert levels.keys() == {"expert", "the clone alone"}
        task = summary["tasks"][env_id]
        finals = [result["returns"].mean() for result in runs_of(out, f"{env_id}-{name}")]
        assert task[name]["mean"] == pytest.approx(np.mean(finals))


def test_differences_are_paired_by_seed(study):
    out, summary = study
    tuned, scratch = (runs_of(out, f"Pendulum-v1-{name}") for name in ("finetuned", "scratch"))
    pairs = [a["returns"].mean() - b["returns"].mean() for a, b in zip(tuned, scratch, strict=True)]
    entry = summary["tasks"]["Pendulum-v1"]["finetuned_minus_scratch"]
    assert entry["mean"] == pytest.approx(np.mean(pairs))
    assert entry["ci95"] == pytest.approx(sorted(pairs))  # two seeds: the interval ends at the two values


def test_resuming_trains_only_lost_runs_to_the_same_result(study):
    out, summary = study
    resumes(out, lambda: run(out, TINY), summary, 2 + 2 * 2 * 2, ("Pole-v1-expert", "finetuned", "scratch"))


@pytest.mark.slow
def test_quick_runs_from_the_command_line(tmp_path):
    for module in ("Box2D", "mujoco", "envpool"):
        pytest.importorskip(module)
    main(["study", "finetune", "--quick", "--out", str(tmp_path), "--seeds", "1"])
    summary = json.loads((tmp_path / "finetune.json").read_text())
    assert summary["settings"] == json.loads(json.dumps(dataclasses.asdict(QUICK.with_seeds(1))))
    assert (tmp_path / "finetune.png").exists()
