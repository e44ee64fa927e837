"""What every method has to do, whatever it is: one and several environments, any backend, any accelerator."""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest
import torch
from suites import METHODS, arguments

from lit_imitation import load_policy
from lit_imitation.cli import main


def run(method, directory, *more):
    main(arguments(method, directory, "--trainer.max_epochs=1", *more))
    return json.loads((directory / "summary.json").read_text())


@pytest.mark.parametrize("num_envs", [1, 2])
@pytest.mark.parametrize("method", sorted(METHODS))
def test_one_and_two_environments(method, num_envs, tmp_path):
    assert run(method, tmp_path, f"--data.num_envs={num_envs}")["episodes"] == 5


@pytest.mark.parametrize("backend", ["sync", "async", "envpool"])
@pytest.mark.parametrize("method", sorted(METHODS))
def test_backends(method, backend, tmp_path):
    if backend == "envpool" and find_spec("envpool") is None:
        pytest.skip("envpool is not installed")
    more = []
    if backend == "envpool" and method.startswith("gcl"):  # it cannot cut episodes short, and whole ones must fit in
        more = ["--data.env_kwargs={}", "--data.steps_per_round=501"]
    assert run(method, tmp_path, f"--data.backend={backend}", *more)["episodes"] == 5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("method", sorted(METHODS))
def test_gpu(method, tmp_path):
    assert run(method, tmp_path, "--trainer.accelerator=gpu", "--trainer.devices=1")["episodes"] == 5
    assert load_policy(tmp_path).device.type == "cpu"
