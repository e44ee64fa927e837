"""Feature vectors of discriminators."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete

from lit_imitation import GuidedCost, LinearReward, Transitions
from lit_imitation.errors import ConfigError, UnsupportedSpaceError
from lit_imitation.rewards.features import ActionFeatures, Features, Samples

STATE = Box(-np.inf, np.inf, (2,))
ARM = Box(np.array([-1, 0], np.float32), np.array([3, 10], np.float32))


def transitions(n=3, action=None):
    torch.manual_seed(0)
    return Transitions(
        observation=torch.randn(n, 2),
        action=torch.rand(n, 2) if action is None else action,
        reward=torch.zeros(n),
        terminated=torch.tensor([False, True, False])[:n],
        truncated=torch.tensor([False, False, True])[:n],
        next_observation=torch.randn(n, 2),
        batch_size=[n],
    )


def test_continuous_actions_are_scaled_and_clipped():
    action = torch.tensor([[-1.0, 0.0], [1.0, 5.0], [3.0, 10.0], [100.0, -100.0]])
    found = ActionFeatures(ARM)(action)
    assert found.tolist() == [[-1, -1], [0, 0], [1, 1], [1, -1]]


def test_unbounded_actions_are_unchanged():
    action = torch.tensor([[5.0, -7.0]])
    assert torch.equal(ActionFeatures(Box(-np.inf, np.inf, (2,)))(action), action)


def test_half_bounded_actions_are_clipped():
    """Dimensions with two bounds, none, a lower bound only, and a single value."""
    low, high = np.array([[-1, -np.inf, 2, 4], [3, np.inf, np.inf, 4]], np.float32)
    found = ActionFeatures(Box(low, high))(torch.tensor([[9.0, 9.0, 9.0, 9.0], [-9.0, -9.0, -9.0, -9.0]]))
    assert found.tolist() == [[1, 9, 6, 0], [-1, -9, -1, 0]]  # one unit inside the lower bound; the single value


def test_demonstrations_define_action_units_in_wide_bounds():
    features = ActionFeatures(Box(np.float32([-1e10, -1]), np.float32([1e10, 1])))
    features.fit(torch.tensor([[2.0, -0.5], [6.0, 0.5]]))
    assert features(torch.tensor([[2.0, -0.5], [6.0, 0.5], [4.0, 2.0]])).tolist() == [[-1, -0.5], [1, 0.5], [0, 1]]
    again = ActionFeatures(Box(np.float32([-1e10, -1]), np.float32([1e10, 1])))
    again.load_state_dict(features.state_dict())
    assert again(torch.tensor([[6.0, 0.5]])).tolist() == [[1, 0.5]]


def test_missing_successors_raise():
    data = transitions()
    data.next_observation = None
    with pytest.raises(ValueError, match=r"no next_observation \[N, \*obs\]"):
        Samples.from_transitions(data)


def test_discrete_actions_are_one_hot():
    assert ActionFeatures(Discrete(3, start=-1))(torch.tensor([-1, 1])).tolist() == [[1, 0, 0], [0, 0, 1]]
    several = ActionFeatures(MultiDiscrete([2, 3], start=[0, 5]))
    assert several(torch.tensor([[1, 5], [0, 7]])).tolist() == [[0, 1, 1, 0, 0], [1, 0, 0, 0, 1]]
    with pytest.raises(UnsupportedSpaceError, match="not Dict"):
        ActionFeatures(Dict(a=Discrete(2)))


@pytest.mark.parametrize("inputs", ["state", "state_action", "transition"])
@pytest.mark.parametrize("absorbing", [False, True])
def test_features_contain_named_inputs(inputs, absorbing):
    features = Features(STATE, ARM, inputs, absorbing)
    data = transitions()
    samples = Samples.from_transitions(data, absorbing=absorbing)
    found = features(samples)
    assert found.shape == (len(samples.absorbing), features.out_features)
    state = data.observation
    if absorbing:
        assert len(found) == 4  # one of two episodes terminated
        state = torch.cat([state, torch.zeros(3, 1)], 1)
        assert found[3, :3].tolist() == [0, 0, 1]
    assert torch.equal(found[:3, : state.shape[1]], state)
    rest = found[:, state.shape[1] :]
    if inputs == "state_action":
        assert torch.equal(rest[:3], ActionFeatures(ARM)(data.action))
        assert not rest[3:].any()  # no action after the end
    elif inputs == "transition":
        following = data.next_observation.clone()
        if absorbing:
            following[1] = 0
            following = torch.cat([following, torch.tensor([[0.0], [1.0], [0.0]])], 1)
            assert rest[3].tolist() == [0, 0, 1]
        assert torch.equal(rest[:3], following)
    else:
        assert rest.shape[1] == 0


def test_unknown_inputs_raise():
    with pytest.raises(ConfigError, match="inputs is 'action'; choose one of state, state_action, transition"):
        LinearReward(Discrete(3), Discrete(2), 0, inputs="action")


@pytest.mark.parametrize("inputs", ["action", "transition"])
def test_guided_cost_rejects_transition_inputs(inputs):
    with pytest.raises(ConfigError, match=f"inputs is '{inputs}'; choose state or state_action"):
        GuidedCost(STATE, ARM, inputs=inputs)


def test_sample_indices_with_replacement():
    samples = Samples.from_transitions(transitions())
    selected = samples.rows(samples.sample_indices(1000))
    assert {tuple(row) for row in selected.observation.tolist()} == {tuple(row) for row in samples.observation.tolist()}


def test_processes_sample_different_rows(monkeypatch):
    """Their streams are equal; together they get what one process samples of twice as many."""
    never = torch.zeros(1000, dtype=torch.bool)
    samples = Samples(*torch.zeros(3, 1000, 1), never, never)
    torch.manual_seed(0)
    whole = samples.sample_indices(64)
    parts = []
    monkeypatch.setattr("lit_imitation.utils.sampling.world_size", lambda: 2)
    for rank in range(2):
        monkeypatch.setattr("lit_imitation.utils.sampling.rank", lambda rank=rank: rank)
        torch.manual_seed(0)
        parts.append(samples.sample_indices(32))
    assert torch.equal(torch.stack(parts, 1).flatten(), whole)
