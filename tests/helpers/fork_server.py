"""Command-line runs in forked processes, which share one import of the libraries."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

_context = multiprocessing.get_context("forkserver")
# Packages that are not installed are skipped.
_context.set_forkserver_preload(["lit_imitation.training.command", "lit_imitation.methods", "scipy.stats", "envpool"])


def _run(arguments: list[str], output: Path, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    from lit_imitation.cli import main

    main(arguments)


def start(arguments: list[str], output: Path = Path(os.devnull), **environment: str) -> BaseProcess:
    """Start a run that writes its output to `output`."""
    process = _context.Process(target=_run, args=(arguments, output, environment))
    process.start()
    return process


def finish(arguments: list[str], output: Path) -> None:
    """Run a command that has to succeed."""
    process = start(arguments, output)
    process.join(120)
    assert process.exitcode == 0, output.read_text()


def _rank(function: Callable[[], dict[str, torch.Tensor]], rank: int, world: int, store: Path, output: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    torch.save(function(), output)
    dist.destroy_process_group()


def run_ranks(function: Callable[[], dict[str, torch.Tensor]], world: int, directory: Path) -> list[Any]:
    """Results of a function of the test module on each of `world` ranks of one process group."""
    files = [directory / f"rank_{rank}.pt" for rank in range(world)]
    processes = [
        _context.Process(target=_rank, args=(function, rank, world, directory / "store", file))
        for rank, file in enumerate(files)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * world
    return [torch.load(file, weights_only=True) for file in files]
