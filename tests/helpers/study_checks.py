"""Checks shared by the tests of the studies."""

from __future__ import annotations

import csv

import numpy as np


def rows(out, name):
    """Rows of a figure's CSV."""
    with (out / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def check_resume(out, again, summary, count, parts, without=()):
    """Delete runs by parts of their names and check that the study repeats only these, with equal results.

    Arrays named in `without` are not compared.
    """
    files = sorted((out / "runs").iterdir())
    assert len(files) == count
    times = {file: file.stat().st_mtime_ns for file in files}
    lost = [next(file for file in files if part in file.name) for part in parts]
    before = {file: dict(np.load(file)) for file in lost}
    for file in lost:
        file.unlink()
    assert again() == summary
    assert all(file.stat().st_mtime_ns == time for file, time in times.items() if file not in lost)
    for file, arrays in before.items():
        after = np.load(file)
        for name, array in arrays.items():
            if name not in without:
                np.testing.assert_array_equal(after[name], array, err_msg=name)
