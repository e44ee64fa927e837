"""Several processes: identical weights on all, evaluation counted once, and the result of one process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import finish, start
from suites import METHODS, arguments, every_method

# 7 episodes on 3 environments, so that shares are unequal.
SHARED = ["--data.num_envs=3", "--data.test_episodes=7", "--trainer.max_epochs=3"]
DUMP = "--trainer.callbacks+=dump_weights.DumpWeights"
LAUNCHED = "bc-discrete"
"""The method whose processes are started as users start them, by Lightning and by torchrun."""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def launch(command: list[str], *prefix: str, **environment: str) -> subprocess.Popen[str]:
    tests = Path(__file__).parent
    path = os.pathsep.join([str(tests), str(tests.parent)])
    return subprocess.Popen(
        [*(prefix or (sys.executable,)), "-m", "lit_imitation", *command],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def two_ranks(command: list[str], directory: Path) -> tuple[list[int | None], str]:
    """Exit codes and what both said, started as a cluster's scheduler does, which spares each rank the imports."""
    port, said = free_port(), [directory / f"said_{rank}.txt" for rank in range(2)]
    ranks = [
        start(command, said[rank], LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        for rank in range(2)
    ]
    for process in ranks:
        process.join(180)
    return [process.exitcode for process in ranks], "".join(file.read_text() for file in said)


def outcome(directory: Path) -> tuple[list[dict[str, torch.Tensor]], dict[str, object]]:
    ranks = [torch.load(file, weights_only=True) for file in sorted(directory.glob("weights_*.pt"))]
    return ranks, json.loads((directory / "summary.json").read_text())


@pytest.fixture(scope="module", params=every_method())
def one_process(request, tmp_path_factory):
    if METHODS[request.param].online:  # on two processes other episodes are lived through: no sum is one process's
        return request.param, None
    directory = tmp_path_factory.mktemp("one")
    command = arguments(request.param, directory, *SHARED, *METHODS[request.param].exact, DUMP)
    finish(command, directory / "said.txt")
    return request.param, outcome(directory)


def check_same(outcome_of_one, directory: Path) -> None:
    method, of_one = outcome_of_one
    (first, second), summary = outcome(directory)
    assert summary["episodes"] == 7
    for name in first:
        assert torch.equal(first[name], second[name]), name
    if of_one is None:
        # 3 epochs of 3 rounds of 24 steps in 4 environments, but for the steps in which one only starts anew.
        assert 0.9 * 864 < float(first["env_steps"]) <= 864
        if method.startswith("sac"):  # as many as are due for the steps behind the policy that scored best
            assert summary["gradient_steps"] == int(0.1 * (summary["env_steps"] - 100) / 2)
        return
    (alone,), summary_of_one = of_one
    for name in alone:
        torch.testing.assert_close(first[name], alone[name], rtol=1e-4, atol=1e-5)
    assert summary["gradient_steps"] == summary_of_one["gradient_steps"]
    np.testing.assert_allclose(summary["expert_return"], summary_of_one["expert_return"])


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
    assert "sync_dist" not in output  # Lightning's remark on every figure that it cannot know to be the same
    check_same((method, expected), tmp_path)
    if method == "bc-continuous":  # each environment has a stream of its own there: the very same episodes
        np.testing.assert_allclose(outcome(tmp_path)[1]["return_mean"], expected[1]["return_mean"], rtol=0.05)


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


def test_an_expert_that_fails_on_one_process_stops_both(tmp_path):
    more = ["--config=configs/trainer/ddp.yaml", "--trainer.accelerator=cpu"]
    more += ["--trainer.callbacks.expert=unreliable:expert"]
    command = [*arguments("dagger-discrete", tmp_path, *SHARED, *METHODS["dagger-discrete"].exact), *more]
    codes, output = two_ranks(command, tmp_path)
    assert codes == [1, 1], output
    assert "round 1, step 7: RuntimeError: the pilot has left" in output
    assert (tmp_path / "dataset" / "round_000.npz").exists()
    assert (tmp_path / "dataset" / "partial_001_1.npz").exists()
    assert (tmp_path / "checkpoints" / "last.ckpt").exists()


def test_an_environment_that_fails_on_one_process_stops_both(tmp_path):
    more = ["--config=configs/trainer/ddp.yaml", "--trainer.accelerator=cpu", "--data.env_id=unreliable:HalfBroken-v0"]
    command = [*arguments("ppo-discrete", tmp_path, *SHARED, *METHODS["ppo-discrete"].exact), *more]
    codes, output = two_ranks(command, tmp_path)
    assert codes == [1, 1], output
    assert "process 1: environment 0 gave a reward that is not finite at step 27 since the last reset" in output
    assert "Traceback" not in output
    checkpoint = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["epoch"] == 0  # that of the epoch before
