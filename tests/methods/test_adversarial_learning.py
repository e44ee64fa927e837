"""That GAIL and AIRL learn, and fail where they must."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from lit_imitation.cli import main

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def ended_after(tmp_path, monkeypatch, env_id, reward, absorbing=False):
    """Mean length of the learner's episodes."""
    from experiments.scores.termination import recipe

    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe(env_id, reward, absorbing)))
    main(["fit", f"--config={tmp_path / 'recipe.yaml'}", f"--trainer.default_root_dir={tmp_path}"])
    return json.loads((tmp_path / "summary.json").read_text())["length_mean"]


@pytest.mark.parametrize(("env_id", "wrong", "right"), [("FinishLine-v0", 60, 5.5), ("Ledge-v0", 5.5, 60)])
def test_the_wrong_sign_of_the_reward_fails_where_episodes_end_and_absorbing_states_cure_it(
    env_id, wrong, right, tmp_path, monkeypatch
):
    """The reward that is always positive never finishes, the one that is always negative always falls."""
    bad, good = ("positive", "negative") if env_id == "FinishLine-v0" else ("negative", "positive")
    for name, reward, absorbing, length in (
        ("bad", bad, False, wrong),
        ("good", good, False, right),
        ("cured", bad, True, right),
    ):
        found = ended_after(tmp_path / name, monkeypatch, env_id, reward, absorbing)
        assert found == pytest.approx(length, abs=3), name


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
