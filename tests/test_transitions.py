"""`Transitions` against plain loops over a list of episodes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_imitation.transitions import Transitions

endings = st.sampled_from([(True, False), (False, True), (True, True)])
episode_lists = st.lists(st.tuples(st.integers(1, 6), endings), min_size=1, max_size=8)


def record(episodes, seed=0):
    """A flat record of episodes `(length, (terminated, truncated))`, and the rewards of each."""
    rng = np.random.default_rng(seed)
    n = sum(length for length, _ in episodes)
    done = np.zeros((n, 2), bool)
    done[np.cumsum([length for length, _ in episodes]) - 1] = [ending for _, ending in episodes]
    reward = rng.normal(size=n).astype(np.float32)
    observation = np.arange(n * 2.0).reshape(n, 2)
    arrays = {
        "observation": observation,
        "action": np.arange(n),
        "reward": reward,
        "terminated": done[:, 0],
        "truncated": done[:, 1],
        "next_observation": observation + 2,
    }
    return Transitions.from_numpy(arrays), np.split(reward, np.cumsum([length for length, _ in episodes])[:-1])


@settings(max_examples=30, deadline=None)
@given(episode_lists)
def test_episodes_of_flat_record_match_list(episodes):
    transitions, rewards = record(episodes)
    lengths = [length for length, _ in episodes]
    assert transitions.episode_lengths().tolist() == lengths
    assert transitions.episode_index().tolist() == np.repeat(np.arange(len(lengths)), lengths).tolist()
    assert int(transitions.done.sum()) == len(episodes)
    assert list(zip(*(x[transitions.done].tolist() for x in (transitions.terminated, transitions.truncated)))) == [  # noqa: B905
        ending for _, ending in episodes
    ]
    returns = transitions.episode_returns()
    assert returns.dtype == torch.float64
    np.testing.assert_allclose(returns.numpy(), [x.astype(np.float64).sum() for x in rewards], rtol=1e-12, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(episode_lists, st.data())
def test_selected_episodes_are_whole_and_in_order(episodes, data):
    transitions, rewards = record(episodes)
    chosen = data.draw(st.lists(st.integers(0, len(episodes) - 1), max_size=10))
    selected = transitions.select_episodes(torch.tensor(chosen, dtype=torch.int64))
    assert selected.reward.tolist() == [float(x) for index in chosen for x in rewards[index]]
    assert len(selected) == sum(episodes[index][0] for index in chosen)
    assert selected.episode_lengths().tolist() == [episodes[index][0] for index in chosen]
    starts = np.cumsum([0] + [length for length, _ in episodes])
    rows = [row for index in chosen for row in range(starts[index], starts[index + 1])]
    assert selected.action.tolist() == rows
    assert torch.equal(selected.next_observation, transitions.next_observation[rows])


def test_returns_are_summed_in_double_precision():
    n = 200_000
    arrays = {name: np.zeros(n, bool) for name in ("terminated", "truncated")}
    arrays["truncated"][-1] = True
    arrays |= {"observation": np.zeros((n, 1)), "action": np.zeros(n, int), "reward": np.full(n, 0.1, np.float32)}
    total = Transitions.from_numpy(arrays).episode_returns()
    assert total.item() == pytest.approx(n * float(np.float32(0.1)), rel=1e-12)


@pytest.mark.parametrize(
    ("given_dtype", "wanted"),
    [
        ("float64", torch.float32),
        ("float32", torch.float32),
        ("float16", torch.float32),
        (">f8", torch.float32),
        ("int32", torch.int64),
        (">i4", torch.int64),
        ("bool", torch.int64),
        ("uint8", torch.uint8),
    ],
)
def test_observation_dtypes_are_converted(given_dtype, wanted):
    values = np.array([[0, 1], [1, 0], [1, 1]])
    arrays = {name: np.zeros(3, bool) for name in ("terminated", "truncated")}
    arrays |= {"observation": values.astype(given_dtype), "action": np.zeros(3, int), "reward": np.zeros(3)}
    transitions = Transitions.from_numpy(arrays)
    assert transitions.observation.dtype == wanted
    assert transitions.observation.tolist() == values.tolist()


def test_column_dtypes_are_converted():
    arrays = {
        "observation": np.zeros((2, 3)),
        "action": np.array([1, 255], np.uint8),  # only images stay uint8, because arithmetic needs wider types
        "reward": np.array([1, 2], np.uint8),
        "terminated": np.array([0.0, 1.0]),
        "truncated": np.array([0, 0], np.int64),
        "weight": np.array([1, 2]),
        "log_prob": np.array([-0.5, -1.5]),
    }
    transitions = Transitions.from_numpy(arrays)
    kinds = {name: getattr(transitions, name).dtype for name in arrays if name != "observation"}
    float32, boolean = torch.float32, torch.bool
    assert kinds == {
        "action": torch.int64,
        "reward": float32,
        "terminated": boolean,
        "truncated": boolean,
        "weight": float32,
        "log_prob": float32,
    }
    assert transitions.action.tolist() == [1, 255]
    assert transitions.done.tolist() == [False, True]
    assert transitions.next_observation is None


def test_array_views_are_accepted():
    backwards = np.arange(6.0).reshape(3, 2)[::-1]
    arrays = {name: np.zeros(3, bool) for name in ("terminated", "truncated")}
    arrays |= {"observation": backwards, "action": np.zeros((3, 2)).T[0:2].T, "reward": np.zeros(6)[::2]}
    transitions = Transitions.from_numpy(arrays)
    assert transitions.batch_size == torch.Size([3])
    assert transitions.observation.tolist() == backwards.tolist()


def test_index_applies_to_all_columns():
    transitions, _ = record([(3, (True, False)), (2, (False, True))])
    part = transitions[torch.tensor([4, 0])]
    assert part.action.tolist() == [4, 0]
    assert part.truncated.tolist() == [True, False]
    assert torch.cat([part, transitions]).batch_size == torch.Size([7])


def test_keep_truncates_trajectories_without_their_end():
    """Three trajectories of 3, 2 and 2 steps; the second disappears."""
    done = torch.tensor([0, 0, 1, 0, 1, 0, 1], dtype=torch.bool)
    transitions = Transitions(
        observation=torch.arange(7.0)[:, None],
        action=torch.zeros(7, dtype=torch.int64),
        reward=torch.ones(7),
        terminated=done,
        truncated=torch.zeros(7, dtype=torch.bool),
        next_observation=torch.arange(1.0, 8.0)[:, None],
        batch_size=[7],
    )
    kept = transitions.keep(torch.tensor([1, 1, 0, 0, 0, 0, 1], dtype=torch.bool))
    assert kept.observation.flatten().tolist() == [0, 1, 6]
    assert kept.next_observation.flatten().tolist() == [1, 2, 7]
    assert kept.terminated.tolist() == [False, False, True]
    assert kept.truncated.tolist() == [False, True, False]
    assert transitions.truncated.sum() == 0  # the record itself is unchanged
    assert len(transitions.keep(torch.zeros(7, dtype=torch.bool))) == 0


def test_tensors_keep_their_device():
    arrays = {name: np.zeros((4, 2)) for name in ("observation", "reward", "terminated", "truncated")}
    record = Transitions.from_numpy(arrays, action=torch.empty(4, 2, 1, device="meta"))
    assert record.batch_size == (4, 2)
    assert record.action.device.type == "meta"
    assert record.reward.device.type == "cpu"
