"""Requirements on every method: one and several environments, any backend, any accelerator."""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest
import torch
from suites import METHODS, arguments, every_method

from lit_imitation import load_policy
from lit_imitation.cli import main


def run(method, directory, *more):
    main(arguments(method, directory, "--trainer.max_epochs=1", *more))
    return json.loads((directory / "summary.json").read_text())


@pytest.mark.parametrize(("num_envs", "backend"), [pytest.param(1, "async", marks=pytest.mark.slow), (2, "envpool")])
@pytest.mark.parametrize("method", every_method({"ppo-discrete"}))
def test_method_runs_on_any_backend_with_one_or_two_envs(method, num_envs, backend, tmp_path):
    """The default backend with three environments is covered by the tests of resumption and of several processes."""
    if backend == "envpool" and find_spec("envpool") is None:
        pytest.skip("envpool is not installed")
    if backend == "envpool" and "cameras" in method:
        pytest.skip("envpool does not provide the environment")
    more = []
    if backend == "envpool" and method.startswith("gcl"):  # envpool cannot shorten episodes, and GCL needs whole ones
        more = ["--data.env_kwargs={}", f"--data.steps_per_round={501 if method == 'gcl-discrete' else 201}"]
    more += [f"--data.num_envs={num_envs}", f"--data.backend={backend}"]
    assert run(method, tmp_path, *more)["episodes"] == 5 * METHODS[method].plays


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("method", every_method())
def test_method_trains_on_gpu(method, tmp_path):
    assert (
        run(method, tmp_path, "--trainer.accelerator=gpu", "--trainer.devices=1")["episodes"]
        == 5 * METHODS[method].plays
    )
    assert load_policy(tmp_path).device.type == "cpu"
