"""The study of sample efficiency on small settings, from the expert to the page."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from study_checks import resumes, rows, runs_of

from experiments.__main__ import main
from experiments.studies.sample_efficiency import QUICK, Settings, Task, censored, pooled, run, steps_to, summarize
from experiments.studies.sample_efficiency.architecture import WINDOW, smooth
from experiments.studies.sample_efficiency.figure import Lanes
from experiments.studies.sample_efficiency.page import NAMES
from lit_imitation.rollout.random_return import random_return
from lit_imitation.utils.statistics import interquartile_mean

PPO = {"epochs": 2, "batch_size": 64}
ROUNDS = {"num_envs": 4, "steps_per_round": 64, "rounds_per_epoch": 1, "eval_episodes": 2}
CARTPOLE = Task(
    "CartPole-v1",
    "scripted",
    seeds=2,
    env_steps=700,
    gail_rounds=ROUNDS,
    discriminator={"gradient_penalty": 1.0},
    gail_ppo=PPO,
    rounds=ROUNDS,
    ppo=PPO,
    dagger={"rounds": 2, "steps_per_round": 100, "epochs_per_round": 2},
    trajectories=2,
    other_trajectories=(1,),
    other_seeds=1,
    subsample=10,
    clone_steps=30,
    episodes=4,
    expert_episodes=4,
)
PENDULUM = dataclasses.replace(CARTPOLE, env_id="Pendulum-v1", env_steps=300, other_trajectories=())
TINY = Settings(backend="sync", aim=0.01, tasks=(CARTPOLE, PENDULUM))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    return out, run(out, TINY)


def test_all_files_are_written(study):
    out, summary = study
    for name in ("sample_efficiency", "gail_architecture"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (out / f"{name}.svg").read_text()
    assert json.loads((out / "sample_efficiency.json").read_text()) == json.loads(json.dumps(summary))
    page = (out / "sample_efficiency.md").read_text()
    assert all(f"](sample_efficiency.{suffix})" in page for suffix in ("png", "svg", "csv", "json"))
    assert all(f"](gail_architecture.{suffix})" in page for suffix in ("png", "svg", "csv"))
    assert f"**{summary['pooled']['gail']['iqm']:.2f} [" in page
    assert not any(word in page for word in ("nan", "None"))


def test_all_imitators_get_the_same_number_of_labels(study):
    out, _ = study
    for env_id, length in (("CartPole-v1", 500), ("Pendulum-v1", 200)):
        clones, gails = (runs_of(out, f"{env_id}-{method}-2-in10") for method in ("bc", "gail"))
        assert [int(r["labels"]) for r in clones] == [int(r["labels"]) for r in gails] == [2 * length // 10] * 2
        for dagger in runs_of(out, f"{env_id}-dagger"):
            assert dagger["labels"].tolist() == [2 * length // 10 + 100 * i for i in range(3)]
            assert dagger["env_steps"].tolist() == [0, 100, 200]
        assert [int(result["labels"]) for result in runs_of(out, f"{env_id}-bc-2-in1-")] == [2 * length] * 2


def test_gail_and_ppo_take_the_same_number_of_steps(study):
    out, _ = study
    for env_id, ends in (("CartPole-v1", [0, 256, 512, 768]), ("Pendulum-v1", [0, 256, 512])):
        for result in (*runs_of(out, f"{env_id}-gail-2-"), *runs_of(out, f"{env_id}-ppo")):
            assert result["env_steps"].tolist() == ends
    (stopped,) = runs_of(out, "CartPole-v1-gail-1-")
    assert stopped["env_steps"].tolist() == [0, 256]  # holding the pole for a moment is 0.01 of 500


def test_plotted_numbers_match_the_runs(study):
    out, summary = study
    plotted = [row for row in rows(out, "sample_efficiency") if row["panel"] == "return"]
    for env_id, task in summary["tasks"].items():
        for method, label in (("dagger", "DAgger"), ("gail", "GAIL"), ("ppo", "PPO on the true reward")):
            found = runs_of(out, f"{env_id}-{method}-2" if method == "gail" else f"{env_id}-{method}")
            curves = np.array([result["curve"] for result in found])
            for seed, curve in (*enumerate(curves), ("IQM", interquartile_mean(curves, axis=0))):
                mine = [r for r in plotted if (r["environment"], r["method"], r["seed"]) == (env_id, label, str(seed))]
                np.testing.assert_allclose([float(row["value"]) for row in mine], curve, rtol=1e-5)
            finals = [result["returns"].mean() for result in found]
            assert task["returns"][method]["seeds"] == pytest.approx(finals)
    run = runs_of(out, "CartPole-v1-gail-2-in10-seed0")[0]
    rounds, validations = rows(out, "gail_architecture")[:3], rows(out, "gail_architecture")[3:]
    drawn = [float(row["discriminator_accuracy_held_out"]) for row in rounds]
    np.testing.assert_allclose(drawn, run["round_discriminator_accuracy_held_out"], rtol=1e-5)
    end = summary["gail_architecture"]["at_the_end"]
    assert end["discriminator_accuracy_held_out"] == pytest.approx(np.mean(drawn))  # fewer rounds than are averaged
    np.testing.assert_allclose([float(row["validation_return_mean"]) for row in validations], run["curve"], rtol=1e-5)


def test_scores_are_0_for_random_and_1_for_the_expert(study):
    out, summary = study
    task = summary["tasks"]["CartPole-v1"]
    (expert,) = runs_of(out, "CartPole-v1-expert")
    level, random = expert["returns"].mean(), task["random_return"]
    finals = [result["returns"].mean() for result in runs_of(out, "CartPole-v1-ppo")]
    assert level == 500.0
    assert 15.0 < random < 30.0
    assert task["scores"]["ppo"]["seeds"] == pytest.approx([(value - random) / (level - random) for value in finals])
    both = [s for task in summary["tasks"].values() for s in task["scores"]["ppo"]["seeds"]]
    assert summary["pooled"]["ppo"]["iqm"] == pytest.approx(np.mean(sorted(both)[1:3]))


def test_steps_and_labels_of_the_first_good_validation():
    curve = {"env_steps": np.array([0, 10, 20, 30]), "curve": np.array([1.0, 5.0, 2.0, 9.0])}
    assert steps_to(5.0, curve | {"labels": np.array([3, 4, 5, 6])}, 0) == (10.0, 4.0)
    assert steps_to(6.0, curve | {"labels": np.array(7)}, 0) == (30.0, 7.0)
    assert steps_to(6.0, curve, 0) == (30.0, 0.0)
    assert steps_to(9.5, curve, 0) == (math.inf, math.inf)


def test_a_lucky_untrained_policy_does_not_count():
    lucky = {"env_steps": np.array([0, 10, 20]), "curve": np.array([9.0, 2.0, 9.0]), "labels": np.array([3, 4, 5])}
    assert steps_to(5.0, lucky, 1) == (20.0, 5.0)
    assert steps_to(5.0, lucky, 0) == (0.0, 3.0)  # a clone, before DAgger's first question


def made_up(finals, curves, labels, env_steps=(0, 10, 20)):
    """Runs with given final returns and validation returns."""
    return [
        {"returns": np.full(2, end), "curve": np.array(curve), "env_steps": np.array(env_steps), "labels": np.array(n)}
        for end, curve, n in zip(finals, curves, labels, strict=True)
    ]


@pytest.mark.slow
@pytest.mark.integration
def test_labels_and_steps_of_five_seeds():
    """Labels are means, steps interquartile means: of five seeds the lowest and highest are cut."""
    random, expert = random_return("CartPole-v1"), {"returns": np.array([100.0, 100.0])}
    curves = [[0, 95, 50], [99, 20, 95], [0, 95, 95], [0, 20, 30], [0, 20, 95]]
    labels = [1, 2, 3, 4, 90]
    found = {
        ("bc", 2, 10): made_up([95, 95, 95, 95, 0], [[0]] * 5, labels, (0,)),
        ("gail", 2, 10): made_up([95] * 5, curves, labels),
        ("dagger", 2, 10): made_up([95] * 5, [[99, 0, 0]] * 5, [[n, n, n] for n in labels]),
        ("ppo", 0, 0): made_up([95] * 5, [[0, 20, 30]] * 5, [0] * 5),
    }
    runs = {(*cell, seed): run for cell, results in found.items() for seed, run in enumerate(results)}
    task = summarize(CARTPOLE, 0.9, expert, runs)
    bc, dagger, gail, ppo = (next(e for e in task["trade"] if e["method"] == name) for name in NAMES)
    assert [e["seeds_there"] for e in (bc, dagger, gail, ppo)] == [4, 5, 4, 0]
    assert bc["there"]
    assert bc["labels"] == gail["labels"]["mean"] == dagger["labels"]["mean"] == 20.0
    assert gail["env_steps"]["seeds"] == [10.0, 20.0, 10.0, None, 20.0]
    assert gail["env_steps"]["iqm"] == pytest.approx(50 / 3)
    assert dagger["env_steps"]["seeds"] == [0.0] * 5
    assert ppo["env_steps"]["iqm"] is None
    clones = [(value - random) / (100 - random) for value in (95, 95, 95)]
    assert bc["score"]["iqm"] == pytest.approx(np.mean(clones))


def test_a_seed_that_never_reaches_the_aim_is_the_latest():
    never = math.inf
    some = censored([500.0, never, 200.0, 300.0, 100.0])
    assert some["iqm"] == pytest.approx(1000 / 3)  # of 200, 300 and 500: of five, one is cut from each end
    assert some["seeds"] == [500.0, None, 200.0, 300.0, 100.0]
    assert some["ci95"][1] is None  # two of the five may be that one
    assert censored([100.0, never, 200.0]) == {"iqm": None, "ci95": [100.0, None], "seeds": [100.0, None, 200.0]}
    assert censored([never] * 5) == {"iqm": None, "ci95": [None, None], "seeds": [None] * 5}


def test_lanes_lie_outside_all_step_counts():
    lanes = Lanes(100.0, 1e6)  # four decades, of which a unit is a fifth
    assert lanes.place(5e3, "gail") == 5e3
    assert lanes.place(0.0, "dagger") == pytest.approx(100 * 10**-0.7)
    assert lanes.place(None, "gail") == pytest.approx(1e6 * 10**0.4)
    assert lanes.place(None, "bc") == pytest.approx(1e6 * 10**1.0)


def test_pooled_scores_are_stratified_by_environment():
    tasks = {name: {"scores": {m: {"seeds": [value] * 4} for m in ("bc", "dagger", "gail", "ppo")}}
             for name, value in (("a", 0.0), ("b", 1.0))}  # fmt: skip
    # An unstratified resample could hold one environment more often than the other.
    assert pooled(tasks)["gail"] == {"iqm": 0.5, "ci95": [0.5, 0.5]}


def test_smoothing_ignores_rounds_without_a_value():
    values = np.arange(40.0)
    values[20] = np.nan
    half = WINDOW // 2
    around = np.r_[20 - half : 20, 21 : 21 + half]
    assert smooth(values)[20] == pytest.approx(around.mean())
    assert smooth(values)[0] == pytest.approx(np.arange(half + 1).mean())
    assert np.isnan(smooth(np.full(5, np.nan))).all()


def test_resuming_trains_only_lost_runs_to_the_same_result(study):
    out, summary = study
    resumes(
        out,
        lambda: run(out, TINY),
        summary,
        2 * (1 + 2 * 5) + 3,
        ("Pole-v1-expert", "Pole-v1-bc-2-in10", "Pole-v1-dagger", "Pole-v1-gail", "Pole-v1-ppo"),
    )


@pytest.mark.slow
def test_quick_runs_from_the_command_line(tmp_path):
    for module in ("mujoco", "envpool"):
        pytest.importorskip(module)
    main(["study", "sample_efficiency", "--quick", "--out", str(tmp_path), "--seeds", "1"])
    summary = json.loads((tmp_path / "sample_efficiency.json").read_text())
    assert summary["settings"] == json.loads(json.dumps(dataclasses.asdict(QUICK.with_seeds(1))))
    assert (tmp_path / "gail_architecture.png").exists()
