"""Environments, experts and disks that fail during a command: one line, exit status not 0, nothing half-written.

Each case is a phase of a command and a fault in it. The slow tests cover the remaining combinations.
"""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path

import faulty
import numpy as np
import pytest

from lit_imitation.cli import main
from lit_imitation.data.module import EnvironmentDataModule, PolicyEpisodes
from lit_imitation.data.rollout_module import RolloutDataModule
from lit_imitation.methods.dagger.collector import Collector
from lit_imitation.rollout.reference import Reference
from lit_imitation.utils import files

pytestmark = pytest.mark.integration

ENV = "faulty:Faulty-v0"
DATA = [f"--data.env_id={ENV}", "--data.num_envs=2", "--data.backend=sync"]
TRAINER = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
BC = ["fit", "--model=lit_imitation.BC", "--data=lit_imitation.DemonstrationDataModule"]
SMALL = ["--trainer.max_epochs=2", "--data.eval_episodes=2", "--data.test_episodes=2", "--data.val_fraction=0"]
PPO = ["fit", "--model=lit_imitation.RL", "--data=lit_imitation.RolloutDataModule", "--data.eval_episodes=0"]
PPO += ["--data.test_episodes=2", "--trainer.max_epochs=2", "--data.steps_per_round=8", "--data.rounds_per_epoch=2"]
DAGGER = ["--trainer.callbacks=lit_imitation.DAggerCallback", "--trainer.callbacks.rounds=1"]
DAGGER += [f"--trainer.callbacks.expert={faulty.__name__}:expert", "--trainer.callbacks.epochs_per_round=1"]

STEP = {
    "raises": "ValueError: the wheel came off",
    "asserts": "AssertionError",
    "exits": "SystemExit: 0",
    "stops-iteration": "StopIteration",
    "reward-nan": "a reward that is not finite",
    "reward-inf": "a reward that is not finite",
    "reward-none": "",
    "reward-text": "could not convert|ValueError",
    "observation-nan": "observation that is not finite",
    "observation-inf": "observation that is not finite",
    "observation-shape": "shape",
    "observation-text": "Error",
    "observation-none": "",
    "four-values": "not enough values",
}
RESET = {"reset-raises": "RuntimeError: no map", "reset-exits": "SystemExit: 0", "reset-nan": "not finite"}
MAKING = {"init-raises": "RuntimeError: no display", "init-exits": "SystemExit: 0"}
ASYNC = {
    "killed": "ended with exit code -9",
    "gone": "ended with exit code 0",
    "raises": "ValueError: the wheel came off",
    "raises-unpicklable": "Local: the motor is gone",
    "exits": "SystemExit: 0",
    "observation-nan": "observation that is not finite",
}
EXPERT = {
    "expert-raises": "the pilot has left",
    "expert-exits": "SystemExit",
    "expert-stops-iteration": "StopIteration",
    "expert-nan": "",
    "expert-outside": "is not in",
    "expert-shape": "shape",
    "expert-none": "",
    "expert-text": "",
}
PHASES = ("collect", "demonstrations", "random-return", "round", "evaluation", "dagger", "test", "predict")


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory):
    file = tmp_path_factory.mktemp("demonstrations") / "a.npz"
    timeouts = np.arange(36) % 9 == 8
    np.savez(
        file,
        observations=np.random.default_rng(0).normal(size=(36, 3)).astype(np.float32),
        actions=np.zeros(36, np.int64),
        rewards=np.ones(36),
        terminals=np.zeros(36, bool),
        timeouts=timeouts,
    )
    return file


@pytest.fixture(scope="module")
def trained(demonstrations, tmp_path_factory):
    directory = tmp_path_factory.mktemp("trained")
    main([*BC, *SMALL, *DATA, *TRAINER, f"--data.demonstrations={demonstrations}", *where(directory)])
    return directory


@pytest.fixture(autouse=True)
def _disarm(monkeypatch, tmp_path):
    monkeypatch.setenv("LIT_IMITATION_CACHE", str(tmp_path / "cache"))
    yield
    faulty.arm("")


def where(directory: Path) -> list[str]:
    return [f"--trainer.default_root_dir={directory}"]


def arm_on_call(monkeypatch, owner: type, name: str, fault: str) -> None:
    """Arm the fault when a method is called."""
    method = getattr(owner, name)

    def call(*args, **kwargs):
        faulty.arm(fault)
        return method(*args, **kwargs)

    monkeypatch.setattr(owner, name, call)


