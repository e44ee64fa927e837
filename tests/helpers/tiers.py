"""Tiers of tests: unit tests (without a marker), `integration` and `slow`.

Unit tests may start no Trainer, process or compiler; `Tiers` fails those that do. A test whose parameters name
asynchronous environments, which are processes, is an integration test without a marker.

`@pytest.mark.grid` leaves a fraction of a test's cases in its tier and makes the others slow. Without arguments every value
of every parameter stays in one case. `grid(kinds=2)` keeps two cases of each kind, which is the id up to its first dash.
"""

from __future__ import annotations

import functools
import multiprocessing.process
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import lightning.pytorch
import pytest
import torch

MARKED = ("integration", "slow")
EXPENSIVE = {
    "a Trainer": (lightning.pytorch.Trainer, "_run"),
    "a subprocess": (subprocess.Popen, "__init__"),
    "a fork": (os, "fork"),
    "a process": (multiprocessing.process.BaseProcess, "start"),
    "the compiler": (torch, "compile"),
}
"""What only marked tests start: owner and attribute of each entry point."""


class Tiers:
    """Pytest plugin that assigns tiers and fails a unit test, or a fixture of one, that starts something expensive."""

    def __init__(self) -> None:
        self.in_unit_test = False
        self.pid = os.getpid()
        self.patch = pytest.MonkeyPatch()
        for what, (owner, name) in EXPENSIVE.items():
            self.patch.setattr(owner, name, self.guard(getattr(owner, name), what))

    def guard(self, function: Callable[..., Any], what: str) -> Callable[..., Any]:
        """The function, except in unit tests, where it fails."""

        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            if self.in_unit_test and os.getpid() == self.pid and not is_import():
                pytest.fail(f"a unit test starts {what}: mark this test integration")
            return function(*args, **kwargs)

        return guarded

    @pytest.hookimpl(wrapper=True)
    def pytest_pycollect_makeitem(self) -> Any:
        """Mark the cases of a test function."""
        collected = yield
        cases = [item for item in collected if hasattr(item, "callspec")] if isinstance(collected, list) else []
        for case in cases:
            if "async" in case.callspec.id:
                case.add_marker("integration")
        if cases and (grid := cases[0].get_closest_marker("grid")):
            kept = first_of_each_kind(cases, **grid.kwargs) if grid.kwargs else each_value_once(cases)
            for case in cases:
                if case not in kept:
                    case.add_marker("slow")
        return collected

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        """Guard the test and the fixtures set up for it, whatever their scope."""
        self.in_unit_test = not any(item.get_closest_marker(name) for name in MARKED)
        try:
            return (yield)
        finally:
            self.in_unit_test = False

    def pytest_unconfigure(self) -> None:
        """Remove the guards."""
        self.patch.undo()


def is_import() -> bool:
    """Whether a module is being imported; some ask the system for libraries or its name."""
    frame = sys._getframe()
    while frame := frame.f_back:
        if frame.f_code.co_name == "_find_and_load":
            return True
    return False


def each_value_once(cases: list[Any]) -> list[Any]:
    """Few cases that together have every value of every parameter: those with the most values not yet seen."""
    values = {case: {(name, id(value)) for name, value in case.callspec.params.items()} for case in cases}
    missing, kept = set().union(*values.values()), []
    while missing:
        kept.append(max(cases, key=lambda case: len(values[case] & missing)))
        missing -= values[kept[-1]]
    return kept


def first_of_each_kind(cases: list[Any], kinds: int) -> list[Any]:
    """The first `kinds` cases whose ids begin with the same word."""
    found = defaultdict(list)
    for case in cases:
        found[case.callspec.id.partition("-")[0]].append(case)
    return [case for of_kind in found.values() for case in of_kind[:kinds]]
