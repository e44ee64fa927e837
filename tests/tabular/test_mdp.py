"""`TabularMDP`: construction, validation, sources and environments."""

from __future__ import annotations

import math
import pickle

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from scipy.sparse import coo_array, csc_matrix, csr_array, csr_matrix

from lit_imitation import BinaryWorld, GridWorld, ObjectWorld, TabularMDP, make
from lit_imitation.errors import ConfigError
from lit_imitation.tabular import Planning, solve
from lit_imitation.tabular.env import TabularEnv, TabularVectorEnv

P = np.zeros((3, 2, 3))
P[0, 0, 1] = P[1, 0, 2] = P[2, :, 2] = P[1, 1, 0] = 1.0
P[0, 1] = [0.25, 0.5, 0.25]


def to_dense(mdp):
    found = np.zeros((mdp.num_actions * mdp.num_states, mdp.num_states))
    found[mdp.row, mdp.successor] = mdp.probability
    return found.reshape(mdp.num_actions, mdp.num_states, mdp.num_states).swapaxes(0, 1)


def test_transition_formats_agree():
    successors = np.array([[[1, 0, 0, 0], [0, 1, 2, 1]], [[2, 0, 0, 0], [0, 0, 0, 0]], [[2, 2, -1, 9], [2, 2, 2, 2]]])
    probabilities = np.array(
        [[[1, 0, 0, 0], [0.25, 0.2, 0.25, 0.3]], [[1, 0, 0, 0], [0.5, 0.5, 0, 0]], [[1, 0, 0, 0], [0.25] * 4]]
    )
    rows = P.swapaxes(0, 1).reshape(6, 3)
    of_scipy = [kind(rows) for kind in (coo_array, csr_array, csr_matrix, csc_matrix)]
    tensor = torch.from_numpy(rows)
    listed = tensor.to_sparse_coo()
    twice = torch.sparse_coo_tensor(listed.indices().repeat(1, 2), listed.values().repeat(2) / 2, (6, 3))
    of_torch = [listed, twice, tensor.to_sparse_csr(), tensor.to_sparse_csc(), tensor.float().to_sparse()]
    zeros_stored = [coo_array((rows.ravel(), np.indices((6, 3)).reshape(2, -1))), tensor.to_sparse_bsr((2, 3))]
    for given in (P, torch.from_numpy(P), (successors, probabilities), *of_scipy, *of_torch, *zeros_stored):
        mdp = TabularMDP(given)
        np.testing.assert_allclose(to_dense(mdp), P, atol=1e-15)
        assert len(mdp.successor) == 8
        np.testing.assert_allclose(mdp.start, np.full(3, 1 / 3))


def test_rewards_of_repeated_successors_are_averaged():
    successors = np.array([[[0, 1, 1]], [[0, 0, 0]]])
    mdp = TabularMDP((successors, [[[0.5, 0.125, 0.375]], [[1, 0, 0]]]), reward=[[[7, 1, 5]], [[2, 99, 99]]])
    assert mdp.reward.inputs == "transition"
    assert dict(
        zip(zip((mdp.row % 2).tolist(), mdp.successor.tolist(), strict=True), mdp.reward.values.tolist(), strict=True)
    ) == {
        (0, 0): 7.0,
        (0, 1): 4.0,
        (1, 0): 2.0,
    }
    of_dense = TabularMDP(P, reward=np.arange(18).reshape(3, 2, 3))
    s, a, z = of_dense.row % 3, of_dense.row // 3, of_dense.successor
    assert of_dense.reward.values.tolist() == (6 * s + 3 * a + z).tolist()


