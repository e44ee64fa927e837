"""Fork against its equations: the expert succeeds by every gate, the mean action by none."""

from __future__ import annotations

import math

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from lit_imitation.envs import fork, make, make_single
from lit_imitation.errors import ConfigError, ExpertError
from lit_imitation.experts.fork import ForkExpert, steer
from lit_imitation.rollout import Episodes
from lit_imitation.utils.seeding import RandomStream

ENV = "lit_imitation/Fork-v0"


def played(actor, modes, episodes=200, seed=0):
    """Episodes of an actor with their transitions."""
    envs = make(ENV, episodes, seed, modes=modes)
    run = Episodes(envs, actor, episodes, seed, record=True)
    finished = list(run)
    envs.close()
    return finished, run.transitions()


def walk(angle, modes):
    """Info and position after an episode straight along `angle` from wherever it starts."""
    env = make_single(ENV, modes=modes)
    env.reset(seed=0)
    action = np.float32([math.cos(angle), math.sin(angle)])
    total = 0.0
    for _ in range(4):
        place, reward, *_, truncated, info = env.step(action)
        total += reward
    assert truncated
    return place, total, info


@pytest.mark.parametrize("modes", [2, 3, 8])
def test_gates_are_where_the_angles_say(modes):
    for k in range(modes):
        center = 2 * math.pi * k / modes
        for inside in (-0.2, 0.0, 0.2):  # the start and the corners of the box are off by less than 0.05 rad
            place, reward, info = walk(center + inside, modes)
            assert (reward, info["success"], info["mode"]) == (1.0, True, k)
            assert np.hypot(*place) > 1.1
        for outside in (-0.3, 0.3):
            place, reward, info = walk(center + outside, modes)
            assert (reward, info["success"], info["mode"]) == (0.0, False, -1)
            assert np.hypot(*place) == pytest.approx(1.0)


def test_a_hit_point_sticks_to_the_wall():
    env = make_single(ENV, horizon=6)
    env.reset(seed=0)
    places = [env.step(np.float32([0.0, 1.0]))[0] for _ in range(3)]
    for _ in range(3):
        place, reward, *_, info = env.step(np.float32([1.0, -1.0]))
        np.testing.assert_array_equal(place, places[-1])
        assert (reward, info["success"]) == (0.0, False)


def test_crossing_solves_the_circle():
    generator = np.random.default_rng(0)
    position, move = generator.uniform(-0.6, 0.6, (500, 2)), generator.uniform(-1, 1, (500, 2))
    share = fork.crossing(position, move)
    crosses = np.linalg.norm(position + move, axis=1) >= 1.0
    np.testing.assert_array_equal(np.isfinite(share), crosses)
    assert 100 < crosses.sum() < 400
    hit = position[crosses] + share[crosses, None] * move[crosses]
    np.testing.assert_allclose(np.linalg.norm(hit, axis=1), 1.0)
    assert fork.crossing(np.zeros((1, 2)), np.zeros((1, 2))) == np.inf


@pytest.mark.parametrize("modes", [2, 3, 8])
def test_expert_succeeds_by_every_gate_in_equal_shares(modes):
    finished, transitions = played(ForkExpert(modes), modes, 2000)
    assert all(episode.success == episode.episode_return == 1.0 for episode in finished)
    last = transitions.next_observation[transitions.done].double().numpy()
    share = np.bincount(fork.gate_of(last, modes), minlength=modes) / len(last)
    np.testing.assert_allclose(share, 1 / modes, atol=4 * math.sqrt(1 / modes / len(last)))


def test_expert_follows_given_shares():
    _, transitions = played(ForkExpert(3, [1, 0, 3]), 3, 2000)
    last = transitions.next_observation[transitions.done].double().numpy()
    share = np.bincount(fork.gate_of(last, 3), minlength=3) / len(last)
    np.testing.assert_allclose(share, [0.25, 0.0, 0.75], atol=0.04)


@pytest.mark.parametrize("modes", [2, 3, 8])
def test_mean_of_the_modes_stays_in_the_dead_zone(modes):
    """The mean of Σ_k (cos 2πk/K, sin 2πk/K) / K is 0, and that of the expert's actions is close to it."""
    directions = fork.gate_directions(modes)
    np.testing.assert_allclose(directions.mean(0), 0.0, atol=1e-12)

    def mean_action(observation):
        each = [steer(observation, np.broadcast_to(direction, observation.shape)) for direction in directions]
        return np.mean(each, axis=0).astype(np.float32)

    finished, transitions = played(mean_action, modes)
    assert not any(episode.success for episode in finished)
    assert transitions.next_observation.abs().max() < 0.2


def test_expert_returns_to_its_way():
    """Off the ray by e, d = g − 2 e: at e = 0.5 across g the action has slope −1."""
    action = steer(np.array([[0.3, 0.5], [0.7, 0.0]]), np.array([[1.0, 0.0], [1.0, 0.0]]))
    np.testing.assert_allclose(action, [[math.sqrt(0.5), -math.sqrt(0.5)], [1.0, 0.0]])


def test_expert_keeps_its_gate_until_reset():
    with RandomStream(0):
        expert = ForkExpert(8, noise=0.0)
        expert.reset(np.ones(50, np.bool_))
        before = expert.mode.copy()
        first, second = expert.act(np.zeros((50, 2))), expert.act(np.zeros((50, 2)))
        mask = np.arange(50) < 25
        expert.reset(mask)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(expert.mode[25:], before[25:])
    assert (expert.mode[:25] != before[:25]).any()
    assert len(set(before.tolist())) > 4


def test_copies_and_single_environment_agree():
    single, envs = make_single(ENV, modes=3), make(ENV, 1, 0, modes=3)
    check_env(single.unwrapped, skip_render_check=True)
    first, _ = single.reset(seed=4)
    others, _ = envs.reset(seed=4)
    np.testing.assert_array_equal(first, others[0])
    action = np.float32([0.9, 0.1])
    for _ in range(3):
        one, many = single.step(action), envs.step(action[None])
        np.testing.assert_array_equal(one[0], many[0][0])
        assert one[1:4] == tuple(value[0] for value in many[1:4])
        assert one[4] == {name: value[0] for name, value in many[4].items()}


def test_wrong_arguments_are_refused():
    for modes in (1, 13):
        with pytest.raises(ConfigError, match=f"modes is {modes}"):
            fork.ForkVectorEnv(modes=modes)
    for shares in ([1.0], [1.0, -1.0], [0.0, 0.0]):
        with pytest.raises(ExpertError, match="give 2 numbers"):
            ForkExpert(2, shares)
