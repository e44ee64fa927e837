"""Evaluation on several processes gives the same episodes as on one."""

from __future__ import annotations

from types import SimpleNamespace

import counting  # noqa: F401  registers the environments
import numpy as np
import pytest
import torch

from lit_imitation.data.module import EnvironmentDataModule
from lit_imitation.policies import DeterministicPolicy, FlowPolicy
from lit_imitation.transitions import Transitions


def actor(observation):
    """Random actor whose actions depend on the observation, so the test covers its random streams too."""
    threshold = 0.5 + 0.2 * np.sin(observation.sum(-1))
    return (torch.rand(len(observation)).numpy() > threshold).astype(np.int64)


def shared_out(env_id, backend, world, episodes=11, record=False):
    parts = []
    for rank in range(world):
        data = EnvironmentDataModule(env_id, num_envs=4, backend=backend, seed=3)
        module = SimpleNamespace(actor=lambda: actor)
        data.trainer = SimpleNamespace(global_rank=rank, world_size=world, lightning_module=module)
        loader = data.rollouts("validation", episodes, record=record)
        run = loader.run()
        assert len(run) == len(loader)
        found = list(run)
        assert len(found) == len(loader)
        parts.append(run.transitions() if record else [one[1:3] for one in found])
        data.teardown("validate")
    return parts


@pytest.mark.parametrize("env_id", ["CartPole-v1", "counting:Counting-v0"])
def test_processes_do_not_change_evaluation_on_one_stream(env_id):
    (alone,) = shared_out(env_id, "vector", 1)
    for world in (2, 3):
        together = [one for part in shared_out(env_id, "vector", world) for one in part]
        assert sorted(together) == sorted(alone)


def test_processes_do_not_change_recorded_trajectories():
    (alone,) = shared_out("CartPole-v1", "auto", 1, record=True)
    together = Transitions.concatenate(shared_out("CartPole-v1", "auto", 3, record=True))
    assert torch.equal(together.observation, alone.observation)
    assert torch.equal(together.done, alone.done)


def test_environments_with_own_streams_run_on_one_process():
    played = [len(part) for part in shared_out("CartPole-v1", "sync", 2)]
    assert played == [6, 5]


@pytest.mark.parametrize(
    ("policy", "deterministic", "noted"),
    [(FlowPolicy, True, True), (FlowPolicy, False, False), (DeterministicPolicy, True, False)],
)
def test_plans_without_noise_are_noted(policy, deterministic, noted, capfd):
    data = EnvironmentDataModule("Pendulum-v1", num_envs=1, eval_deterministic=deterministic, seed=3)
    played = policy(*data.spaces)
    module = SimpleNamespace(policy=played, actor=played.actor)
    data.trainer = SimpleNamespace(global_rank=0, world_size=1, lightning_module=module)
    loader = data.rollouts("validation", 1, record=False)
    for _ in range(2):
        list(loader)
    data.teardown("validate")
    assert capfd.readouterr().err.count("set data.eval_deterministic to false") == noted
