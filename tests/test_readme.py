"""The README and the pages in `docs/` keep their promises: commands run, code works, links exist."""

from __future__ import annotations

import re
import shlex
import subprocess
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from suites import arguments

import lit_imitation
from lit_imitation.cli import USAGE, main
from lit_imitation.training.recipes import find_recipe

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
RUN = "runs/bc/CartPole-v1/2026-11-22_10-00-00"
SMALL = {
    "fit": ["--trainer.fast_dev_run=true"],
    "test": ["--data.test_episodes=2"],
    "collect": ["--episodes=2"],
    "recipes": [],
    "export": ["--format=torch_export"],
}


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page in one language."""
    return [code for name, code in re.findall(r"```(\w*)\n(.*?)```", page.read_text(), re.DOTALL) if name == language]


def commands(page: Path) -> list[list[str]]:
    """The words of each `lit-imitation` command in a page, without program, redirection, and comment."""
    lines = "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    words = [shlex.split(line.partition(" > ")[0], comments=True) for line in lines]
    return [command[1:] for command in words if command[:1] == ["lit-imitation"]]


def python_block(page: str, part: str) -> str:
    """The one Python block of a page that contains `part`."""
    (code,) = [code for code in blocks(ROOT / page, "python") if part in code]
    return code


FITS = {
    " ".join(command): command
    for page in PAGES
    if page != README and page.stem != "own_method"  # tests/methods/test_own_method.py runs its command
    for command in commands(page)
    if command[0] == "fit" and len(command) > 3  # more than a recipe
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A working directory with the run that the pages name, and the demonstrations of the page on data."""
    directory = tmp_path_factory.mktemp("pages")
    main(arguments("bc-discrete", directory / RUN, "--trainer.max_epochs=1"))
    exec(python_block("docs/data.md", "np.savez").replace("my.npz", str(directory / "my.npz")), {})
    return directory


@pytest.mark.integration
def test_make_targets_exist():
    shown = [line.split()[1] for block in blocks(README, "bash") for line in block.splitlines() if line[:5] == "make "]
    assert shown == ["run", "test"]
    for target in {*shown, *re.findall(r"`make ([\w-]+)`", "".join(page.read_text() for page in PAGES))}:
        subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.slow
