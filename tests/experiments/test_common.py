"""Helpers that the studies share."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from experiments.studies import common


def counted(directory, value):
    """A run that leaves a trace each time it is executed."""
    with open(f"{directory}/trace", "a") as file:
        file.write(f"{value}\n")
    return {"square": np.array(value**2)}


def test_finished_runs_are_not_repeated(tmp_path):
    runs = [common.Run(f"run{i}", counted, {"directory": str(tmp_path), "value": i}) for i in range(3)]
    trace = tmp_path / "trace"
    assert [int(result["square"]) for result in common.execute(runs, tmp_path / "runs", jobs=1)] == [0, 1, 4]
    runs[1].file(tmp_path / "runs").unlink()
    assert [int(result["square"]) for result in common.execute(runs, tmp_path / "runs", jobs=1)] == [0, 1, 4]
    assert trace.read_text().split() == ["0", "1", "2", "1"]
    other = runs[0]._replace(arguments=runs[0].arguments | {"value": 7})
    assert int(common.execute([other], tmp_path / "runs", jobs=1)[0]["square"]) == 49


def test_an_interrupted_study_resumes(tmp_path):
    out = tmp_path / "runs"
    runs = [
        common.Run(f"run{i}", counted, {"directory": str(tmp_path / part), "value": i})
        for i, part in enumerate((".", "missing", "."))
    ]
    with pytest.raises(FileNotFoundError):
        common.execute(runs, out, jobs=1)
    assert list(out.iterdir()) == [runs[0].file(out)]
    (tmp_path / "missing").mkdir()
    assert [int(result["square"]) for result in common.execute(runs, out, jobs=1)] == [0, 1, 4]
    assert (tmp_path / "trace").read_text().split() == ["0", "2"]


@pytest.mark.slow  # two interpreters that import torch
def test_parallel_results_keep_the_order_of_the_runs(tmp_path):
    runs = [common.Run(f"run{i}", counted, {"directory": str(tmp_path), "value": i}) for i in (3, 1, 2)]
    assert [int(result["square"]) for result in common.execute(runs, tmp_path / "runs", jobs=2)] == [9, 1, 4]
    assert sorted((tmp_path / "trace").read_text().split()) == ["1", "2", "3"]


def test_slope_of_a_power_law_is_its_exponent():
    x = np.array([10, 20, 40, 80])
    scales = np.array([[0.5], [1.0], [3.0]])  # seeds that differ by a factor only have no spread of slopes
    slope = common.log_log_slope(x, scales * x**1.7)
    assert slope == pytest.approx((1.7, 1.7, 1.7))


def test_slope_over_two_points_is_a_ratio_of_logarithms():
    costs = np.array([[1.0, 2.0], [3.0, 14.0]])
    slope = common.log_log_slope([10, 20], costs)
    resamples = [np.log2(np.divide(*costs[[i, j]].mean(axis=0)[::-1])) for i in (0, 1) for j in (0, 1)]
    assert slope.value == pytest.approx(2.0)
    assert (slope.low, slope.high) == pytest.approx((min(resamples), max(resamples)))


def test_a_seed_without_cost_leaves_the_slope_finite():
    slope = common.log_log_slope([1, 2, 4], [[0.0, 0.0, 0.0], [2.0, 4.0, 8.0]])
    assert slope.value == pytest.approx(1.0)
    assert np.isfinite(slope).all()


@pytest.mark.slow
def test_intervals_of_a_mean_have_their_coverage():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        _, low, high = common.mean(rng.normal(size=40))
        hits += low <= 0 <= high
    assert 0.88 < hits / 200 < 0.99


@pytest.mark.integration
def test_figures_are_deterministic_and_have_their_numbers(tmp_path):
    files = []
    for name in ("a", "b"):
        figure, axes = common.new_figure(common.COLUMN, 2.0)
        band = (np.array([1.0, 2.0]), np.array([0.5, 1.5]), np.array([1.5, 2.5]))
        common.draw(axes, [0, 1], band, common.BC)
        axes.set_title("title")
        common.letter([axes])
        assert (axes.get_title(), axes.get_title(loc="left")) == ("", "(a) title")
        common.save_figure(figure, tmp_path / name, ("x", "mean"), [(0, 1.0), (1, 1 / 3)])
        files.append([(tmp_path / f"{name}.{suffix}").read_bytes() for suffix in ("png", "svg", "csv")])
    assert files[0] == files[1]
    with (tmp_path / "a.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["x", "mean"], ["0", "1"], ["1", "0.333333"]]
