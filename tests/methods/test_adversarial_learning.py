"""GAIL and AIRL learn, and fail where theory says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from experiments import runner
from lit_imitation.cli import main

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


TERMINATION = {row.name: row for row in runner.load("termination")}


def ended_after(tmp_path, name):
    """Mean length of the learner's episodes with one row's settings."""
    tmp_path.mkdir(exist_ok=True)
    row = TERMINATION[name]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(row.recipe()))
    arguments = [f"--config={tmp_path / 'recipe.yaml'}", f"--trainer.default_root_dir={tmp_path}"]
    main(["fit", *arguments, *runner.arguments(row.overrides)])
    return json.loads((tmp_path / "summary.json").read_text())["length_mean"]


@pytest.mark.parametrize(("task", "wrong", "right"), [("finish_line", 60, 5.5), ("ledge", 5.5, 60)])
def test_absorbing_states_cure_the_wrong_sign_of_reward(task, wrong, right, tmp_path):
    """An always positive reward never finishes, an always negative one always falls."""
    bad, good = ("positive", "negative") if task == "finish_line" else ("negative", "positive")
    for method, length in ((bad, wrong), (good, right), (f"{bad}_absorbing", right)):
        assert ended_after(tmp_path / method, f"{method}/{task}") == pytest.approx(length, abs=3), method


def test_cartpole_from_one_trajectory(tmp_path):
    main(
        [
            "fit",
            f"--config={ROOT / 'configs' / 'gail' / 'cartpole.yaml'}",
            f"--trainer.default_root_dir={tmp_path}",
            "--trainer.accelerator=cpu",
        ]
    )
    assert json.loads((tmp_path / "summary.json").read_text())["return_mean"] >= 490