def test_readme_commands_run(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    ran = []
    for name, *options in commands(README):
        options = [re.sub(r"^runs/.*", RUN, option) for option in options]
        main([name, *options, *SMALL[name]])
        ran.append(name)
    assert ran.count("fit") >= 2
    assert {"recipes", "test"} <= set(ran)
    assert "bc/lunar_lander" in capsys.readouterr().out


def test_collect_on_the_page_of_data_runs(trained, monkeypatch):
    monkeypatch.chdir(trained)
    (command,) = [command for command in commands(ROOT / "docs/data.md") if command[0] == "collect"]
    main([*command, *SMALL["collect"]])
    assert (trained / "flights.npz").exists()


@pytest.mark.grid(every=5)
@pytest.mark.integration
@pytest.mark.parametrize("command", FITS.values(), ids=FITS)
def test_fit_options_on_pages_exist(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main(command if "--print_config" in command else [*command, "--print_config"])
    assert not stop.value.code
    assert "class_path: lit_imitation." in capsys.readouterr().out


def test_recipes_on_pages_exist():
    named = {
        name
        for page in PAGES
        for command in commands(page)
        for option, name in pairwise(command)
        if option == "--config" and name != "mine.yaml"
    }
    assert "bc/lunar_lander" in named
    for name in named:
        find_recipe(name)


def test_commands_of_the_table_exist():
    named = re.findall(r"^\| `(\w+)(?: --|` )", (ROOT / "docs/command_line.md").read_text(), re.MULTILINE)
    assert {"fit", "recipes", "repeat"} <= set(named)
    for command in named:
        assert re.search(rf"^  {command} ", USAGE, re.MULTILINE), command
    for page in PAGES:
        for command in commands(page):
            assert command[0] == "COMMAND" or re.search(rf"^  {command[0]} ", USAGE, re.MULTILINE), command


@pytest.mark.parametrize("page", ["README.md", "docs/spaces.md"])
def test_trained_policy_is_used_as_written(trained, page):
    import gymnasium

    code = re.sub(r'load_policy\(".*?"\)', f'load_policy("{trained / RUN}")', python_block(page, "load_policy"))
    env = gymnasium.make("CartPole-v1")
    names = {"lit_imitation": lit_imitation, "observation": np.zeros(4, np.float32), "env": env}
    exec(code, names)
    assert names["policy"](names["observation"]) in (0, 1)


@pytest.mark.integration
@pytest.mark.parametrize("page", ["README.md", "docs/behavioral_cloning.md"])
def test_training_in_python_works_as_written(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    code = python_block(page, "DemonstrationDataModule")
    exec(code.replace("max_epochs=5", "max_epochs=1, logger=False, enable_checkpointing=False"), names)
    assert names["model"].evaluation["return_mean"] > 0


@pytest.mark.integration
def test_policy_from_a_file_is_used_as_written(trained, monkeypatch):
    monkeypatch.chdir(trained)
    command = next(one for one in commands(ROOT / "docs/behavioral_cloning.md") if "bc/from_file" in one)
    main([*command, "--trainer.max_epochs=1", "--trainer.default_root_dir=alone"])
    names: dict[str, object] = {"observation": np.zeros(11)}
    for content in ("np.zeros(11)", "actor.reset"):
        code = python_block("docs/behavioral_cloning.md", content)
        exec(re.sub(r'load_policy\(".*?"\)', 'load_policy("alone")', code), names)
        assert names["action"].shape == (3,)


@pytest.mark.slow
@pytest.mark.integration
def test_cameras_are_cloned_as_written(tmp_path, monkeypatch, capsys):
    page = "docs/behavioral_cloning.md"
    monkeypatch.chdir(tmp_path)
    exec(python_block(page, "lift.hdf5"), {})
    (recipe,) = [text for text in blocks(ROOT / page, "yaml") if "agentview_image" in text]
    (tmp_path / "mine.yaml").write_text(recipe)
    small = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--trainer.default_root_dir=run"]
    main(["fit", "--config", "mine.yaml", *small])
    shown = " ".join(" ".join(blocks(ROOT / page, "")).split())
    told = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("lift.hdf5: 10"))
    assert told in shown
    names: dict[str, object] = {}
    code = python_block(page, 'robot0_eye_in_hand_image": np.zeros')
    exec(re.sub(r'load_policy\(".*?"\)', 'load_policy("run")', code), names)
    assert names["action"].shape == (2,)


def test_own_reward_is_a_reward_model():
    names: dict[str, object] = {}
    exec(python_block("docs/reinforcement_learning.md", "RewardModel"), names)
    observation = np.array([[3.0, 0.0], [-2.0, 0.0]], np.float32)
    transitions = lit_imitation.Transitions.from_dict({"observation": observation}, batch_size=[2])
    assert names["MyReward"]().reward(transitions).tolist() == [-3.0, -2.0]


@pytest.mark.slow
@pytest.mark.integration
def test_learned_reward_is_loaded_as_written(tmp_path):
    main(arguments("airl-discrete", tmp_path / "run", "--trainer.max_epochs=1"))
    code = python_block("docs/adversarial.md", "load_reward").replace('"DIR"', f'"{tmp_path / "run"}"')
    data = lit_imitation.DemonstrationDataModule("CartPole-v1", expert="scripted", num_trajectories=2)
    data.needs_successors = True
    data.setup("fit")
    names: dict[str, object] = {"transitions": data.train}
    exec(code, names)
    assert names["reward"].shape == (len(data.train),)


def test_cache_key_is_declared_as_written():
    names: dict[str, object] = {"database": SimpleNamespace(version=lambda: "7")}
    exec(python_block("docs/caching.md", "cache_key"), names)
    assert names["expert"].cache_key() == "7"


@pytest.mark.slow
@pytest.mark.integration
def test_own_world_in_ten_lines(tmp_path, monkeypatch):
    code = python_block("docs/maxent_irl.md", "TabularMDP")
    assert len([line for line in code.splitlines() if line and "import" not in line]) <= 10
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(code, names)
    reward = names["model"].reward.weights[0].squeeze(-1)
    assert reward.argmax() == 4  # where the demonstrations go, and stay


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_and_figures_exist(page):
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", page.read_text()):
        if target.startswith("http"):
            continue
        file = page.parent / target if target else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), f"{target}#{anchor}"


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_readme_fits_three_screens():
    assert len(README.read_text().splitlines()) <= 120
