"""The shipped policies, and policies written as arrays."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from lit_imitation import (
    CategoricalPolicy,
    DeterministicPolicy,
    GaussianPolicy,
    SquashedGaussianPolicy,
    load_expert,
    make,
)
from lit_imitation.errors import ExpertError
from lit_imitation.experts import SHIPPED, shipped_file
from lit_imitation.experts.arrays import load_arrays, save_arrays
from lit_imitation.rollout import Episodes

OBSERVATION = Box(-np.inf, np.inf, (5,))
ACTION = Box(np.array([-1, -2], np.float32), np.array([1, 4], np.float32))
MEASURED = json.loads((Path(__file__).parents[2] / "experiments" / "results" / "experts.json").read_text())
NEEDS = {"LunarLander": "Box2D", "Bipedal": "Box2D"}


@pytest.mark.slow
@pytest.mark.parametrize("row", MEASURED, ids=lambda row: row["task"])
def test_shipped_expert_is_small_and_reaches_its_return(row):
    for start, module in NEEDS.items():
        if row["env_id"].startswith(start) and find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    if row["env_id"].endswith("-v5") and find_spec("mujoco") is None:
        pytest.skip("mujoco is not installed")
    envs = make(row["env_id"], 3, seed=0, **row["env_kwargs"])
    assert shipped_file(row["env_id"], envs.single_action_space).stat().st_size <= 300_000
    expert = load_expert("shipped", row["env_id"], envs.single_observation_space, envs.single_action_space)
    returns = [episode.episode_return for episode in Episodes(envs, expert, 3, seed=0)]
    envs.close()
    # In all but about one of a thousand cases the mean of three is within this distance of the mean of a hundred.
    assert np.mean(returns) > row["return_mean"] - 3.1 * max(row["return_std"], 1e-3 * abs(row["return_mean"])) / 3**0.5


def test_every_shipped_file_is_in_the_table():
    assert {path.stem for path in SHIPPED.glob("*.npz")} == {
        row["env_id"] + ("-continuous" if row["env_kwargs"] else "") for row in MEASURED
    }


def test_missing_shipped_expert_lists_the_others():
    with pytest.raises(ExpertError, match=r"no expert for Nowhere-v0 is shipped; there is one for .*Hopper-v5"):
        load_expert("shipped", "Nowhere-v0", OBSERVATION, ACTION)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("cls", [CategoricalPolicy, GaussianPolicy, DeterministicPolicy, SquashedGaussianPolicy])
def test_policy_and_its_arrays_act_alike(cls, activation, tmp_path):
    torch.manual_seed(0)
    space = Discrete(3, start=1) if cls is CategoricalPolicy else ACTION
    policy = cls(OBSERVATION, space, hidden_sizes=[16, 8], activation=activation)
    policy.fit_normalizer(3.0 + 2.0 * torch.randn(100, 5))
    save_arrays(policy, tmp_path / "policy.npz", note="hello")
    observation = np.random.default_rng(0).normal(3, 2, (50, 5)).astype(np.float32)
    expert = load_arrays(tmp_path / "policy.npz", OBSERVATION, space)
    np.testing.assert_allclose(expert.act(observation), policy(observation), rtol=1e-4, atol=1e-5)


def test_saved_std_is_in_the_environments_units(tmp_path):
    policy = GaussianPolicy(OBSERVATION, ACTION, hidden_sizes=[4])
    policy.log_std.data.fill_(-1.0)
    save_arrays(policy, tmp_path / "policy.npz")
    with np.load(tmp_path / "policy.npz", allow_pickle=False) as arrays:
        np.testing.assert_allclose(np.exp(arrays["log_std"]), np.exp(-1.0) * np.array([1.0, 3.0]), rtol=1e-6)


def test_policy_that_arrays_cannot_hold_is_refused(tmp_path):
    with pytest.raises(ExpertError, match="depends on the state"):
        save_arrays(GaussianPolicy(OBSERVATION, ACTION, std="state"), tmp_path / "policy.npz")
    with pytest.raises(ExpertError, match="one tanh or relu MLP"):
        save_arrays(GaussianPolicy(OBSERVATION, ACTION, activation="gelu"), tmp_path / "policy.npz")
    squashed = SquashedGaussianPolicy(OBSERVATION, ACTION)
    squashed.scale.mul_(0.1)  # demonstrations that use a tenth of the box
    with pytest.raises(ExpertError, match="part of their box"):
        save_arrays(squashed, tmp_path / "policy.npz")
    assert not list(tmp_path.iterdir())
