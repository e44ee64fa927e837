"""Interrupted runs of every method equal uninterrupted ones: bit-identical weights, metrics and summaries."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from fork_server import finish, start
from suites import arguments, every_method

EPOCHS = "--trainer.max_epochs=6"
RESUME = ["--ckpt_path=last"]


def outcome(directory: Path) -> dict[str, object]:
    """All results of a run except durations."""
    result: dict[str, object] = {"metrics": (directory / "metrics.csv").read_text()}
    for name in ("best", "last"):
        checkpoint = torch.load(directory / "checkpoints" / f"{name}.ckpt", weights_only=True)
        result[name] = {key: value.numpy().tobytes() for key, value in checkpoint["state_dict"].items()}
        result[f"{name} optimizer"] = str(checkpoint["optimizer_states"])
        result[f"{name} random"] = str(checkpoint["random_states"])
        result[f"{name} step"] = checkpoint["global_step"]
    summary = json.loads((directory / "summary.json").read_text())
    del summary["wall_seconds"]
    return result | {"summary": summary}


@pytest.fixture(scope="module", params=every_method())
def uninterrupted(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp(request.param)
    finish(arguments(request.param, directory, EPOCHS), directory / "said.txt")
    return request.param, outcome(directory)


def check_resumption(method: str, expected: dict[str, object], tmp_path: Path, times: int = 2) -> None:
    """Kill a run once or twice, resume it, and compare it with one that was not interrupted.

    One kill is SIGKILL, which leaves no time to save, the other is SIGTERM, in either order.
    """
    rng = random.Random(method)
    directory = tmp_path / "run"
    kills = rng.sample([signal.SIGKILL, signal.SIGTERM], 2)[:times]
    # Kills at counts of steps, not at times, and away from the end, so that they fall within the run on any machine.
    for number, kill in enumerate(kills):
        step = int(expected["last step"] * (number + rng.random()) / (len(kills) + 2))
        interrupt = [
            "--trainer.callbacks+=interrupt.Interrupt",
            f"--trainer.callbacks.step={step}",
            f"--trainer.callbacks.delay={rng.uniform(0.0, 0.02)}",
            f"--trainer.callbacks.name={kill.name}",
        ]
        process = start(arguments(method, directory, EPOCHS, *interrupt, *RESUME[: number > 0]))
        process.join(120)
        assert process.exitcode == (-kill if kill == signal.SIGKILL else 128 + kill)
    finish(arguments(method, directory, EPOCHS, *RESUME), tmp_path / "said.txt")
    actual = outcome(directory)
    for key, value in expected.items():
        assert actual[key] == value, key


@pytest.mark.parametrize("times", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_killed_and_resumed_run_is_bit_identical(uninterrupted, times, tmp_path):
    method, expected = uninterrupted
    check_resumption(method, expected, tmp_path, times)


@pytest.mark.integration
def test_sigterm_saves_batches_of_unfinished_epoch(tmp_path):
    """Terminated within the first epoch, before Lightning's first checkpoint."""
    directory = tmp_path / "run"
    long = ["--data.passes_per_epoch=2000", "--trainer.max_epochs=1", "--data.eval_episodes=0"]
    process = start(arguments("bc-discrete", directory, *long))
    while not (directory / "metrics.csv").exists():
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    process.join(60)
    checkpoint = torch.load(directory / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] > 0
    assert checkpoint["epoch"] == 0
