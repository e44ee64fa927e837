"""Several processes: identical weights on all, evaluation counted once, and the result of one process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from fork_server import finish, start
from suites import METHODS, arguments, every_method

# 7 episodes on 3 environments give unequal shares.
SHARED = ["--data.num_envs=3", "--data.test_episodes=7", "--trainer.max_epochs=3"]
DUMP = "--trainer.callbacks+=dump_weights.DumpWeights"
LAUNCHED = "bc-discrete"
"""Method that is started as users do it, by Lightning and by torchrun."""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def launch(command: list[str], *prefix: str, **environment: str) -> subprocess.Popen[str]:
    tests = Path(__file__).parent
    path = os.pathsep.join([str(tests / "helpers"), str(tests.parent)])
    return subprocess.Popen(
        [*(prefix or (sys.executable,)), "-m", "lit_imitation", *command],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def two_ranks(
    command: list[str], directory: Path, meanwhile: Callable[[list[int]], None] | None = None
) -> tuple[list[int | None], str]:
    """Exit codes and what both said, started as a cluster's scheduler does, which spares each rank the imports.

    `meanwhile` is given the numbers of their processes.
    """
    port, said = free_port(), [directory / f"said_{rank}.txt" for rank in range(2)]
    ranks = [
        start(command, said[rank], LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        for rank in range(2)
    ]
    if meanwhile is not None:
        meanwhile([process.pid for process in ranks])
    for process in ranks:
        process.join(180)
    return [process.exitcode for process in ranks], "".join(file.read_text() for file in said)


def outcome(directory: Path) -> tuple[list[dict[str, torch.Tensor]], dict[str, object]]:
    ranks = [torch.load(file, weights_only=True) for file in sorted(directory.glob("weights_*.pt"))]
    return ranks, json.loads((directory / "summary.json").read_text())


@pytest.fixture(scope="module", params=every_method({LAUNCHED, "ppo-discrete"}))
def one_process(request, tmp_path_factory):
    if METHODS[request.param].differs:
        return request.param, None
    directory = tmp_path_factory.mktemp("one")
    command = arguments(request.param, directory, *SHARED, *METHODS[request.param].exact, DUMP)
    finish(command, directory / "said.txt")
    return request.param, outcome(directory)


def check_same(outcome_of_one, directory: Path) -> None:
    method, of_one = outcome_of_one
    (first, second), summary = outcome(directory)
    assert summary["episodes"] == 7 * METHODS[method].plays
    for name in first:
        assert torch.equal(first[name], second[name]), name
    if of_one is None and method.startswith(("bc", "cql", "td3")):
        return
    if of_one is None:
        # 3 epochs of 3 rounds of 24 steps in 4 environments, without reset steps.
        assert 0.9 * 864 < float(first["env_steps"]) <= 864
        if method.startswith("sac"):  # as many as are due for the steps of the best policy
            assert summary["gradient_steps"] == int(0.1 * (summary["env_steps"] - 100) / 2)
        return
    (alone,), summary_of_one = of_one
    for name in alone:
        # DAgger's warm start folds input statistics into the first layer, which magnifies rounding in float32.
        rtol, atol = (1e-3, 1e-4) if method.startswith("dagger") else (1e-4, 1e-5)
        torch.testing.assert_close(first[name], alone[name], rtol=rtol, atol=atol)
    assert summary["gradient_steps"] == summary_of_one["gradient_steps"]
    if METHODS[method].plays:
        np.testing.assert_allclose(summary["expert_return"], summary_of_one["expert_return"])
    else:
        for figure in ("loss", "action_error", "action_errors"):
            np.testing.assert_allclose(summary[figure], summary_of_one[figure], rtol=1e-3)


def test_two_processes_match_one(one_process, tmp_path):
    method, expected = one_process
    more = ["--config=configs/trainer/ddp.yaml", "--trainer.accelerator=cpu", DUMP]
    command = [*arguments(method, tmp_path, *SHARED, *METHODS[method].exact), *more]
    if method == LAUNCHED:
        process = launch(command)
        output, _ = process.communicate(timeout=180)
        assert process.returncode == 0, output
    else:
        codes, output = two_ranks(command, tmp_path)
        assert codes == [0, 0], output
    assert "sync_dist" not in output  # Lightning warns about metrics that may differ between processes
    check_same((method, expected), tmp_path)
    if method == "bc-continuous":  # each environment has its own random stream, so the episodes are the same
        np.testing.assert_allclose(outcome(tmp_path)[1]["return_mean"], expected[1]["return_mean"], rtol=0.05)


@pytest.mark.slow
def test_two_nodes_under_torchrun(one_process, tmp_path):
    method, expected = one_process
    if method != LAUNCHED:
        pytest.skip("one method is enough: what differs between nodes is not the method's")
    port = free_port()
    more = ["--trainer.strategy=ddp", "--trainer.devices=1", "--trainer.num_nodes=2", DUMP]
    nodes = [
        launch(
            [*arguments(method, tmp_path, *SHARED, *METHODS[method].exact), *more],
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nnodes=2",
            "--nproc-per-node=1",
            f"--node-rank={node}",
            "--master-addr=127.0.0.1",
            f"--master-port={port}",
        )
        for node in range(2)
    ]
    outputs = [node.communicate(timeout=180)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], outputs
    check_same((method, expected), tmp_path)


@pytest.mark.slow
def test_failing_expert_on_one_process_stops_both(tmp_path):
    more = ["--config=configs/trainer/ddp.yaml", "--trainer.accelerator=cpu"]
    more += ["--trainer.callbacks.expert=unreliable:expert"]
    command = [*arguments("dagger-discrete", tmp_path, *SHARED, *METHODS["dagger-discrete"].exact), *more]
    codes, output = two_ranks(command, tmp_path)
    assert codes == [1, 1], output
    assert "round 1, step 7: expert unreliable:expert failed at observations [2, 4]: RuntimeError: the pilot" in output
    assert (tmp_path / "dataset" / "round_000.npz").exists()
    assert (tmp_path / "dataset" / "partial_001_1.npz").exists()
    assert (tmp_path / "checkpoints" / "last.ckpt").exists()


@pytest.mark.slow
def test_failing_environment_on_one_process_stops_both(tmp_path):
    more = ["--config=configs/trainer/ddp.yaml", "--trainer.accelerator=cpu", "--data.env_id=unreliable:HalfBroken-v0"]
    command = [*arguments("ppo-discrete", tmp_path, *SHARED, *METHODS["ppo-discrete"].exact), *more]
    codes, output = two_ranks(command, tmp_path)
    assert codes == [1, 1], output
    assert "process 1: environment 0 gave a reward that is not finite at step 27 since the last reset" in output
    assert "Traceback" not in output
    checkpoint = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["epoch"] == 0  # the previous epoch


DDP = ("--config=configs/trainer/ddp.yaml", "--trainer.accelerator=cpu")
ENDLESS = ("--trainer.max_epochs=100000", "--data.eval_episodes=2")
BOUND = 30.0
"""Seconds in which all processes of a run have to end: 20 are left to what survives the one that started it."""


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.1)
    assert condition()


def is_alive(pid: int) -> bool:
    """Whether a process runs; zombies do not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children_of(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found if "lit_imitation" in Path(f"/proc/{child}/cmdline").read_text()]


