"""What the README tells a reader to type works."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
from suites import arguments

import lit_imitation
from lit_imitation.cli import USAGE, main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
PYTHON = [code for language, code in BLOCKS if language == "python"]
COMMANDS = [
    line.partition("  #")[0].strip() for language, code in BLOCKS if language == "bash" for line in code.splitlines()
]
SMALL = {
    "fit": ["--trainer.fast_dev_run=true"],
    "collect": ["--episodes=2"],
}


@pytest.fixture
def beside_the_configs(tmp_path, monkeypatch):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_make_targets_exist():
    named = [command.split()[1] for command in COMMANDS if command.startswith("make ")]
    assert named[:2] == ["run", "test"]
    for target in {*named, *re.findall(r"`make ([\w-]+)`", README)}:
        subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)


def test_commands_run(beside_the_configs):
    (arrays,) = [code for code in PYTHON if "np.savez" in code]
    exec(arrays, {})
    ran = []
    for command in COMMANDS:
        words = shlex.split(command)
        if words[:2] == ["python", "train.py"]:
            main([*words[2:], *SMALL[words[2]]])
            ran.append(words[2])
    assert ran.count("fit") >= 2
    assert "collect" in ran


def test_the_table_of_commands_names_real_ones():
    for command in re.findall(r"^\| `(\w+) --", README, re.MULTILINE):
        assert re.search(rf"^  {command} ", USAGE, re.MULTILINE), command


def test_a_trained_policy_is_used_as_written(tmp_path):
    main(arguments("bc-discrete", tmp_path / "run", "--trainer.max_epochs=1"))
    (code,) = [code for code in PYTHON if "load_policy" in code]
    code = re.sub(r'load_policy\(".*?"\)', f'load_policy("{tmp_path / "run"}")', code)
    names = {"lit_imitation": lit_imitation, "observation": np.zeros(4, np.float32)}
    exec(code, names)
    assert names["action"] in (0, 1)


def test_python_example_trains(beside_the_configs):
    (code,) = [code for code in PYTHON if "DemonstrationDataModule" in code]
    names: dict[str, object] = {}
    exec(code.replace("max_epochs=5", "max_epochs=1, logger=False, enable_checkpointing=False"), names)
    assert names["model"].evaluation["return_mean"] > 0


def test_own_world_in_ten_lines(tmp_path, monkeypatch):
    (code,) = [code for code in PYTHON if "TabularMDP" in code]
    assert len([line for line in code.splitlines() if line and "import" not in line]) <= 10
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(code, names)
    reward = names["model"].reward.weights[0].squeeze(-1)
    assert reward.argmax() == 4  # where the demonstrations go, and stay


def test_links_and_pictures_are_there():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target
