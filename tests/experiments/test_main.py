"""The experiments' command line."""

from __future__ import annotations

import pytest

from experiments import __main__ as command

ERRORS = {
    "study without jobs": (["study", "horizon", "--out=x", "--jobs=0"], 1, "--jobs and --seeds must be at least 1"),
    "study without seeds": (["study", "horizon", "--out=x", "--seeds=0"], 1, "--jobs and --seeds must be at least 1"),
    "study into a URL": (["study", "horizon", "--out=s3://bucket/x"], 1, "--out s3://bucket/x: only local"),
    "tasks of another study": (["study", "horizon", "--out=x", "--tasks", "maze"], 1, "has no --tasks"),
    "unknown task": (["study", "transfer", "--out=x", "--tasks", "labyrinth"], 1, "has maze, ant"),
    "half an option": (["study", "horizon", "--out=x", "--qui"], 2, "--qui"),
    "unknown study": (["study", "vertical", "--out=x"], 2, "vertical"),
    "unknown table": (["table", "gold"], 2, "gold"),
    "unknown row": (["table", "gail_table", "gcl/*"], 1, "has no row gcl/*"),
    "table without jobs": (["table", "bc_recipes", "--jobs=0"], 1, "--jobs and --seeds must be at least 1"),
    "unknown comparison": (["speed", "light"], 2, "light"),
    "unknown command": (["bench"], 2, "bench"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_are_one_message(case, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, code, expected = ERRORS[case]
    with pytest.raises(SystemExit) as stop:
        command.main(arguments)
    assert stop.value.code == code
    error = capsys.readouterr().err
    assert expected in error
    assert "Traceback" not in error
    assert not list(tmp_path.iterdir())