def replace_entry(place, value, array=P):
    array = array.copy()
    array[place] = value
    return array


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"transitions": replace_entry((0, 1, 2), 0.2)}, r"state 0, action 1 sum to 0\.95; they must sum to 1"),
        ({"transitions": replace_entry((1, 0), 0)}, r"state 1, action 0 sum to 0; they must"),
        ({"transitions": replace_entry((2, 1, 0), -0.5)}, r"state 2, action 1: successor 0 has probability -0\.5"),
        ({"transitions": replace_entry((2, 1, 0), np.nan)}, r"state 2, action 1: successor 0 has probability nan"),
        ({"transitions": (np.full((3, 2, 1), 3), np.ones((3, 2, 1)))}, "successor 3 is not a state; states are 0 to 2"),
        ({"transitions": (np.zeros((3, 2, 1)), np.ones((3, 2, 1)))}, "successors are float64"),
        ({"transitions": np.ones((3, 2))}, r"transitions have shape \[3, 2\]; expected \[S, A, S\]"),
        ({"transitions": np.ones((3, 2, 4))}, r"transitions have shape \[3, 2, 4\]"),
        ({"transitions": coo_array(np.ones((7, 3)))}, r"sparse \[7, 3\]; expected \[A · S, S\]"),
        ({"transitions": torch.ones(7, 3).to_sparse_csr()}, r"sparse \[7, 3\]; expected \[A · S, S\]"),
        ({"transitions": torch.ones(3, 2, 3).to_sparse()}, r"sparse \[3, 2, 3\]; expected \[A · S, S\]"),
        ({"transitions": csr_matrix(np.ones((6, 3)))}, "state 0, action 0 sum to 3"),
        ({"start": [0.5, 0.6, 0]}, r"its sum 1\.1"),
        ({"start": [1.5, -0.5, 0]}, r"its minimum is -0\.5"),
        ({"start": [1, 0]}, r"start has shape \[2\]; expected \[3\]"),
        ({"start": [0, 0, 1], "terminal": [False, False, True]}, "start has positive probability in state 2, which is"),
        ({"terminal": [True, True, True]}, "every state is terminal"),
        ({"features": np.ones((2, 5))}, r"features have shape \[2, 5\]; expected \[3, F\]"),
        ({"features": replace_entry((1, 0), np.inf, np.ones((3, 2)))}, r"features\[1, 0\] is inf"),
        ({"reward": np.ones((3, 4))}, r"reward has shape \[3, 4\]"),
        ({"reward": [0, np.nan, 0]}, r"reward\[1\] is nan"),
        ({"grid": (2, 2)}, "a grid of 2 × 2 does not have 3 states"),
    ],
)  # fmt: skip
def test_invalid_arguments_raise(arguments, text):
    with pytest.raises(ConfigError, match=text):
        TabularMDP(**{"transitions": P, **arguments})


def test_rows_of_terminal_states_are_ignored():
    mdp = TabularMDP(
        replace_entry((2,), 0.0), terminal=[False, False, True], reward=replace_entry((2,), 5.0, np.zeros((3, 2, 3)))
    )
    assert not (mdp.row % 3 == 2).any()
    assert len(mdp.reward.values) == len(mdp.successor)
    assert mdp.start.tolist() == [0.5, 0.5, 0.0]


def test_find_reachable_and_to():
    mdp = TabularMDP(P, [0, 1, 0], reward=[1.0, 2.0, 3.0], features=np.eye(3))
    s, a, z = (torch.tensor(x) for x in ([0, 0, 1, 2], [1, 0, 1, 0], [2, 2, 0, 2]))
    place = mdp.find(s, a, z)
    assert (place >= 0).tolist() == [True, False, True, True]
    assert mdp.successor[place[[0, 2, 3]]].tolist() == [2, 0, 2]
    assert mdp.reachable().tolist() == [True, True, True]
    assert TabularMDP(P, [0, 0, 1]).reachable().tolist() == [False, False, True]
    moved = mdp.to("cpu", torch.float32)
    assert {x.dtype for x in (moved.probability, moved.features, moved.reward.values, moved.start)} == {torch.float32}
    assert mdp.probability.dtype == torch.float64
    copied = pickle.loads(pickle.dumps(mdp))
    assert repr(copied) == repr(mdp)
    assert repr(TabularMDP(P, [0, 1, 0], reward=[1.0, 2.0, 4.0])) != repr(mdp)


