"""Helpers of the studies' tests."""

from __future__ import annotations

import csv

import numpy as np


def rows(out, name):
    """The rows of a figure's CSV."""
    with (out / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def runs_of(out, name):
    """The stored results of all runs whose names start with `name`."""
    return [dict(np.load(file)) for file in sorted((out / "runs").glob(f"{name}*"))]


def resumes(out, again, summary, count, parts, without=()):
    """Delete one run for each of `parts`; the study must train only those again, and give the same summary.

    Args:
        out: Folder of the study.
        again: Function that runs the study again.
        summary: Summary of the first call.
        count: Number of runs of the study.
        parts: Parts of the names of the runs to delete.
        without: Names of arrays that are not compared.
    """
    files = sorted((out / "runs").iterdir())
    assert len(files) == count
    kept = {file: file.stat().st_mtime_ns for file in files}
    lost = [next(file for file in files if part in file.name) for part in parts]
    before = {file: dict(np.load(file)) for file in lost}
    for file in lost:
        file.unlink()
    assert again() == summary
    assert all(file.stat().st_mtime_ns == time for file, time in kept.items() if file not in lost)
    for file, arrays in before.items():
        after = np.load(file)
        for name, array in arrays.items():
            if name not in without:
                np.testing.assert_array_equal(after[name], array, err_msg=name)
