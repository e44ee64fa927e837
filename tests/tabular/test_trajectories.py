"""Tabular demonstrations: input formats and errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lit_imitation import GridWorld, TabularMDP
from lit_imitation.data.trajectories import read_trajectories
from lit_imitation.errors import DemonstrationError
from lit_imitation.tabular import Planning, Trajectories, occupancy, solve
from lit_imitation.tabular.trajectories import UNKNOWN, sample_trajectories

# 0 → 1 → 2 → 3 (terminal) by action 0; action 1 stays, except in 2, where it also leads to 3. Nothing leads to 4.
P = np.zeros((5, 2, 5))
P[[0, 1, 2], 0, [1, 2, 3]] = P[[0, 1], 1, [0, 1]] = P[2, 1, 3] = P[4, :, 0] = 1
WORLD = TabularMDP(P, [0.5, 0.5, 0, 0, 0], terminal=[False, False, False, True, False])


@pytest.mark.parametrize(
    ("trajectories", "text"),
    [
        ([([0, 1], [0]), ([0, 1, 7], [0, 0])], "trajectory 1, step 1: next state 7 does not exist; valid are 0 to 4"),
        ([([0, 1], [0]), ([0, -1, 1], [0, 0])], "trajectory 1, step 1: state -1 does not exist"),
        ([([0, 1, 2], [0, 2])], "trajectory 0, step 1: action 2 does not exist; valid are 0 to 1"),
        ([([0, 1, 2, 1], [0, 0, 0])], "trajectory 0, step 2: action 0 in state 2 leads to state 1 with probability 0"),
        ([([0, 1], [0]), ([2, 3, 3], [0, 0])], "trajectory 1, step 1: goes on from state 3, which is terminal"),
        ([[1, 2], [4, 0, 1]], "trajectory 1, step 0: state 4 cannot be reached"),
        ([[0, 2]], "trajectory 0, step 0: no action leads from state 0 to 2"),
        ([[1, 2, 3]], "trajectory 0, step 1: several actions lead from state 2 to 3, and none is recorded"),
        ([[0, 1], [0] * 12], "trajectory 1: 11 steps exceed model.horizon 10"),
    ],
)
def test_errors_name_trajectory_and_step(trajectories, text, tmp_path):
    with pytest.raises(DemonstrationError, match=f"data.demonstrations, {text}"):
        Trajectories.from_arrays(trajectories).check(WORLD, "state_action", 10)
    file = tmp_path / "mine.npz"
    pairs = [one if isinstance(one, tuple) else (one, None) for one in trajectories]
    columns = {"states": np.concatenate([s for s, _ in pairs]), "lengths": [len(s) - 1 for s, _ in pairs]}
    if pairs[0][1] is not None:
        columns["actions"] = np.concatenate([a for _, a in pairs])
    np.savez(file, **columns)
    with pytest.raises(DemonstrationError, match=f"mine.npz, {text}"):
        read_trajectories(str(file)).check(WORLD, "state_action", 10)


@pytest.mark.parametrize(
    ("trajectories", "text"),
    [
        ([], "no trajectories"),
        ([[0]], "trajectory 0: states are int64"),
        ([[0, 1], [0.5, 1.0]], "trajectory 1: states are float64"),
        ([([0, 1, 2], [0])], "trajectory 0: 3 states and actions int64"),
        ([[0, 1], [[0, 1, 2], [0]]], "trajectory 1: 3 states and actions int64"),
        ([[0, 1], ([0, 1], [0], [0])], "trajectory 1: states are rows of different lengths"),
        ([[[0, 1], [0], [0]]], "trajectory 0: states are rows of different lengths"),
        ([[[0, 1], [[0], [0, 1]]]], "trajectory 0: 2 states and actions rows of different lengths"),
        ([np.zeros((2, 3), int)], r"trajectory 0: states are int64 \[2, 3\]"),
        ([[0, 1], 3], r"trajectory 1: states are int64 \[\]"),
    ],
)
def test_invalid_trajectory_raises(trajectories, text):
    with pytest.raises(DemonstrationError, match=text):
        Trajectories.from_arrays(trajectories)


def test_pairs_and_state_lists_are_distinguished():
    expected = Trajectories.from_arrays(
        [(np.array([0, 1, 2]), np.array([0, 0])), np.array([1, 2]), (np.array([1, 2]), None)]
    )
    for found in (
        Trajectories.from_arrays([([0, 1, 2], [0, 0]), (1, 2), [(1, 2), None]]),
        Trajectories.from_arrays([[[0, 1, 2], [0, 0]], [1, 2], [np.array([1, 2]), None]]),
        Trajectories.from_arrays(
            [(torch.tensor([0, 1, 2]), (0, 0)), torch.tensor([1, 2]), tuple(torch.tensor([1, 2]))]
        ),
    ):
        for one, other in zip(found[:5], expected[:5], strict=True):
            assert one.tolist() == other.tolist()
    assert Trajectories.from_arrays([(0, 1, 2)]).next_state.tolist() == [1, 2]


def test_single_action_may_be_unknown():
    found = Trajectories.from_arrays([([0, 1, 1, 2], [UNKNOWN, 1, UNKNOWN])]).check(WORLD, "state_action", None)
    assert found.action.tolist() == [0, 1, 0]
    text = "trajectory 0, step 1: action -2 does not exist; valid are 0 to 1, and -1 for an unknown one"
    with pytest.raises(DemonstrationError, match=text):
        Trajectories.from_arrays([([0, 1, 1], [0, -2])]).check(WORLD, "state_action", None)


def test_unknown_actions_are_inferred_if_unambiguous():
    found = Trajectories.from_arrays([[0, 0, 1, 2, 3], ([1, 2], [0])])
    assert found.check(WORLD, "state", None).action.tolist() == [1, 0, 0, UNKNOWN, 0]
    with pytest.raises(DemonstrationError, match="step 3: several actions"):
        found.check(WORLD, "transition", None)
    assert found.number.tolist() == [0, 0, 0, 0, 1]
    assert found.step.tolist() == [0, 1, 2, 3, 0]
    chosen = found.select(torch.tensor([1]))
    assert (chosen.state.tolist(), chosen.length.tolist()) == ([1], [1])


def test_last_action_without_successor_is_dropped():
    found = Trajectories.from_arrays([([0, 1, 2], [0, 0, 1])])
    assert (found.state.tolist(), found.next_state.tolist(), found.action.tolist()) == ([0, 1], [1, 2], [0, 0])


def test_visits_and_inflow():
    found = Trajectories.from_arrays([([0, 0, 1, 2], [1, 0, 0]), ([1, 2, 3], [0, 1])]).check(
        WORLD, "state_action", None
    )
    np.testing.assert_allclose(found.visits(WORLD, "state", 0.5), [1.5, 0.25 + 1, 0.5, 0, 0])
    pairs = found.visits(WORLD, "state_action", 0.5)
    assert pairs[0].tolist() == [0.5, 1.0]
    assert pairs.sum() == found.visits(WORLD, "transition", 0.5).sum() == found.visits(WORLD, "state", 0.5).sum()
    (inflow,) = found.inflow(WORLD, Planning(gamma=0.5)).values()
    np.testing.assert_allclose(inflow, [1, 1, -0.125, -0.25, 0])
    flows = found.inflow(WORLD, Planning(3, 0.5))
    assert sorted(flows) == [0, 2]  # at the horizon nothing is subtracted
    np.testing.assert_allclose(flows[2], [0, 0, 0, -0.25, 0])


def test_sampled_trajectories_match_occupancy():
    mdp = GridWorld(4)
    planning = Planning(12, 1.0)
    policy = solve(mdp, mdp.reward, planning).policy
    samples = sample_trajectories(mdp, policy, 4000, 12, torch.Generator().manual_seed(0), "soft")
    samples.check(mdp, "state_action", 12)
    assert samples.length.tolist() == [12] * 4000
    visits = samples.visits(mdp, "state_action", 1.0) / 4000
    torch.testing.assert_close(visits, occupancy(mdp, policy, {0: mdp.start}, planning), rtol=0, atol=0.06)
    ending = sample_trajectories(WORLD, torch.full((5, 2), 0.5), 50, 30, torch.Generator().manual_seed(0), "random")
    last = ending.next_state[ending.length.cumsum(0) - 1]
    assert (ending.length.min() < 5) & WORLD.terminal[last].all()


@pytest.mark.integration
def test_demonstration_files_are_read(tmp_path):
    rows = {"observations": [0, 1, 2, 1, 2], "actions": [0, 0, 0, 0, 0], "next_observations": [1, 2, 3, 2, 3]}
    ends = {"terminals": [0, 0, 1, 0, 0], "timeouts": [0, 0, 0, 0, 1], "rewards": np.zeros(5)}
    np.savez(tmp_path / "all.npz", **rows, **ends)
    found = read_trajectories(str(tmp_path / "all.npz"))
    assert found.next_state.tolist() == rows["next_observations"]
    assert found.length.tolist() == [3, 2]
    del rows["next_observations"]
    np.savez(tmp_path / "less.npz", **rows, **ends)
    found = read_trajectories(str(tmp_path / "less.npz"))
    assert (found.state.tolist(), found.next_state.tolist()) == ([0, 1, 1], [1, 2, 2])


@pytest.mark.parametrize(
    ("states", "horizon", "text"),
    [
        ([0, 0, 1, 0, 1, 7], None, "trajectory 2, step 1: next state 7 does not exist"),
        ([0, 0, 1, 4, 0, 1], None, "trajectory 2, step 0: state 4 cannot be reached"),
        ([0, 0, 1, 0, 1, 2], 1, "trajectory 2: 2 steps exceed model.horizon 1"),
    ],
)
def test_trajectories_are_numbered_as_in_file(states, horizon, text, tmp_path):
    """The first trajectory is a single state and is therefore dropped."""
    ends = {"terminals": [0] * 6, "timeouts": [1, 0, 1, 0, 0, 1], "rewards": np.zeros(6)}
    np.savez(tmp_path / "some.npz", observations=states, actions=[0] * 6, **ends)
    found = read_trajectories(str(tmp_path / "some.npz"))
    assert found.length.tolist() == [1, 2]
    for given in (found, found.select(torch.tensor([1])).to("cpu")):
        with pytest.raises(DemonstrationError, match=f"some.npz, {text}"):
            given.check(WORLD, "state", horizon)


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({"states": [0, 1]}, "missing key 'lengths'"),
        ({"states": [0, 1, 2], "lengths": [1]}, "'states' has 3 entries; by 'lengths' there must be 2"),
        (
            {"states": [0, 1], "lengths": [1], "actions": [0, 0]},
            "'actions' has 2 entries; by 'lengths' there must be 1",
        ),
        ({"states": [0, 1], "lengths": [0]}, "each at least 1"),
        ({"states": [0.0, 1.0], "lengths": [1]}, "'states' is float64"),
    ],
)
def test_invalid_files_raise(columns, text, tmp_path):
    np.savez(tmp_path / "mine.npz", **columns)
    with pytest.raises(DemonstrationError, match=f"mine.npz: .*{text}"):
        read_trajectories(str(tmp_path / "mine.npz"))
