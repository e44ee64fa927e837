"""Tiers of tests: unit tests (without a marker), `integration` and `slow`.

Unit tests may start no Trainer, process or compiler; `Tiers` fails those that do. Two kinds of tests need no marker:
those that use a fixture of `FIXTURES`, and those whose parameters name asynchronous environments, which are processes.

`@pytest.mark.grid` leaves a part of a test's cases in its tier and makes the others slow. Without arguments, every
value of every parameter stays in one case. `grid(every=5)` keeps every fifth case, and `grid(kinds=2)` two of each
kind, which is the id up to its first dash.
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
FIXTURES = dict.fromkeys(("trained", "run_directory", "uninterrupted", "one_process"), "integration") | {
    "study": "slow"
}
"""Tiers of the tests that use fixtures of these names, which train."""
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
            if self.in_unit_test and os.getpid() == self.pid and not asks_system():
                pytest.fail(f"a unit test starts {what}: mark this test integration")
            return function(*args, **kwargs)

        return guarded

    @pytest.hookimpl(wrapper=True)
    def pytest_pycollect_makeitem(self) -> Any:
        """Mark the cases of a test function by their fixtures and parameters."""
        collected = yield
        tests = [item for item in collected if isinstance(item, pytest.Function)] if isinstance(collected, list) else []
        for test in tests:
            for fixture in FIXTURES.keys() & set(test.fixturenames):
                test.add_marker(FIXTURES[fixture])
        cases = [test for test in tests if hasattr(test, "callspec")]
        for case in cases:
            if "async" in case.callspec.id.lower():
                case.add_marker("integration")
        if cases and (grid := cases[0].get_closest_marker("grid")):
            kept = part_of_grid(cases, **grid.kwargs)
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


def asks_system() -> bool:
    """Whether a module is being imported, or `platform` asks for the system's name, once in a process."""
    frame = sys._getframe()
    while frame := frame.f_back:
        if frame.f_code.co_name == "_find_and_load" or frame.f_globals.get("__name__") == "platform":
            return True
    return False


def part_of_grid(cases: list[Any], every: int = 0, kinds: int = 0) -> list[Any]:
    """The cases that keep their tier."""
    if every:
        return cases[::every]
    return of_each_kind(cases, kinds) if kinds else each_value_once(cases)


def each_value_once(cases: list[Any]) -> list[Any]:
    """Few cases that together have every value of every parameter: those with the most values not yet seen."""
    values = {case: {(name, id(value)) for name, value in case.callspec.params.items()} for case in cases}
    missing, kept = set().union(*values.values()), []
    while missing:
        kept.append(max(cases, key=lambda case: len(values[case] & missing)))
        missing -= values[kept[-1]]
    return kept


def of_each_kind(cases: list[Any], number: int) -> list[Any]:
    """Up to `number` cases of each kind, evenly spaced."""
    found = defaultdict(list)
    for case in cases:
        found[case.callspec.id.partition("-")[0]].append(case)
    return [case for kind in found.values() for case in kind[:: -(-len(kind) // number)]]
