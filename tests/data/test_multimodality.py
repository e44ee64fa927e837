"""Estimates on generated data whose number of actions per state is known."""

from __future__ import annotations

import numpy as np
import pytest

from lit_imitation.data.multimodality import _split, estimate_multimodality

EPISODES, STEPS = 60, 50


@pytest.fixture(scope="module")
def states():
    """`observations` `[N, 2]` of random walks from random starts, and `episode` `[N]`."""
    rng = np.random.default_rng(1)
    walk = rng.normal(size=(EPISODES, 1, 2)) + np.cumsum(rng.normal(size=(EPISODES, STEPS, 2)) * 0.15, 1)
    return walk.reshape(-1, 2), np.repeat(np.arange(EPISODES), STEPS)


def actions(kind: str, seen: np.ndarray, episode: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(2)
    weights = rng.normal(size=(2, 3))
    side = rng.choice([-1, 1], EPISODES)[episode]
    made = {
        "a function": np.tanh(seen @ weights),
        "a function at its bounds": np.clip(5 * seen @ weights, -1, 1),
        "normal noise": seen @ weights + 3 * rng.normal(size=(len(seen), 3)),
        "uniform noise": rng.uniform(-1, 1, (len(seen), 3)),
        "left or right": np.stack([side + 0.1 * rng.normal(size=len(seen)), seen[:, 0]], 1),
        "a choice": (seen @ weights).argmax(1),
        "one of two choices": np.where(side > 0, 1, 2),
    }
    return made[kind]


@pytest.mark.parametrize(
    ("kind", "spread", "several"),
    [
        ("a function", (0, 0.1), (0, 0.02)),
        ("a function at its bounds", (0, 0.2), (0, 0.1)),
        ("normal noise", (0.6, 1.1), (0, 0.05)),
        ("uniform noise", (0.9, 1.05), (0, 0.08)),
        ("left or right", (0.15, 0.6), (0.9, 1.0)),
        ("a choice", (0, 0.4), (0, 0.1)),
        ("one of two choices", (0.9, 1.0), (0.5, 1.0)),
    ],
)
def test_known_data_fall_into_their_class(states, kind, spread, several):
    found = estimate_multimodality(states[0], actions(kind, *states), states[1])
    assert spread[0] <= found.spread <= spread[1]
    assert several[0] <= found.several <= several[1]
    assert found.verdict.startswith(
        "several" if several[0] >= 0.5 else "noisy" if spread[0] >= 0.3 else "one action per state"
    )
    assert found.kind == ("discrete" if "choice" in kind else "continuous")
    assert found == estimate_multimodality(states[0], actions(kind, *states), states[1]), "it depends on nothing else"


def test_scales_and_constant_components_do_not_matter(states):
    seen, episode = states
    acted = actions("left or right", seen, episode)
    found = estimate_multimodality(seen, acted, episode)
    seen = np.concatenate([seen * [1e3, 1e-3] + 7, np.full((len(seen), 1), 5.0)], 1)
    other = estimate_multimodality(seen, np.concatenate([acted * 100, acted[:, :1] * 0], 1), episode)
    assert other.several == pytest.approx(found.several, abs=1e-6)
    assert other.spread == pytest.approx(found.spread, rel=1e-6)


def test_few_episodes_and_constant_data_give_no_estimate(states):
    seen, episode = states
    acted = actions("a function", seen, episode)
    few = episode < 8
    assert estimate_multimodality(seen[few], acted[few], episode[few]) is None
    assert estimate_multimodality(seen, acted * 0, episode) is None
    assert estimate_multimodality(seen * 0, acted, episode) is None
    assert estimate_multimodality(seen[:0], acted[:0], episode[:0]) is None


def test_far_neighbors_are_told():
    rng = np.random.default_rng(0)
    seen, episode = rng.normal(size=(200, 20)), np.repeat(np.arange(20), 10)
    found = estimate_multimodality(seen, np.sign(seen[:, :2]), episode)
    assert found.distance > 0.2
    assert found.verdict.endswith("or neighbors too far to tell")


def test_best_split_equals_that_of_all_splits():
    rng = np.random.default_rng(0)
    for _ in range(20):
        values = rng.normal(size=9)
        ordered = np.sort(values)
        within = min(ordered[:n].var() * n + ordered[n:].var() * (9 - n) for n in range(1, 9))
        assert _split(values)[0] == pytest.approx(1 - within / (values.var() * 9))