def test_estimate_from_trajectories():
    mdp = TabularMDP.estimate([[[0, 1, 1], [1, 0, 0], [0, 1, 2]], [[0, 1, 1], [1, 1, 2]], [[1, 0, 0]]])
    expected = np.zeros((3, 2, 3))
    expected[0, 1, 1], expected[0, 1, 2] = 2 / 3, 1 / 3
    expected[1, 0, 0] = expected[1, 1, 2] = expected[0, 0, 0] = expected[2, :, 2] = 1
    np.testing.assert_allclose(to_dense(mdp), expected)
    np.testing.assert_allclose(mdp.start, [2 / 3, 1 / 3, 0])


GOOD = [[0, 0, 1], [1, 0, 0]]


@pytest.mark.parametrize(
    ("trajectories", "sizes", "text"),
    [
        ([GOOD, [*GOOD, [4, 0, 1]]], {}, "trajectory 1, step 2: starts in state 4, but the step before ended in 0"),
        ([GOOD, [*GOOD, [0, 0, 2]]], {"num_states": 2}, "trajectory 1, step 2: next state 2 does not exist; .* 0 to 1"),
        ([GOOD, [[0, 1, 0]]], {"num_actions": 1}, "trajectory 1, step 0: action 1 does not exist; valid are 0 to 0"),
        ([GOOD, GOOD, [[-1, 0, 0]]], {}, "trajectory 2, step 0: state -1 does not exist"),
        ([[]], {}, "trajectory 0 has no steps"),
        ([GOOD, np.zeros((0, 3), int)], {}, "trajectory 1 has no steps"),
        ([], {}, "no trajectories: at least one"),
        ([np.zeros((6, 2), int)], {}, r"trajectory 0 is int64 \[6, 2\]; expected integers \[n, 3\]"),
        ([GOOD, np.zeros((3, 4), int)], {}, r"trajectory 1 is int64 \[3, 4\]"),
        ([GOOD, GOOD[0]], {}, r"trajectory 1 is int64 \[3\]"),
        ([GOOD, [[0.7, 0, 1]]], {}, r"trajectory 1 is float64 \[1, 3\]"),
        ([GOOD, [[0, 0, 1], [1, 0]]], {}, r"trajectory 1: .*expected integers \[n, 3\]"),
    ],
)
def test_invalid_trajectories_raise(trajectories, sizes, text):
    with pytest.raises(ConfigError, match=text):
        TabularMDP.estimate(trajectories, **sizes)


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.parametrize(
    ("env_id", "arguments"),
    [
        ("FrozenLake-v1", {}),
        ("FrozenLake8x8-v1", {}),
        ("Taxi-v4", {}),
        ("Taxi-v4", {"is_rainy": True}),
        ("CliffWalking-v1", {}),
    ],
)
def test_toy_text_worlds_match_environments(env_id, arguments):
    """A random walk in the environment follows the table's transitions, rewards and ends."""
    env = gymnasium.make(env_id, **arguments)
    mdp = TabularMDP.from_env(env)
    env.action_space.seed(0)
    state, _ = env.reset(seed=0)
    assert mdp.start[state] > 0
    for _ in range(2000):
        action = env.action_space.sample()
        following, reward, terminated, truncated, _ = env.step(action)
        place = int(mdp.find(*(torch.tensor([int(x)]) for x in (state, action, following))))
        assert place >= 0
        assert float(mdp.reward.values[place]) == reward
        assert bool(mdp.terminal[following]) == terminated
        state = env.reset()[0] if terminated or truncated else following


def test_taxi_is_solved_optimally():
    """The mean return of the optimal policy over all starts is known: 7.93."""
    mdp = TabularMDP.from_env(gymnasium.make("Taxi-v4"))
    value, _ = solve(mdp, mdp.reward, Planning(200, 1.0, entropy="none"))
    assert float(mdp.start @ value[0]) == pytest.approx(7.93, abs=0.01)


