"""The method that docs/own_method.md defines outside the package does what the page says."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from fork_server import finish
from suites import DISCRETE, METHODS, SAC, arguments, demonstrated
from test_ddp import DUMP, SHARED, check_same, two_ranks
from test_resume import EPOCHS, check_resumption, outcome

from lit_imitation import Method, load_policy
from lit_imitation.cli import main
from lit_imitation.errors import ConfigError

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "docs" / "own_method.md").read_text(), re.DOTALL)
(CODE,) = [code for language, code in BLOCKS if language == "python" and "class SQIL" in code]
(COMMAND,) = [
    shlex.split(code.replace("\\\n", " "))[1:] for language, code in BLOCKS if language == "bash" and " fit " in code
]
SHORT = [
    "--data.env_steps=480",
    "--data.steps_per_round=20",
    "--data.rounds_per_epoch=2",
    "--data.expert_trajectories=2",
]
SHORT += ["--data.eval_episodes=2", "--data.test_episodes=3", "--model.learner.learning_starts=100"]


@pytest.fixture(scope="module", autouse=True)
def my_methods(tmp_path_factory):
    """The page's file, importable in this process and in those that it starts."""
    file = tmp_path_factory.mktemp("own") / "my_methods.py"
    file.write_text(CODE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(file.parent)
        patch.setitem(METHODS, "sqil", demonstrated("my_methods.SQIL", "SAC", DISCRETE, more=SAC))
        yield file
    sys.modules.pop("my_methods", None)


def run(method, directory, *more):
    main(arguments(method, directory, "--trainer.max_epochs=1", "--data.test_episodes=2", *more))


def fails(capsys, directory, *more):
    with pytest.raises(SystemExit):
        run("sqil", directory, *more)
    return capsys.readouterr().err


def test_own_method_takes_at_most_40_lines():
    assert len(CODE.splitlines()) <= 40


@pytest.mark.slow
def test_page_command_runs_in_directory_of_the_method(my_methods, tmp_path, monkeypatch):
    """From the folder of the file, as the page says, and the checkpoint gives the method back."""
    monkeypatch.chdir(tmp_path)
    main([*COMMAND, *SHORT])
    (directory,) = (tmp_path / "runs" / "sqil" / "CartPole-v1").iterdir()
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["method"] == "sqil"
    assert summary["episodes"] == 3
    # 6 rounds of 20 steps in 4 environments; an environment takes a step in which it only starts anew.
    assert 400 < summary["env_steps"] <= 480
    assert summary["gradient_steps"] == (summary["env_steps"] - 100) // 2
    assert load_policy(directory)(torch.zeros(4).numpy()) in (0, 1)
    main(["test", f"--ckpt_path={directory}", "--trust=true"])
    with pytest.raises(ConfigError, match=r"my_methods\.SQIL, which is not part of"):
        Method.load_from_checkpoint(directory)
    loaded = Method.load_from_checkpoint(directory, trust=True)
    assert loaded.method == "sqil"
    assert loaded.learner.learning_starts == 100


@pytest.mark.slow
def test_resumed_own_method_is_bit_identical(tmp_path):
    finish(arguments("sqil", tmp_path / "whole", EPOCHS), tmp_path / "said.txt")
    check_resumption("sqil", outcome(tmp_path / "whole"), tmp_path)


def test_policy_learns_from_reward_1_and_0_in_equal_parts(tmp_path, monkeypatch):
    from lit_imitation.rl import sac

    seen = []
    forward = sac.CriticLoss.forward
    monkeypatch.setattr(sac.CriticLoss, "forward", lambda self, *batch: (seen.append(batch), forward(self, *batch))[1])
    run("sqil", tmp_path, "--model.learner.batch_size=10")
    assert seen
    for _, _, reward, *_ in seen:
        assert reward.tolist() == [0.0] * 5 + [1.0] * 5


def test_own_method_says_what_it_needs(tmp_path, capsys):
    assert "SQIL replays demonstrations, and PPO learns from its current round only: set model.learner" in fails(
        capsys, tmp_path, "--model.learner=lit_imitation.PPO"
    )
    rollouts = [DISCRETE, "--model=my_methods.SQIL", "--trainer.accelerator=cpu", "--trainer.max_epochs=1"]
    with pytest.raises(SystemExit):
        main(["fit", "--data=lit_imitation.RolloutDataModule", *rollouts, f"--trainer.default_root_dir={tmp_path}"])
    assert "SQIL learns from demonstrations and rollouts; RolloutDataModule" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mypy") is None, reason="mypy is not installed")
def test_own_method_passes_mypy(my_methods, tmp_path):
    strict = ["--strict", "--follow-imports=silent", f"--cache-dir={tmp_path / 'cache'}", "--config-file="]
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", *strict, str(my_methods)],
        env={"MYPYPATH": str(ROOT), "PATH": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.slow
def test_own_method_trains_on_two_processes(tmp_path):
    ddp = ["--config=configs/trainer/ddp.yaml", "--trainer.accelerator=cpu", DUMP]
    codes, output = two_ranks([*arguments("sqil", tmp_path, *SHARED, *METHODS["sqil"].exact), *ddp], tmp_path)
    assert codes == [0, 0], output
    check_same(("sqil", None), tmp_path)


@pytest.mark.slow
def test_own_method_learns(tmp_path, monkeypatch):
    """From 2 demonstrations and 6,000 steps; acting at random returns 22."""
    monkeypatch.chdir(tmp_path)
    main([*COMMAND, "--data.env_steps=6000", "--data.eval_episodes=5", "--data.test_episodes=50"])
    (summary,) = tmp_path.glob("runs/sqil/CartPole-v1/*/summary.json")
    assert json.loads(summary.read_text())["return_mean"] > 100
