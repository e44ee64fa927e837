"""Runs killed, terminated or interrupted at any moment and resumed: bit-identical to an uninterrupted run.

No process, temporary file or lock remains. Each case is a method, a signal and a moment; the slow tests add moments.
"""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
from fork_server import finish, start
from suites import arguments
from test_resume import EPOCHS, RESUME, outcome

VARIANTS = {
    "ppo-async": ("ppo-discrete", ("--data.backend=async",)),
    "bc-async": ("bc-discrete", ("--data.backend=async",)),
}
METHODS = (
    "bc-discrete",
    "bc-async",
    "ppo-discrete",
    "ppo-async",
    "sac-discrete",
    "gail-discrete",
    "gcl-discrete",
    "airl-continuous",
    "dagger-discrete",
    "maxent-irl",
)
SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT")
CODES = {"SIGKILL": -signal.SIGKILL, "SIGTERM": 128 + signal.SIGTERM, "SIGINT": 1}
MOMENTS = ("train-1", "train-2", "train-3", "train-4", "validation-1", "validation-2")
QUICK = {("bc-discrete", "SIGINT", "train-1")}
"""`tests/test_resume.py` sends the other signals."""


def cases() -> list:
    every = [(method, name, moment) for method in METHODS for name in SIGNALS for moment in MOMENTS]
    marks = {case: pytest.mark.integration if case in QUICK else pytest.mark.slow for case in every}
    return [pytest.param(*case, id="-".join(case), marks=marks[case]) for case in every]


def command(method: str, directory: Path, *more: str) -> list[str]:
    base, own = VARIANTS.get(method, (method, ()))
    return arguments(base, directory, EPOCHS, *own, *more)


def group_commands(group: int) -> list[str]:
    """Commands of the processes in a process group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(its_group) == group and state != "Z":
            found.append(stat.parent.name)
    return found


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Result of each method without interruption; each is run once."""
    found = {}

    def result(method: str) -> dict[str, object]:
        if method not in found:
            directory = tmp_path_factory.mktemp(method)
            finish(command(method, directory), directory / "log.txt")
            found[method] = outcome(directory)
        return found[method]

    return result


@pytest.mark.parametrize(("method", "name", "moment"), cases())
def test_killed_run_resumes_bit_identical(method, name, moment, uninterrupted, tmp_path):
    expected, rng = uninterrupted(method), random.Random(f"{method} {name} {moment}")
    directory, log = tmp_path / "run", tmp_path / "log.txt"
    phase, number = moment.split("-")
    step = int(expected["last step"] * (int(number) - rng.random()) / 6)
    ends = [
        "--trainer.callbacks+=signals.SendSignal",
        f"--trainer.callbacks.name={name}",
        f"--trainer.callbacks.step={step}",
        f"--trainer.callbacks.delay={rng.uniform(0.0, 0.03)}",
        f"--trainer.callbacks.phase={phase}",
    ]
    process = start(command(method, directory, *ends), log)
    process.join(120)
    assert process.exitcode == CODES[name], log.read_text()
    if name != "SIGKILL":
        assert f"--trainer.default_root_dir {directory} --ckpt_path last" in log.read_text().replace("\n", " ")
    deadline = time.monotonic() + 10
    while (left := group_commands(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left
    finish(command(method, directory, *RESUME), log)
    assert not list(directory.rglob(".*"))
    actual = outcome(directory)
    for key, value in expected.items():
        assert actual[key] == value, key


@pytest.mark.slow
def test_signal_during_long_round_stops_run(tmp_path):
    """A round with a hundred seconds of gradient steps, and one with as long a rollout."""
    for number, more in enumerate((["--model.learner.epochs=100000"], ["--data.steps_per_round=10000000"])):
        directory, log = tmp_path / str(number), tmp_path / f"log_{number}.txt"
        process = start(command("ppo-discrete", directory, *more), log)
        while not (directory / "config.yaml").exists():
            time.sleep(0.05)
        time.sleep(2.0)
        os.kill(process.pid, signal.SIGTERM)
        begin = time.monotonic()
        process.join(60)
        assert process.exitcode == 143, log.read_text()
        assert time.monotonic() - begin < 10
        assert "resume with: lit-imitation fit --config" in log.read_text().replace("\n", " ")