def test_environment_without_table_raises():
    with pytest.raises(ConfigError, match="CartPoleEnv has no transition table"):
        TabularMDP.from_env(gymnasium.make("CartPole-v1"))


def test_fickle_passenger_raises():
    env = gymnasium.make("Taxi-v4", fickle_passenger=True, fickle_probability=1.0).unwrapped
    env.reset(seed=0)
    env.s = env.encode(2, 2, 4, 0)  # passenger in the taxi, first destination
    moved, *_ = env.step(2)
    assert moved not in [successor for _, successor, *_ in env.P[env.encode(2, 2, 4, 0)][2]]
    with pytest.raises(ConfigError, match="TaxiEnv with fickle_passenger is not an MDP in its states"):
        TabularMDP.from_env(env)


def test_single_environment_steps(recwarn):
    ends = TabularMDP(P, [1, 0, 0], reward=[1.0, 2.0, 40.0], terminal=[False, False, True])
    env = TabularEnv(ends, max_episode_steps=5)
    check_env(env, skip_render_check=True)
    env.reset(seed=0)
    assert env.step(0)[:4] == (1, 1.0, False, False)
    assert env.step(0)[:4] == (2, 42.0, True, False)
    env.reset()
    for t in range(5):
        env.step(0) if t % 2 == 0 else env.step(1)
    assert TabularMDP.from_env(env) is env.mdp


@pytest.mark.parametrize(
    ("action", "text"),
    [
        (-1, "action -1 does not exist; actions are 0 to 1"),
        (2, "action 2 does not exist"),
        (1.9, r"actions are float64 \[1\]; expected integers \[1\]"),
        ([0, 1], r"actions are int64 \[1, 2\]"),
    ],
)
def test_invalid_actions_raise(action, text):
    env = TabularEnv(TabularMDP(P))
    env.reset(seed=0)
    with pytest.raises(gymnasium.error.InvalidAction, match=text):
        env.step(action)


@pytest.mark.parametrize(
    ("world", "arguments", "text"),
    [
        ("GridWord", {}, "world is 'GridWord'; choose one of GridWorld, ObjectWorld, BinaryWorld"),
        (
            TabularMDP(np.ones((1, 1, 1))),
            {"world_seed": 1, "size": 4},
            "world_seed, size: only for worlds given by name",
        ),
    ],
)
def test_invalid_world_arguments_raise(world, arguments, text):
    with pytest.raises(ConfigError, match=text):
        TabularVectorEnv(2, world=world, **arguments)


def test_ignored_actions_are_not_checked():
    envs = gymnasium.make_vec(
        "lit_imitation/Tabular-v0", 2, "vector_entry_point", world=TabularMDP(P, [1, 0, 0]), max_episode_steps=1
    )
    envs.reset(seed=0)
    envs.step(np.zeros(2, np.int32))
    observations, rewards, *_ = envs.step(np.array([-1, 99]))  # starts the next episodes
    assert (observations.tolist(), rewards.tolist()) == ([0, 0], [0.0, 0.0])
    with pytest.raises(gymnasium.error.InvalidAction, match="action 99"):
        envs.step(np.array([0, 99]))


def test_batched_visits_match_probabilities():
    ends = TabularMDP(P, [0.3, 0.7, 0], reward=[[0, 1], [2, 3], [4, 5]])
    envs = gymnasium.make_vec("lit_imitation/Tabular-v0", 4000, "vector_entry_point", world=ends, max_episode_steps=2)
    first, _ = envs.reset(seed=0)
    assert (first == 0).mean() == pytest.approx(0.3, abs=0.03)
    second, reward, _, truncated, _ = envs.step(np.ones(4000, int))
    assert set(reward[first == 0]) == {1.0}
    np.testing.assert_allclose(np.bincount(second[first == 0], minlength=3) / (first == 0).sum(), P[0, 1], atol=0.05)
    *_, truncated, _ = envs.step(np.zeros(4000, int))
    assert truncated.all()
    again, reward, *_ = envs.step(np.zeros(4000, int))
    assert not reward.any()
    assert (again == 0).mean() == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize("world", [GridWorld, ObjectWorld, BinaryWorld])
