"""The horizon study on small settings, from training to the page."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from study_checks import resumes, rows

from experiments.__main__ import main
from experiments.studies.common import quiet
from experiments.studies.horizon import QUICK, Settings, closed_form, corridor, halvings, run
from lit_imitation.envs.corridor import OFF, RARE
from lit_imitation.experts import CONTROLLERS
from lit_imitation.rollout import FunctionActor

FIGURES = ("trajectories", "state_distributions", "compounding_error")
TINY = Settings(
    horizons=(5, 10),
    labels=((0.05, 200),),
    situations=10,
    corridor_seeds=2,
    corridor_steps=20_000,
    lane={"labels": 120, "initial": 40, "rounds": 2, "epochs": 5, "learning_rate": 3e-3, "batch_size": 32},
    lane_horizon=40,
    lane_episodes=4,
    lander={
        "labels": 200, "initial": 100, "rounds": 1, "episode": 100, "epochs": 4, "learning_rate": 3e-3,
        "batch_size": 32,
    },
    lander_horizon=60,
    lander_episodes=2,
    seeds=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    pytest.importorskip("Box2D")
    out = tmp_path_factory.mktemp("study")
    return out, run(out, TINY)


def test_all_files_are_written(study):
    out, summary = study
    for name in FIGURES:
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (out / f"{name}.svg").read_text()
        assert len(rows(out, name)) > 50
    assert json.loads((out / "horizon.json").read_text()) == json.loads(json.dumps(summary))
    page = (out / "horizon.md").read_text()
    assert all(f"]({name}.{suffix})" in page for name in FIGURES for suffix in ("png", "svg", "csv"))
    assert f"{summary['slopes']['corridor p=0.05']['bc']['slope']:.2f}" in page
    assert "nan" not in page


def test_resuming_trains_only_lost_runs_to_the_same_result(study):
    out, summary = study
    resumes(out, lambda: run(out, TINY), summary, 2 * 2 + 2 * 2, ("corridor", "lane", "lunar"))


def test_both_learners_get_the_same_number_of_labels(study):
    out, _ = study
    for part, labels, rounds in (("corridor", 200, 4), ("lane", 120, 2), ("lunar", 200, 1)):
        for file in (out / "runs").glob(f"{part}*"):
            counts = np.load(file)["labels"]
            assert counts[-1] == labels
            assert len(counts) == rounds + 1
            assert len(set(np.diff(counts))) == 1


def test_plotted_costs_match_the_json(study):
    out, summary = study
    drawn = rows(out, "compounding_error")
    plotted = {
        (row["series"], float(row["x"])): float(row["mean"])
        for row in drawn
        if row["panel"] == "corridor, cost against T, p = 0.05"
    }
    assert len(plotted) == len(summary["corridor"]) == 6
    for cell in summary["corridor"]:
        assert plotted[cell["learner"], cell["T"]] == pytest.approx(cell["cost"]["mean"], rel=1e-4)


def test_slopes_match_the_plotted_costs(study):
    """They are slopes of lines through the points in the file, in logarithms."""
    out, summary = study
    plotted = rows(out, "compounding_error")
    for panel, part in (
        ("corridor, cost against T, p = 0.05", "corridor p=0.05"),
        ("LaneKeeping, cost against T", "lane_keeping"),
        ("LunarLander, cost against T", "lunar_lander"),
    ):
        for name in ("bc", "dagger"):
            points = [(float(r["x"]), float(r["mean"])) for r in plotted if (r["panel"], r["series"]) == (panel, name)]
            slope, _ = np.polyfit(*np.log(points).T, 1)
            assert summary["slopes"][part][name]["slope"] == pytest.approx(slope, abs=1e-3)


def test_plotted_paths_and_distributions_match_the_runs(study):
    out, _ = study
    lanes = [np.load(file) for file in sorted((out / "runs").glob("lane*"))]
    drawn = rows(out, "trajectories")
    for row in drawn[:: len(drawn) // 50]:
        path = lanes[int(row["seed"])][f"{row['driver']}_paths"][int(row["trajectory"]), int(row["step"])]
        np.testing.assert_allclose([float(row["x"]), float(row["y"])], path, rtol=1e-5, atol=1e-6)
    assert {row["seed"] for row in drawn} == {"0", "1"}
    plotted = rows(out, "state_distributions")
    for name in ("expert", "bc", "dagger"):
        offsets = [float(row["share"]) for row in plotted if (row["panel"], row["series"]) == ("offset", name)]
        np.testing.assert_allclose(offsets, np.mean([lane[f"{name}_offsets"] for lane in lanes], axis=0), atol=1e-6)
        for panel in ("offset", "angle"):
            shares = [float(row["share"]) for row in plotted if (row["panel"], row["series"]) == (panel, name)]
            assert sum(shares) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(("epsilon", "horizon"), [(0.01, 10), (0.2, 7), (0.0, 5)])
def test_closed_forms_match_their_sums(epsilon, horizon):
    stays = sum(1 - (1 - epsilon) ** t for t in range(1, horizon + 1))
    assert closed_form(epsilon, horizon, recovers=False) == pytest.approx(stays)
    # x_t = ε (1 − x_{t−1}) has x_t = ε/(1+ε) (1 − (−ε)^t).
    back = sum(epsilon / (1 + epsilon) * (1 - (-epsilon) ** t) for t in range(1, horizon + 1))
    assert closed_form(epsilon, horizon, recovers=True) == pytest.approx(back)


def test_halvings_of_a_horizon():
    assert halvings(320) == [20, 40, 80, 160, 320]


def test_corridor_measures_of_a_known_learner():
    """The learner errs in one of four rare situations, and does not return."""
    expert = CONTROLLERS[corridor.ENV]
    kwargs = {"horizon": 20, "probability": 0.2, "situations": 4}

    @FunctionActor
    def learner(observation):
        return np.where((observation == RARE) | (observation == OFF), 0, expert(observation))

    epsilon = corridor.error_rate(learner, kwargs, 400_000, seed=0)
    assert epsilon == pytest.approx(0.05, abs=5 * np.sqrt(0.05 / 400_000))
    cost, error = corridor.measure(learner, kwargs, 400_000, seed=1)
    wanted = 1 - 0.95 ** np.arange(1, 21)
    np.testing.assert_allclose(cost, wanted, atol=5 * 0.5 / np.sqrt(20_000))
    np.testing.assert_allclose(error, wanted, atol=5 * 0.5 / np.sqrt(20_000))  # wrong in off too


@pytest.mark.slow
def test_the_clone_errs_only_on_unseen_situations():
    """ε is p (1 − p/R)ⁿ on average; costs are those of independent errors at the measured rate."""
    recipe = {"labels": 3200, "initial": 640, "rounds": 4, "epochs": 8, "learning_rate": 0.05, "batch_size": 256}
    rates = []
    for T in (10, 40):
        with quiet():
            results = [corridor.run(T, 0.006, 20, recipe, 1_000_000, seed) for seed in range(8)]
        assert all(result["bc_training_error"] == 0 for result in results)
        assert not any(result["bc_returns"] for result in results)
        assert all(result["dagger_returns"] for result in results)
        rates += [float(result["bc_epsilon"]) for result in results]
        for name, learner in (("bc", "bc"), ("dagger", "dagger"), ("recoverable", "bc")):
            measured = np.mean([result[f"{name}_cost"].sum() for result in results])
            forms = [closed_form(float(result[f"{learner}_epsilon"]), T, recovers=name != "bc") for result in results]
            assert measured == pytest.approx(np.mean(forms), rel=0.06)
    # The number of unseen situations is about binomial: its standard deviation over 16 runs is 7 % of its mean.
    assert np.mean(rates) == pytest.approx(0.006 * (1 - 0.006 / 20) ** 3200, rel=0.3)


@pytest.mark.slow
def test_quick_runs_from_the_command_line(tmp_path):
    pytest.importorskip("Box2D")
    main(["study", "horizon", "--quick", "--out", str(tmp_path), "--jobs", "2", "--seeds", "2"])
    summary = json.loads((tmp_path / "horizon.json").read_text())
    assert summary["settings"] == json.loads(json.dumps(dataclasses.asdict(QUICK) | {"corridor_seeds": 2, "seeds": 2}))
    assert all((tmp_path / f"{name}.png").exists() for name in FIGURES)
