"""Metrics of a recovered reward against the true one."""

from __future__ import annotations

import re

import gymnasium
import numpy as np
import pytest
import torch

from lit_imitation import ExpectedValueDifference, GridWorld, TabularMDP
from lit_imitation.metrics.epic import EPIC, pearson_distance
from lit_imitation.metrics.reward_recovery import expected_value, reward_function, sample_transitions, to_transitions
from lit_imitation.tabular import BinaryWorld, Planning, RewardTable, solve


def test_expected_value_difference_matches_definition():
    world, planning = GridWorld(4, seed=1), Planning(gamma=0.9, tolerance=1e-9)
    metric = ExpectedValueDifference(planning)
    metric.update(world, RewardTable(3 * world.reward.values + 2))  # equivalent to the true reward
    assert float(metric.compute()["expected_value_difference"]) == pytest.approx(0, abs=1e-5)
    metric.reset()
    metric.update(world, RewardTable(-world.reward.values))
    worst = solve(world, RewardTable(-world.reward.values), Planning(gamma=0.9, tolerance=1e-9, entropy="none"))
    best = solve(world, world.reward, Planning(gamma=0.9, tolerance=1e-9, entropy="none"))
    expected = world.start @ (best.value + worst.value)
    assert float(metric.compute()["expected_value_difference"]) == pytest.approx(float(expected), abs=1e-5)
    assert float(expected_value(world, best.policy, planning)) == pytest.approx(
        float(world.start @ best.value), abs=1e-6
    )
    with pytest.raises(ValueError, match="the true reward of this world is not known"):
        metric.update(TabularMDP(np.full((2, 1, 2), 0.5)), RewardTable(torch.zeros(2)))


@pytest.mark.slow
@pytest.mark.integration
def test_potential_shaping_does_not_change_epic():
    world, gamma = BinaryWorld(6, seed=0), 0.9
    generator = torch.Generator().manual_seed(0)

    def potential():
        phi = torch.randn(world.num_states, generator=generator).double()
        return lambda t: gamma * phi[t.next_observation] - phi[t.observation]

    truth = reward_function(world, world.reward)
    noise = torch.randn(world.num_states, generator=generator).double()
    recovered = [
        reward_function(world, RewardTable(world.reward.values + size * noise)) for size in (0.0, 0.3, 1.0, 4.0)
    ]

    def distances(shape):
        found = []
        for reward in recovered:
            phi = potential()
            shaped = (lambda t, reward=reward, phi=phi: 2 * reward(t) + phi(t)) if shape else reward
            epic = EPIC(truth, shaped, gamma, samples=32)
            epic.update(sample_transitions(world))
            found.append(float(epic.compute()))
        return found

    plain, shaped = distances(False), distances(True)
    np.testing.assert_allclose(shaped, plain, atol=1e-6)
    assert plain[0] == pytest.approx(0, abs=1e-6)
    assert plain == sorted(plain)


def test_reward_table_and_function_agree():
    p = np.array([[[0.5, 0.5, 0]], [[0, 0, 1]], [[0, 0, 0]]])
    world = TabularMDP(p, terminal=[False, False, True], reward=np.arange(9.0).reshape(3, 1, 3))
    transitions = sample_transitions(world)
    s, z = transitions.observation, transitions.next_observation
    assert to_transitions(world, world.reward).tolist() == [0, 1, 5]
    by_action = RewardTable(torch.tensor([[3.0], [4.0], [9.0]]).double(), "state_action")
    torch.testing.assert_close(reward_function(world, by_action)(transitions), (3 + s).double())
    rewards = reward_function(world, RewardTable(torch.tensor([1.0, 2.0, 10.0]).double()))(transitions)
    torch.testing.assert_close(rewards, torch.where(z == 2, 12.0, 1.0).double())
    assert re.match(r"TabularMDP\(3 states, 1 actions, 3 transitions", repr(world))


@pytest.mark.integration
@pytest.mark.parametrize(("env_id", "inputs"), [("FrozenLake8x8-v1", "state"), ("Taxi-v4", "state_action")])
def test_transition_reward_is_simplified(env_id, inputs):
    """Toy-text tables have transition rewards that depend on the state, or on state and action, alone."""
    world = TabularMDP.from_env(gymnasium.make(env_id))
    assert world.reward.inputs == "transition"
    if inputs == "state":
        goal = torch.zeros(64).double()
        goal[63] = 1.0
        written = RewardTable(goal)
    else:
        written = RewardTable(world.sum_outgoing(world.probability * world.reward.values).T, inputs)
    torch.testing.assert_close(to_transitions(world, written), world.reward.values)
    epic = EPIC(reward_function(world, written), reward_function(world, world.reward), samples=16)
    epic.update(sample_transitions(world))
    assert float(epic.compute()) == pytest.approx(0, abs=1e-6)
    other = RewardTable(torch.randn(written.values.shape, generator=torch.Generator().manual_seed(0)).double(), inputs)
    epic = EPIC(reward_function(world, other), reward_function(world, world.reward), samples=16)
    epic.update(sample_transitions(world))
    assert float(epic.compute()) > 0.5
    assert float(pearson_distance(to_transitions(world, other), to_transitions(world, world.reward))) > 0.5


def test_transition_reward_has_no_function_of_pairs():
    world = BinaryWorld(4, seed=0)
    noise = torch.randn(len(world.successor), generator=torch.Generator().manual_seed(0)).double()
    assert reward_function(world, RewardTable(noise, "transition")) is None
