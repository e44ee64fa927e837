"""MCE IRL of the `imitation` library in its random-transition environment, from a recorded fixture.

`python -m experiments speed maxent_irl --fixture` records it again (`experiments/speed/imitation_maxent_irl.py`, in an
environment with that library).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lit_imitation.tabular import Planning, RewardTable, TabularMDP, log_partition, occupancy, solve

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def fixture_data():
    with np.load(Path(__file__).with_name("imitation_mce_irl.npz"), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def all_visits(mdp, policy, planning):
    """State visits including the state after the last step, as `imitation` counts them."""
    longer = torch.cat([policy, policy[-1:]])
    return occupancy(mdp, longer, {0: mdp.start}, Planning(planning.horizon + 1, planning.gamma)).sum(1)


@pytest.mark.parametrize("gamma", [1.0, 0.9])
@pytest.mark.parametrize("name", ["true", "recovered"])
def test_values_policy_and_occupancy_match_imitation(fixture_data, name, gamma):
    mdp = TabularMDP(fixture_data["transitions"].astype(np.float64), fixture_data["start"])
    planning = Planning(len(fixture_data["true_value_1.0"]), gamma)
    reward = RewardTable(torch.from_numpy(fixture_data["reward" if name == "true" else "recovered_reward"]).double())
    value, policy = solve(mdp, reward, planning)
    expected = {key: fixture_data[f"{name}_{key}_{gamma}"] for key in ("value", "policy", "visits")}
    np.testing.assert_allclose(value[:-1], expected["value"], rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(policy, expected["policy"], rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(all_visits(mdp, policy, planning), expected["visits"], rtol=0, atol=TOLERANCE)


def test_recovered_rewards_give_same_visits(fixture_data):
    """Both have to match the visits under the true reward; `imitation` was trained until it did, to 2e-5."""
    mdp = TabularMDP(fixture_data["transitions"].astype(np.float64), fixture_data["start"])
    horizon = len(fixture_data["true_value_1.0"])
    planning, features = Planning(horizon, 1.0), torch.from_numpy(fixture_data["features"]).double()
    expert = solve(mdp, RewardTable(torch.from_numpy(fixture_data["reward"]).double()), planning).policy
    demonstrated = occupancy(mdp, expert, {0: mdp.start}, planning).sum(1)
    weights = torch.zeros(features.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=500, line_search_fn="strong_wolfe", tolerance_grad=1e-10)

    def closure():
        optimizer.zero_grad()
        reward = features @ weights
        partition, _ = log_partition(mdp, RewardTable(reward), {0: mdp.start}, planning)
        loss = partition - demonstrated @ reward
        loss.backward()
        return loss

    optimizer.step(closure)
    policy = solve(mdp, RewardTable((features @ weights).detach()), planning).policy
    visits = all_visits(mdp, policy, planning)
    np.testing.assert_allclose(visits, fixture_data["recovered_visits"], rtol=0, atol=TOLERANCE)
    recorded, recovered = fixture_data["recovered_reward"], (features @ weights).detach().numpy()
    assert np.corrcoef(recorded, recovered)[0, 1] > 0.999
