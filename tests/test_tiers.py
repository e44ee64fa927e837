"""Unit tests fail when they start something expensive; grids keep a part of their cases."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
from types import SimpleNamespace

import lightning.pytorch
import pytest
import torch
from lightning.pytorch.demos.boring_classes import BoringModel
from tiers import each_value_once, of_each_kind, part_of_grid


def train():
    silent = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    lightning.pytorch.Trainer(fast_dev_run=True, accelerator="cpu", **silent).fit(BoringModel())


EXPENSIVE = {
    "a Trainer": train,
    "a subprocess": lambda: subprocess.run(["true"], check=True),
    "a fork": lambda: os.fork() or os._exit(0),
    "a process": lambda: multiprocessing.get_context("forkserver").Process(target=print).start(),
    "the compiler": lambda: torch.compile(torch.sin),
}


@pytest.mark.parametrize("what", EXPENSIVE)
def test_unit_test_fails_when_it_starts(what):
    with pytest.raises(pytest.fail.Exception, match=f"a unit test starts {what}: mark this test integration"):
        EXPENSIVE[what]()


@pytest.mark.integration
def test_integration_test_may_start_a_trainer():
    train()


class Case:
    def __init__(self, id_, **params):
        self.callspec = SimpleNamespace(id=id_, params=params)


def test_grid_keeps_every_value_once():
    cases = [Case("", env=i, policy=j) for i in range(2) for j in range(3)]
    kept = [(one.callspec.params["env"], one.callspec.params["policy"]) for one in each_value_once(cases)]
    assert kept == [(0, 0), (1, 1), (0, 2)]


def test_grid_keeps_cases_of_every_kind():
    cases = [Case(id_) for id_ in ("npz-fifo", "npz-link", "npz-cut", "hdf5-fifo", "recipe-url", "recipe-list")]
    kept = [one.callspec.id for one in of_each_kind(cases, 2)]
    assert kept == ["npz-fifo", "npz-cut", "hdf5-fifo", "recipe-url", "recipe-list"]


def test_grid_keeps_every_third_case():
    assert part_of_grid(list(range(8)), every=3) == [0, 3, 6]


@pytest.mark.grid
@pytest.mark.parametrize("column", range(2))
@pytest.mark.parametrize("row", range(2))
def test_cases_off_the_diagonal_are_slow(row, column, request):
    assert (request.node.get_closest_marker("slow") is None) == (row == column)


@pytest.mark.parametrize("backend", ["sync", "async"])
def test_async_backend_is_integration(backend, request):
    assert (request.node.get_closest_marker("integration") is None) == (backend == "sync")