def run(phase: str, fault: str, request, monkeypatch, tmp_path: Path, *more: str) -> None:
    """Run a command with a fault in one of its phases."""
    data = request.getfixturevalue("demonstrations")
    learned = [*BC, *SMALL, *DATA, *TRAINER, *where(tmp_path / "run"), *more]
    if phase == "collect":
        faulty.arm(fault)
        backend = [one.replace("--data.backend", "--backend") for one in more]
        command = ["collect", f"--env_id={ENV}", "--expert=faulty:expert", "--episodes=4", "--num_envs=2", *backend]
        main([*command, f"--out={tmp_path / 'd.npz'}"])
    elif phase == "demonstrations":
        monkeypatch.setattr(EnvironmentDataModule, "random_reference", Reference(0.0))
        arm_on_call(monkeypatch, EnvironmentDataModule, "prepare_data", fault)
        main([*learned, "--data.expert=faulty:expert", "--data.expert_trajectories=4"])
    elif phase == "random-return":
        arm_on_call(monkeypatch, EnvironmentDataModule, "prepare_data", fault)
        main([*learned, f"--data.demonstrations={data}"])
    elif phase == "round":
        arm_on_call(monkeypatch, RolloutDataModule, "training_envs", fault)
        main([*PPO, *DATA, *TRAINER, *where(tmp_path / "run"), *more])
    elif phase == "evaluation":
        monkeypatch.setattr(EnvironmentDataModule, "random_reference", Reference(0.0))
        arm_on_call(monkeypatch, PolicyEpisodes, "run", fault)
        main([*learned, f"--data.demonstrations={data}"])
    elif phase == "dagger":
        monkeypatch.setattr(EnvironmentDataModule, "random_reference", Reference(0.0))
        arm_on_call(monkeypatch, Collector, "_play", fault)
        main([*learned, *DAGGER, f"--data.demonstrations={data}"])
    else:
        directory = request.getfixturevalue("trained")
        monkeypatch.setattr(EnvironmentDataModule, "random_reference", Reference(0.0))
        arm_on_call(monkeypatch, PolicyEpisodes, "run", fault)
        main([phase, f"--ckpt_path={directory}", *DATA, *TRAINER, *where(tmp_path / "run"), *more])


def run_and_fail(capfd, *args, code: tuple[int, ...] = (1,)) -> str:
    """Error text of a failing command: one message, no traceback, exit status not 0."""
    capfd.readouterr()
    with pytest.raises(SystemExit) as stop:
        run(*args)
    assert stop.value.code in code
    output = capfd.readouterr()
    assert "Traceback (most recent" not in re.sub(
        r"ERROR: Traceback", "", output.err
    )  # Gymnasium prints that of a worker
    return output.err


def check_directory(directory: Path) -> None:
    """Check that nothing is half-written or locked and that JSON contains no NaN."""
    for file in directory.rglob("*"):
        assert not file.name.endswith((".tmp", ".lock")), file
        if file.suffix == ".json":
            text = file.read_text()
            json.loads(text, parse_constant=pytest.fail)


QUICK = {
    *(
        ("collect", fault)
        for fault in ("raises", "exits", "reward-nan", "observation-shape", "reset-raises", "init-raises")
    ),
    ("demonstrations", "raises"),
    ("random-return", "reward-nan"),
    ("round", "exits"),
    ("evaluation", "raises"),
    ("dagger", "observation-nan"),
    ("test", "reward-nan"),
    ("predict", "raises"),
}


def product(phases, faults, quick) -> list:
    return [
        pytest.param(p, f, id=f"{p}-{f}", marks=() if (p, f) in quick else pytest.mark.slow)
        for p in phases
        for f in faults
    ]


@pytest.mark.parametrize(("phase", "fault"), product(PHASES, {**STEP, **RESET, **MAKING}, QUICK))
def test_failing_environment_error_names_copy(phase, fault, request, monkeypatch, tmp_path, capfd):
    error = run_and_fail(capfd, phase, fault, request, monkeypatch, tmp_path)
    if fault in MAKING:
        assert re.search(rf"{ENV} cannot be made.*{MAKING[fault]}", error), error
    elif fault in RESET:
        assert re.search(rf"environment [01] (failed at a|gave an observation).*{RESET[fault]}", error) or re.search(
            rf"environment [01] failed at its first reset: {RESET[fault]}", error
        ), error
    else:
        assert re.search(rf"environment [01]\b.* at step {faulty.AT} since the last reset.*", error), error
        assert re.search(STEP[fault], error), error
    check_directory(tmp_path)


@pytest.mark.parametrize("phase", [pytest.param(p, marks=() if p == "collect" else pytest.mark.slow) for p in PHASES])
def test_keyboard_interrupt_from_environment_fails(phase, request, monkeypatch, tmp_path, capfd):
    run_and_fail(capfd, phase, "interrupts", request, monkeypatch, tmp_path, code=(1, 130))
    check_directory(tmp_path)


QUICK_ASYNC = {("collect", "killed"), ("collect", "raises-unpicklable")}


@pytest.mark.parametrize(("phase", "fault"), product(PHASES, ASYNC, QUICK_ASYNC))
def test_failing_worker_error_names_copy_and_all_workers_end(phase, fault, request, monkeypatch, tmp_path, capfd):
    error = run_and_fail(capfd, phase, fault, request, monkeypatch, tmp_path, "--data.backend=async")
    assert re.search(rf"environment [01]\b.* at step {faulty.AT} since the last reset", error), error
    assert re.search(ASYNC[fault], error), error
    check_directory(tmp_path)
    assert not children()


