"""Score tables: what their YAML says, and one run from the file to the stored result."""

from __future__ import annotations

import json

import pytest
import yaml

from experiments import measures, runner
from lit_imitation.errors import ConfigError

TABLE = {
    "seeds": 3,
    "config": "{method}/{task}",
    "overrides": {"trainer.max_epochs": 1},
    "label": {"expert": "scripted"},
    "methods": {"bc": None, "dagger": {"seeds": 2, "tasks": ["pendulum"], "overrides": {"data.batch_size": 32}}},
    "tasks": {"cartpole": {"label": {"length": 500}}, "pendulum": None},
    "rows": {"bc/pendulum": {"first_seed": 4, "overrides": {"trainer.max_epochs": 2}}},
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in ("TABLES", "RESULTS"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(runner, name, tmp_path / name)
    monkeypatch.setattr(runner, "ROOT", tmp_path)
    return tmp_path


def write(folder, table, name="small"):
    (folder / "TABLES" / f"{name}.yaml").write_text(yaml.safe_dump(table, sort_keys=False))


def test_rows_are_methods_times_tasks_with_later_settings_over_earlier(folder):
    write(folder, TABLE)
    first, second, third = runner.load("small")
    assert [row.name for row in (first, second, third)] == ["bc/cartpole", "bc/pendulum", "dagger/pendulum"]
    assert (first.config, first.seeds, first.first_seed) == ("bc/cartpole", 3, 0)
    assert first.label == {"expert": "scripted", "length": 500}
    assert (second.first_seed, second.overrides) == (4, {"trainer.max_epochs": 2})
    assert (third.seeds, third.overrides) == (2, {"trainer.max_epochs": 1, "data.batch_size": 32})


def test_unknown_names_are_refused(folder):
    write(folder, TABLE | {"sedes": 2})
    with pytest.raises(ConfigError, match="no setting is called sedes"):
        runner.load("small")
    write(folder, TABLE)
    with pytest.raises(ConfigError, match="there is no table large; there are small"):
        runner.load("large")
    with pytest.raises(ConfigError, match=r"has no row gail/\*"):
        list(runner.chosen("small", ["gail/*"]))


def test_rows_without_their_published_expert_are_left_out(folder, capsys, monkeypatch):
    monkeypatch.setattr(runner, "EXPERTS", folder)
    absent = {"overrides": {"data.expert": "npz:{experts}/absent.npz"}}
    write(folder, TABLE | {"rows": {"bc/cartpole": absent}})
    assert [row.name for row in runner.chosen("small", ["bc/*"])] == ["bc/pendulum"]
    assert f"left out, there is no {folder / 'policies' / 'absent.npz'}" in capsys.readouterr().out


def test_overrides_are_written_as_yaml():
    given = {"a": "text", "b": [1, 2], "c": True, "d": None, "e": ""}
    assert runner.arguments(given) == ["--a=text", "--b=[1, 2]", "--c=true", "--d=null", "--e="]


def test_stored_rows_keep_the_order_of_the_table(folder):
    write(folder, TABLE)
    for name in ("dagger/pendulum", "bc/cartpole"):
        runner.store("small", {"name": name, "value": name})
    runner.store("small", {"name": "dagger/pendulum", "value": 1})
    assert runner.stored("small") == {
        "bc/cartpole": {"name": "bc/cartpole", "value": "bc/cartpole"},
        "dagger/pendulum": {"name": "dagger/pendulum", "value": 1},
    }
    assert list(runner.stored("small")) == ["bc/cartpole", "dagger/pendulum"]


@pytest.mark.parametrize("name", runner.tables())
def test_every_table_is_complete(name):
    """Its recipes and functions exist, and its rows are those of the stored results."""
    rows = runner.load(name)
    assert {row.name for row in rows} == set(runner.stored(name))
    for row in rows:
        assert {"model", "data"} <= set(row.recipe())
        for function in (*row.measure, *([row.prepare] if row.prepare else [])):
            assert callable(getattr(measures, function))
        for other in row.compare.values():
            runner.read_config(other["config"])


@pytest.mark.slow  # two runs in processes of their own
def test_a_table_is_run_stored_and_resumed(folder, monkeypatch):
    import os

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(path) for path in map(os.path.abspath, ["."])]))
    table = {
        "seeds": 2,
        "config": "bc/cartpole",
        "overrides": {"trainer.max_epochs": 1, "data.expert_trajectories": 2, "data.test_episodes": 2},
        "data": {"expert": None, "expert_trajectories": 25},
        "methods": {"bc": None},
        "tasks": {"cartpole": {"measure": ["lengths"]}},
    }
    write(folder, table)
    runner.run("small", jobs=1)
    (row,) = json.loads((folder / "RESULTS" / "small.json").read_text())
    assert (row["name"], row["recipe"]) == ("bc/cartpole", "bc/cartpole")
    assert (row["expert"], row["expert_trajectories"]) == ("scripted", 2)
    assert row["seeds"] == [0, 1]
    assert len(row["return_mean"]["values"]) == len(row["lengths"]) == 2
    logs = {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("log.txt")}
    assert len(logs) == 2
    runner.run("small", jobs=1)
    assert {path: path.stat().st_mtime_ns for path in logs} == logs
    assert json.loads((folder / "RESULTS" / "small.json").read_text()) == [row]
