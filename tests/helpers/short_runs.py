"""Command-line runs of a few seconds, and their results."""

from __future__ import annotations

import json

import pytest
from suites import arguments

from lit_imitation.cli import main

QUICK = ["--trainer.max_epochs=1", "--data.test_episodes=4"]


def run(method, directory, *more):
    main(arguments(method, directory, *QUICK, *more))
    return json.loads((directory / "summary.json").read_text())


def fails(capsys, method, directory, *more):
    with pytest.raises(SystemExit) as stop:
        run(method, directory, *more)
    assert stop.value.code == 1
    return capsys.readouterr().err


def column(directory, name):
    header, *lines = (directory / "metrics.csv").read_text().splitlines()
    index = header.split(",").index(name)
    return [float(cell) for line in lines if (cell := line.split(",")[index])]
