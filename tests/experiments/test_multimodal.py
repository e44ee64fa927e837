"""The study of several right answers: its arithmetic and files without training, and small trainings."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from study_checks import rows

from experiments.__main__ import main
from experiments.studies import multimodal
from experiments.studies.multimodal import QUICK, Settings, learners, run, shares, total_variation
from lit_imitation.experts.fork import ForkExpert

TINY = Settings(seeds=2, modes=(2, 3), policies=("mse", "flow"), episodes=40)


def played_by_expert(runs, directory, jobs):
    """Results as `execute` gives them, by the expert instead of clones; MSE always fails."""
    results = []
    for one in runs:
        modes, seed = one.arguments["modes"], one.arguments["seed"]
        result = {"seconds": np.array(1.0), "milliseconds": np.array(2.0 + seed)}
        for way in ("sampled", "deterministic", "expert"):
            played = learners.play(ForkExpert(modes), modes, 40, seed)
            if one.arguments["head"] == "mse" and way != "expert":
                played |= {"success": np.zeros(40, np.bool_), "mode": np.full(40, -1)}
            result |= {f"{way}_{name}": values for name, values in played.items()}
        results.append(result)
    return results


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multimodal, "execute", played_by_expert)
        return out, run(out, TINY)


def test_total_variation_counts_failures():
    shown = np.array([0, 0, 1, 1])
    assert total_variation(shown, shown, 2) == 0.0
    assert total_variation(np.array([0, 0, 0, 0]), shown, 2) == 0.5
    assert total_variation(np.array([-1, 0, 1, 1]), shown, 2) == 0.25
    assert total_variation(np.full(4, -1), shown, 2) == 1.0
    np.testing.assert_array_equal(shares(np.array([-1, 2, 2, 0]), 3), [0.25, 0.25, 0.0, 0.5])


def test_play_reports_every_episode():
    played = learners.play(ForkExpert(3), 3, 50, 0)
    assert played["success"].all()
    assert set(played["mode"].tolist()) == {0, 1, 2}
    assert played["path"].shape == (50, 5, 2)
    assert (np.linalg.norm(played["path"][:, 0], axis=1) < 0.02).all()


def test_summary_page_and_numbers_agree(study):
    out, summary = study
    assert json.loads((out / "multimodal.json").read_text()) == json.loads(json.dumps(summary))
    flow = summary["modes"]["3"]["flow"]
    assert flow["sampled"]["success"]["mean"] == 1.0
    assert flow["sampled"]["total_variation"]["mean"] == 0.0  # as shown: same seed, same expert
    assert flow["milliseconds"] == 2.5
    mse = summary["modes"]["2"]["mse"]
    assert (mse["sampled"]["success"]["mean"], mse["deterministic"]["total_variation"]["mean"]) == (0.0, 1.0)
    plotted = rows(out, "multimodal")
    assert len(plotted) == 2 * 2 * 2 * 2  # gates, policies, ways, seeds
    assert {row["success"] for row in plotted if row["policy"] == "MSE"} == {"0"}
    page = (out / "multimodal.md").read_text()
    assert all(f"](multimodal.{suffix})" in page for suffix in ("png", "svg", "csv", "json"))
    assert "nan" not in page
    assert (out / "multimodal.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_quick_runs_from_the_command_line(tmp_path):
    main(["study", "multimodal", "--quick", "--out", str(tmp_path), "--seeds", "1"])
    summary = json.loads((tmp_path / "multimodal.json").read_text())
    given = json.loads(json.dumps(dataclasses.asdict(QUICK.with_seeds(1))))
    assert {name: summary["settings"][name] for name in given} == given
    assert len(list((tmp_path / "runs").iterdir())) == 2 * 3
