"""EPIC: its invariances, and its value in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lit_imitation import EPIC, Transitions
from lit_imitation.metrics.epic import pearson_distance

GAMMA = 0.9


def transitions(n=200, seed=0):
    g = torch.Generator().manual_seed(seed)
    s, a, z = (torch.randn(n, 2, generator=g, dtype=torch.float64) for _ in range(3))
    no = torch.zeros(n, dtype=torch.bool)
    return Transitions(
        observation=s,
        action=a,
        reward=no.float(),
        terminated=no,
        truncated=no,
        next_observation=z,
        batch_size=[n],
    )


def reward(t):
    return t.observation[:, 0] * t.action[:, 1] + torch.sin(3 * t.next_observation[:, 0]) + t.observation[:, 1]


def other(t):
    return t.observation.square().sum(-1) * t.action[:, 0]


def potential(x):
    return torch.cos(x[:, 0]) * x[:, 1] + 5 * x[:, 1].square()


def distance(one, two, **more):
    metric = EPIC(one, two, gamma=GAMMA, samples=64, **more)
    metric.update(transitions())
    return float(metric.compute())


@pytest.mark.integration
def test_epic_is_zero_for_equivalent_rewards():
    assert distance(reward, reward) == pytest.approx(0, abs=1e-7)
    assert distance(reward, lambda t: 3.7 * reward(t) - 11) == pytest.approx(0, abs=1e-7)

    def shaped(t):
        return 0.2 * reward(t) + GAMMA * potential(t.next_observation) - potential(t.observation)

    assert distance(reward, shaped) == pytest.approx(0, abs=1e-6)
    # Shaping with another discount factor does change the distance.
    assert distance(reward, lambda t: shaped(t) + 0.1 * potential(t.next_observation)) > 0.01


@pytest.mark.integration
def test_epic_is_largest_for_the_negated_reward():
    assert distance(reward, lambda t: -reward(t)) == pytest.approx(1)
    found = distance(reward, other)
    assert 0.3 < found < 0.95
    assert distance(other, reward) == pytest.approx(found)

    def shaped(t):
        return 2 * other(t) + GAMMA * potential(t.next_observation) - potential(t.observation)

    assert distance(reward, shaped) == pytest.approx(found, abs=1e-6)


def test_canonical_reward_matches_definition():
    data = transitions(5)
    metric = EPIC(reward, other, gamma=GAMMA, samples=3)
    sample = tuple(torch.randn(3, 2, dtype=torch.float64) for _ in range(3))
    found = metric._canonical(reward, (data.observation, data.action, data.next_observation), sample)

    def r(s, a, following):
        return float(s[0] * a[1] + math.sin(3 * following[0]) + s[1])

    for i in range(5):
        s, a, following = (x[i].tolist() for x in (data.observation, data.action, data.next_observation))
        triples = list(zip(*(x.tolist() for x in sample), strict=True))
        mean = [np.mean([r(x, b, z) for _, b, z in triples]) for x in (following, s)]
        everywhere = np.mean([r(x, b, z) for x, _, _ in triples for _, b, z in triples])
        assert float(found[i]) == pytest.approx(r(s, a, following) + GAMMA * mean[0] - mean[1] - GAMMA * everywhere)


def test_pearson_distance_of_known_pairs():
    x, y = torch.randn(2, 50, dtype=torch.float64)
    rho = np.corrcoef(x.numpy(), y.numpy())[0, 1]
    assert float(pearson_distance(x, y)) == pytest.approx(math.sqrt((1 - rho) / 2))
    assert float(pearson_distance(x, torch.ones(50))) == pytest.approx(math.sqrt(0.5))


def test_missing_successors_and_few_transitions_raise():
    metric = EPIC(reward, other)
    data = transitions(1)
    metric.update(data)
    with pytest.raises(ValueError, match="1 transitions are too few"):
        metric.compute()
    data.next_observation = None
    with pytest.raises(ValueError, match="no next_observation"):
        metric.update(data)