def test_literature_worlds_have_expected_structure(world):
    one, same, other = world(size=7, seed=3), world(size=7, seed=3), world(size=7, seed=4)
    assert repr(one) == repr(same)
    assert torch.equal(one.features, same.features)
    assert not torch.equal(one.features, other.features)
    assert (one.num_states, one.num_actions, one.grid) == (49, 5, (7, 7))
    probability = to_dense(one)
    assert probability[8, 2, 9] == pytest.approx(0.7 + 0.3 / 5)  # one to the right
    assert probability[8, 2, [8, 1, 15, 7]].tolist() == pytest.approx([0.3 / 5] * 4)
    assert probability[0, 1, 0] == pytest.approx(0.7 + 3 * 0.3 / 5)  # in a corner, up, left and staying have no effect
    envs = make(f"lit_imitation/{world.__name__}-v0", 2, seed=0, size=7, world_seed=3)
    assert torch.equal(TabularMDP.from_env(envs).features, one.features)
    assert envs.single_observation_space.n == 49
    envs.close()
    with pytest.raises(ConfigError, match=r"slip is 1\.5"):
        world(size=3, slip=1.5)
    with pytest.raises(ConfigError, match="size is 0"):
        world(size=0)


def test_world_rewards_match_papers():
    grid = BinaryWorld(size=9, seed=1)
    around = grid.features.reshape(9, 9, 9)
    blue = around[..., 4]
    for r, c in ((0, 0), (4, 5), (8, 3)):
        cells = [blue[i, j] for i in range(r - 1, r + 2) for j in range(c - 1, c + 2) if 0 <= i < 9 and 0 <= j < 9]
        count = int(sum(cells))
        assert float(grid.reward.values[9 * r + c]) == {4: 1.0, 5: -1.0}.get(count, 0.0)
    objects = ObjectWorld(size=12, seed=0)
    rng = np.random.default_rng(0)
    place, (inner, outer) = rng.choice(144, 7, replace=False), rng.integers(2, size=(2, 7))
    features = objects.features.reshape(144, 4, 12).bool()  # inner, then outer colors; distances up to 1 … 12
    for state in range(144):
        distance = [math.hypot(state // 12 - other // 12, state % 12 - other % 12) for other in place]
        nearest = [
            min((d for d, c in zip(distance, colors, strict=True) if c == k), default=math.inf)
            for colors in (inner, outer)
            for k in (0, 1)
        ]
        for column, at in enumerate(nearest):
            assert features[state, column].tolist() == [at <= d for d in range(1, 13)]
        assert float(objects.reward.values[state]) == (0.0 if nearest[2] > 3 else 1.0 if nearest[3] <= 2 else -1.0)
    assert set(objects.reward.values.tolist()) == {-1.0, 0.0, 1.0}
    world = GridWorld(size=10)
    assert torch.equal(world.reward.values, world.features @ torch.tensor([0.0, 1.0, -0.5, -1.0]).double())
    assert int((world.reward.values == 1).sum()) == 1


@pytest.mark.parametrize("world", [GridWorld, ObjectWorld, BinaryWorld])
def test_world_rewards_are_functions_of_features(world):
    """Otherwise no reward of the features could be the true one."""
    mdp = world(size=32)
    _, kind = np.unique(mdp.features.numpy(), axis=0, return_inverse=True)
    for rewards in np.split(mdp.reward.values.numpy()[kind.argsort()], np.cumsum(np.bincount(kind))[:-1]):
        assert len(set(rewards.tolist())) == 1