@pytest.mark.parametrize("fault", MAKING)
def test_worker_without_environment_raises(fault, request, monkeypatch, tmp_path, capfd):
    """The parent's own copy, which provides the spaces, can be made."""
    made = faulty.FaultyEnv.__init__

    def elsewhere(self) -> None:
        faulty.arm(fault if os.getpid() != here else "")
        made(self)

    here = os.getpid()
    monkeypatch.setattr(faulty.FaultyEnv, "__init__", elsewhere)
    error = run_and_fail(capfd, "collect", "", request, monkeypatch, tmp_path, "--data.backend=async")
    assert f"error: backend async: {ENV} cannot be made: {MAKING[fault]}" in error
    assert not children()


def children() -> list[str]:
    """Child processes of this process, except those of multiprocessing itself."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().rpartition(")")
            command = (stat.parent / "cmdline").read_text()
        except OSError:
            continue
        state, parent = rest.split()[:2]
        if int(parent) == os.getpid() and state != "Z" and "forkserver" not in command and "tracker" not in command:
            found.append(f"{name} {command}")
    return found


QUICK_EXPERT = {
    *(("collect", fault) for fault in ("expert-raises", "expert-exits", "expert-nan")),
    ("dagger", "expert-raises"),
}


@pytest.mark.parametrize(("phase", "fault"), product(("collect", "demonstrations", "dagger"), EXPERT, QUICK_EXPERT))
def test_failing_expert_error_names_expert(phase, fault, request, monkeypatch, tmp_path, capfd):
    error = run_and_fail(capfd, phase, fault, request, monkeypatch, tmp_path)
    assert re.search(EXPERT[fault], error), error
    assert "expert" in error
    check_directory(tmp_path)


# --- full disk --------------------------------------------------------------------------------------------------------

WRITES = {
    "config": ("evaluation", r"config\.yaml", 0),
    "first-checkpoint": ("evaluation", r"last\.ckpt", 0),
    "second-checkpoint": ("evaluation", r"last\.ckpt", 1),
    "metrics": ("evaluation", r"metrics\.csv", 0),
    "summary": ("evaluation", r"summary\.json", 0),
    "collect": ("collect", r"d\.npz", 0),
    "round-checkpoint": ("round", r"last\.ckpt", 1),
    "dagger-first": ("dagger", r"round_000\.npz", 0),
    "dagger-next": ("dagger", r"round_001\.npz", 0),
    "dagger-best": ("dagger", r"best\.ckpt", 0),
    "predict": ("predict", r"trajectories\.npz", 0),
}


def fill_disk(monkeypatch, pattern: str, spared: int = 0) -> list[str]:
    """Make every write to matching files fail except the first `spared`; the returned list records the attempts."""
    sync, seen = os.fsync, []

    def full(descriptor: int) -> None:
        file = Path(os.readlink(f"/proc/self/fd/{descriptor}")).name
        if re.match(rf"\.{pattern}\.[0-9a-f-]+\.tmp$", file):
            seen.append(file)
            if len(seen) > spared:
                raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(files.os, "fsync", full)
    return seen


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=() if n in ("collect", "second-checkpoint") else pytest.mark.slow, id=f"{n}-full")
        for n in WRITES
    ],
)
def test_full_disk_keeps_last_checkpoint(name, request, monkeypatch, tmp_path, capfd):
    phase, pattern, spared = WRITES[name]
    fill_disk(monkeypatch, pattern, spared)
    error = run_and_fail(capfd, phase, "", request, monkeypatch, tmp_path)
    assert re.search(rf"error: .*No space left on device: '.*{pattern}'\n$", error), error
    check_directory(tmp_path)
    if spared:
        last = tmp_path / "run" / "checkpoints" / "last.ckpt"
        main(["test", "--trust", "true", f"--ckpt_path={last}", *TRAINER, *where(tmp_path / "tested")])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phase", "pattern"),
    [("random-return", r"Faulty-v0-.*\.json"), ("demonstrations", r".*\.npz")],
    ids=["cached-return-full", "cached-demonstrations-full"],
)
def test_full_disk_skips_cache_but_not_run(phase, pattern, request, monkeypatch, tmp_path, capfd):
    tried = fill_disk(monkeypatch, pattern)
    run(phase, "", request, monkeypatch, tmp_path)
    assert tried
    assert re.search("not cached, .* cannot be written .*No space left on device", capfd.readouterr().err)
    check_directory(tmp_path)
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()


def test_full_device_error_names_file(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    with (
        pytest.raises(OSError, match=r"No space left on device: '.*a\.json'"),
        files.atomic_file(tmp_path / "a.json"),
        open("/dev/full", "wb", buffering=0) as full,
    ):
        full.write(b"x")
    assert not list(tmp_path.iterdir())