@pytest.mark.integration
@pytest.mark.parametrize("victim", [pytest.param(0, marks=pytest.mark.slow), 1])
@pytest.mark.parametrize("method", ["bc-discrete", pytest.param("ppo-discrete", marks=pytest.mark.slow)])
def test_killed_rank_ends_the_other(method, victim, tmp_path):
    began = []

    def kill(pids: list[int]) -> None:
        wait_for((tmp_path / "checkpoints" / "last.ckpt").exists)
        os.kill(pids[victim], signal.SIGKILL)
        began.append(time.monotonic())

    codes, output = two_ranks([*arguments(method, tmp_path), *METHODS[method].exact, *ENDLESS, *DDP], tmp_path, kill)
    assert time.monotonic() - began[0] < BOUND
    assert codes[victim] == -signal.SIGKILL
    assert codes[1 - victim] == 1, output
    assert f"process {1 - victim} of 2 stopped: another process of the run ended" in output
    assert f"resume with: lit-imitation fit --config {tmp_path}/config.yaml" in output
    assert "Traceback" not in output


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_killed_rank_ends_rank_launched_by_lightning(victim, tmp_path):
    process = launch([*arguments(LAUNCHED, tmp_path), *ENDLESS, *DDP])
    wait_for((tmp_path / "checkpoints" / "last.ckpt").exists)
    ranks = [process.pid, *children_of(process.pid)]
    assert len(ranks) == 2
    os.kill(ranks[victim], signal.SIGKILL)
    wait_for(lambda: not any(is_alive(pid) for pid in ranks), BOUND)
    output, _ = process.communicate()
    assert process.returncode != 0
    # Lightning kills the first process within five seconds, possibly before it prints the reason.
    assert any(text in output for text in ("another process of the run ended", "terminated with code -9")), output


@pytest.mark.slow
@pytest.mark.parametrize("told", [0, 1])
@pytest.mark.parametrize("round_", ["--model.learner.epochs=100000", "--data.steps_per_round=10000000"])
def test_sigterm_to_one_rank_ends_round_on_both(round_, told, tmp_path):
    began = []

    def terminate(pids: list[int]) -> None:
        wait_for((tmp_path / "config.yaml").exists)
        time.sleep(4.0)
        os.kill(pids[told], signal.SIGTERM)
        began.append(time.monotonic())
        if "steps_per_round" in round_:  # ranks do not communicate within a rollout
            os.kill(pids[1 - told], signal.SIGTERM)

    codes, output = two_ranks(
        [*arguments("ppo-discrete", tmp_path), "--data.num_envs=4", round_, *DDP], tmp_path, terminate
    )
    assert time.monotonic() - began[0] < 15.0
    assert codes == [143, 143], output
    assert "resume with: lit-imitation fit --config" in output
    assert "Traceback" not in output


@pytest.mark.slow
@pytest.mark.parametrize("told", [0, 1])
def test_sigterm_to_one_rank_saves_the_batches_of_all(told, tmp_path):
    """The resumed run ends with the weights of an uninterrupted one."""
    command = [*arguments("bc-discrete", tmp_path / "run"), *SHARED, *METHODS["bc-discrete"].exact, *DDP, DUMP]
    long = ["--data.passes_per_epoch=100", "--trainer.max_epochs=1", "--data.eval_episodes=0"]

    def terminate(pids: list[int]) -> None:
        wait_for((tmp_path / "run" / "metrics.csv").exists)
        os.kill(pids[told], signal.SIGTERM)

    codes, output = two_ranks([*command, *long], tmp_path, terminate)
    assert codes == [143, 143], output
    assert "which is saved; resume with: lit-imitation fit --config" in output
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] > 0
    assert two_ranks([*command, *long, "--ckpt_path=last"], tmp_path)[0] == [0, 0]
    alone = [one.replace(str(tmp_path / "run"), str(tmp_path / "alone")) for one in command]
    assert two_ranks([*alone, *long], tmp_path)[0] == [0, 0]
    for went_on, uninterrupted in zip(*(outcome(tmp_path / name)[0] for name in ("run", "alone")), strict=True):
        for name in went_on:
            assert torch.equal(went_on[name], uninterrupted[name]), name
