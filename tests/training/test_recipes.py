"""Recipes: lookup and list; packaging: files, requirements and versions."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from fnmatch import fnmatch
from importlib.metadata import distributions
from pathlib import Path

import pytest
import yaml

from lit_imitation.cli import main
from lit_imitation.errors import ConfigError, MissingExtraError
from lit_imitation.training.recipes import find_recipe, read_recipe, recipe_files

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(file: str) -> dict[str, str]:
    lines = (line.strip() for line in (ROOT / file).read_text().splitlines())
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


@pytest.mark.integration
def test_list_names_task_method_score_and_time(capsys):
    main(["recipes"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["recipe", "task", "method", "score", "time"]
    rows = {line.split()[0]: re.split(r"  +", line) for line in lines[1:] if "/" in line}
    assert set(rows) == {f"{path.parent.name}/{path.stem}" for path in (ROOT / "configs").glob("*/*.yaml")}
    for name, row in rows.items():
        if name.startswith("trainer/"):
            continue
        recipe = yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text())
        assert row[1] == recipe["data"]["init_args"].get("env_id", "your file")
        folder = name.split("/")[0]
        others = {"dagger": "DAgger", "maxent_irl": "MaxEntIRL"}
        heads = dict.fromkeys(("mdn", "quantized", "cvae", "diffusion", "flow"), "BC")
        assert row[2] == (others | heads).get(folder, folder.upper())
        if row[1] == "your file":  # which has no score
            continue
        assert re.fullmatch(r"(return )?-?\d+\.\d+", row[3]), row
        assert re.fullmatch(r"([\d.]+|half a) (s|minutes?)", row[4]), row


def test_score_and_time_come_from_the_comment():
    comment = (ROOT / "configs" / "dagger" / "hopper.yaml").read_text()
    found = read_recipe("dagger/hopper")
    assert re.search(rf"normali[sz]ed score {re.escape(found.score)} \[", comment)  # not that of cloning
    assert f": {found.time} a run on 2 cores" in comment


@pytest.mark.integration
def test_list_can_be_limited_to_a_method(capsys):
    main(["recipes", "gail"])
    lines = capsys.readouterr().out.splitlines()[1:]
    assert lines
    assert all(line.startswith("gail/") for line in lines)
    with pytest.raises(SystemExit):
        main(["recipes", "no such thing"])
    assert "no recipe has 'no such thing'" in capsys.readouterr().err


def test_printed_recipe_is_the_file(capsys):
    main(["recipes", "bc/lunar_lander"])
    assert capsys.readouterr().out == (ROOT / "configs" / "bc" / "lunar_lander.yaml").read_text()


@pytest.mark.integration
@pytest.mark.grid
@pytest.mark.parametrize("name", ["bc/cartpole", "bc/cartpole.yaml", "configs/bc/cartpole.yaml"])
@pytest.mark.parametrize("form", ["--config={}", "--config {}", "-c {}"])
def test_recipe_is_found_by_name(name, form, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    overlay = ["--config", "trainer/debug"]
    with pytest.raises(SystemExit) as stop:
        main(["fit", *form.format(name).split(), *overlay, "--print_config"])
    assert stop.value.code == 0
    merged = yaml.safe_load(capsys.readouterr().out)
    assert merged["data"]["init_args"]["env_id"] == "CartPole-v1"
    assert merged["trainer"]["fast_dev_run"] == 5


def test_file_takes_precedence_over_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bc").mkdir()  # a folder of that name is not a recipe
    assert Path(find_recipe("bc/cartpole")) == recipe_files()["bc/cartpole"]
    (tmp_path / "bc" / "cartpole.yaml").touch()
    (tmp_path / "bc" / "mine.yaml").touch()
    assert find_recipe("bc/cartpole") == "bc/cartpole.yaml"
    assert find_recipe("bc/mine") == "bc/mine.yaml"
    (tmp_path / "bc" / "cartpole").touch()
    assert find_recipe("bc/cartpole") == "bc/cartpole"


@pytest.mark.parametrize(
    ("name", "near"),
    [("bc/lunar_landr", "bc/lunar_lander"), ("cartpole", "dagger/cartpole"), ("xyz", ""), ("", "")],
)
def test_unknown_recipe_names_similar_ones(name, near, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for command in ("fit", "repeat"):
        with pytest.raises(SystemExit) as stop:
            main([command, f"--config={name}"])
        assert stop.value.code == 1
        error = capsys.readouterr().err
        assert error.startswith(f"error: --config {name}: no file or recipe has that name")
        assert near in error
        assert ("did you mean" in error) == bool(near)
        assert error.count("\n") == 1


def test_repeat_takes_a_recipe_by_name(tmp_path, monkeypatch):
    from lit_imitation.training import repeat

    monkeypatch.chdir(tmp_path)
    asked = []
    monkeypatch.setattr(repeat, "_start", lambda *given: asked.append(given) or pytest.fail("started"))
    with pytest.raises(pytest.fail.Exception):
        main(["repeat", "--config", "bc/cartpole", "--seeds", "1"])
    assert (tmp_path / "runs" / "repeat" / "bc-cartpole" / "repeat.json").is_file()


@pytest.mark.integration
def test_logger_without_its_package_is_one_line(tmp_path, monkeypatch, capsys):
    """Its folder defaults to that of the run."""
    from lit_imitation.training import lightning_cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lightning_cli, "find_spec", lambda name: None)
    given = ["--trainer.logger", "lightning.pytorch.loggers.TensorBoardLogger"]
    for more in (given, ["--config", "trainer/tensorboard"]):
        with pytest.raises(SystemExit):
            main(["fit", "--config", "bc/cartpole", *more])
        error = capsys.readouterr().err.splitlines()[-1]
        assert error == (
            'error: trainer.logger TensorBoardLogger needs tensorboard: pip install "lit-imitation[tensorboard]"'
        )
    assert "tensorboard" in PROJECT["project"]["optional-dependencies"]
    with pytest.raises(MissingExtraError, match="needs mlflow: pip install mlflow"):
        lightning_cli._check_logger("lightning.pytorch.loggers.MLFlowLogger")


def test_package_holds_every_recipe():
    """The patterns of package data match every recipe in the folder that `find_recipe` reads."""
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["lit_imitation"]
    package = ROOT / "lit_imitation"
    assert (package / "configs").resolve() == ROOT / "configs"
    for path in (ROOT / "configs").rglob("*.*"):
        inside = f"configs/{path.relative_to(ROOT / 'configs')}"
        assert any(fnmatch(inside, pattern) for pattern in patterns), inside
        assert (package / inside).is_file()


def test_requirements_exclude_broken_lightning_releases():
    project = PROJECT["project"]
    assert project["requires-python"] == ">=3.11"
    (lightning,) = (line for line in project["dependencies"] if line.startswith("lightning"))
    assert set(lightning.removeprefix("lightning").split(",")) == {">=2.6", "!=2.6.2", "!=2.6.3"}
    assert all(";" not in line for line in project["optional-dependencies"]["envpool"])


def test_floors_match_lower_bounds_of_the_project():
    least = {}
    for line in PROJECT["project"]["dependencies"]:
        name, version = re.match(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", line).groups()
        least[name] = version
    floors = pins("floors.txt")
    assert set(floors) == set(least)
    for name, version in floors.items():
        assert version == least[name] or version.startswith(f"{least[name]}.")


def test_constraints_match_installed_versions():
    """Constraints list exactly the installed packages; checked in the environment of `make setup`."""
    pinned = {canonical(name): version for name, version in pins("constraints.txt").items()}
    if Path(sys.prefix) != ROOT / ".venv":
        pytest.skip("the environment is not the project's")
    here = distributions(path=[sysconfig.get_path("purelib")])  # without packages that setuptools vendors
    installed = {canonical(one.metadata["Name"]): one.version.partition("+")[0] for one in here}
    for own in ("lit-imitation", "pip", "setuptools", "wheel"):
        installed.pop(own, None)
    assert installed == pinned


@pytest.mark.slow
def test_wheel_works_from_an_empty_folder(tmp_path):
    """Wheels from the checkout and from the sdist are equal, and find their recipes without either."""
    build = "from setuptools.build_meta import build_sdist, build_wheel; import sys; {}(sys.argv[1])"

    def run(*command: str, folder: Path, **environment: str) -> str:
        variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | environment
        done = subprocess.run(
            command, cwd=folder, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    tools = tmp_path / "tools"
    wanted = ["--quiet", "--target", str(tools), *PROJECT["build-system"]["requires"]]
    if subprocess.run([sys.executable, "-m", "pip", "install", *wanted], capture_output=True).returncode:
        pytest.skip("no setuptools to build with")
    files = run("git", "ls-files", folder=ROOT).splitlines()
    source, empty = tmp_path / "source", tmp_path / "empty"
    for name in files:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).symlink_to(os.readlink(ROOT / name)) if (ROOT / name).is_symlink() else (
            source / name
        ).write_bytes((ROOT / name).read_bytes())
    contents = []
    for what in ("build_wheel", "build_sdist"):
        run(sys.executable, "-c", build.format(what), str(tmp_path / what), folder=source, PYTHONPATH=str(tools))
    (sdist,) = (tmp_path / "build_sdist").iterdir()
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (again,) = (tmp_path / "unpacked").iterdir()
    run(sys.executable, "-c", build.format("build_wheel"), str(tmp_path / "again"), folder=again, PYTHONPATH=str(tools))
    for folder in ("build_wheel", "again"):
        (wheel,) = (tmp_path / folder).iterdir()
        with zipfile.ZipFile(wheel) as archive:
            contents.append({name: archive.read(name) for name in archive.namelist() if "/RECORD" not in name})
            archive.extractall(tmp_path / "installed")
    assert contents[0] == contents[1]
    recipes = {f"lit_imitation/configs/{path.relative_to(ROOT / 'configs')}" for path in recipe_files_of(ROOT)}
    assert recipes == {name for name in contents[0] if name.startswith("lit_imitation/configs/")}
    empty.mkdir()
    command = (sys.executable, "-P", "-m", "lit_imitation")
    environment = {"PYTHONPATH": str(tmp_path / "installed")}
    assert "usage: lit-imitation" in run(*command, folder=empty, **environment)
    assert "bc/lunar_lander " in run(*command, "recipes", folder=empty, **environment)
    quick = ("--trainer.max_epochs=1", "--data.expert_trajectories=4", "--data.test_episodes=4")
    assert "normalized" in run(*command, "fit", "--config=bc/cartpole", *quick, folder=empty, **environment).replace(
        "normalized", "normalized"
    )
    assert list(empty.glob("runs/bc/CartPole-v1/*/summary.json"))


def recipe_files_of(root: Path) -> list[Path]:
    return sorted((root / "configs").glob("*/*.yaml"))


def test_yaml_text_is_not_looked_up():
    text = "model: {class_path: lit_imitation.BC}\ntrainer: {}\n"
    assert find_recipe(text) == text
    with pytest.raises(ConfigError):
        find_recipe("bc/../bc/cartpole")
