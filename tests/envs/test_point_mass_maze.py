"""PointMassMaze against its rules, one point at a time, and what is possible in it."""

from __future__ import annotations

import math

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from lit_imitation.envs import make, make_single, point_mass_maze
from lit_imitation.errors import ConfigError
from lit_imitation.rollout import collect
from lit_imitation.rollout.random_return import random_return

ENV, MIRRORED = "lit_imitation/PointMassMaze-v0", "lit_imitation/PointMassMazeMirrored-v0"
BARRIERS = {ENV: (0.2, 0.6), MIRRORED: (-0.1, 0.4)}


def move_one_point(position, action, barrier):
    """Next position and reward of a single point, by plain rules."""
    x, y = position
    expected = -math.hypot(x - 0.3, y - 0.5)
    ax, ay = (min(max(a, -1.0), 1.0) for a in action)
    expected -= 0.001 * (ax**2 + ay**2)
    to_x, to_y = min(max(x + 0.02 * ax, -0.1), 0.6), min(max(y + 0.02 * ay, -0.1), 0.6)
    if (y < 0.3) != (to_y < 0.3):
        at = x + (0.3 - y) / (to_y - y) * (to_x - x)
        if barrier[0] <= at <= barrier[1]:
            to_y = 0.299 if y < 0.3 else 0.301
    return (to_x, to_y), expected


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.parametrize("env_id", [ENV, MIRRORED])
@pytest.mark.parametrize("batched", [True, False])
def test_steps_match_rules(env_id, batched):
    rng = np.random.default_rng(0)
    env, envs = make_single(env_id), make(env_id, 1, 0, "vector")
    blocked = passed = 0
    for episode in range(20):
        state = envs.reset(seed=episode)[0][0] if batched else env.reset(seed=episode)[0]
        start = np.random.default_rng(episode).uniform(-0.01, 0.01, 2)
        position = (0.3 + start[0], start[1])
        np.testing.assert_allclose(state, position, atol=1e-6)
        drift = rng.uniform(-0.5, 0.5)
        for t in range(100):
            action = np.clip(rng.normal((drift, 0.5 if t < 60 else -0.5), 1.0), -1.5, 1.5)
            before = position
            position, expected = move_one_point(position, action, BARRIERS[env_id])
            blocked += abs(position[1] - 0.3) < 0.0011
            passed += (before[1] < 0.3) != (position[1] < 0.3)
            if batched:
                state, reward, terminated, truncated = (row[0] for row in envs.step(action[None])[:4])
            else:
                state, reward, terminated, truncated, _ = env.step(action)
            np.testing.assert_allclose(state, position, atol=1e-6)
            assert reward == pytest.approx(expected, abs=1e-9)
            assert (terminated, truncated) == (False, t == 99)
    assert blocked > 50
    assert passed >= 5


def test_barrier_blocks_both_sides_with_one_open_end():
    x = np.linspace(-0.1, 0.6, 1401)
    for name, (left, right) in zip(("right", "left"), BARRIERS.values(), strict=True):
        inside = (x >= left) & (x <= right)
        for side, up in ((0.295, 1.0), (0.305, -1.0)):
            following = point_mass_maze.move(np.stack([x, np.full_like(x, side)], -1), np.array([0.0, up]), name)
            np.testing.assert_array_equal((following[:, 1] < 0.3) == (side < 0.3), inside)
        slid = point_mass_maze.move(np.array([0.3, 0.299]), np.array([1.0, 1.0]), name)
        np.testing.assert_allclose(slid, [0.32, 0.299])
    mine, other = (make_single(env_id).unwrapped.batch.barrier for env_id in (ENV, MIRRORED))
    assert (mine, other) == ("right", "left")
    assert {*BARRIERS.values()} < {*point_mass_maze.BARRIERS.values()}


def test_without_barrier_the_way_is_free():
    batch = make_single("lit_imitation/PointMass-v0").unwrapped.batch
    x = np.linspace(-0.1, 0.6, 1401)
    places = np.stack([x, np.full_like(x, 0.295)], -1)
    following = point_mass_maze.move(places, np.array([0.0, 1.0]), batch.barrier)
    np.testing.assert_allclose(following, places + np.array([0.0, 0.02]))


@pytest.mark.parametrize(("env_id", "corner", "wrong"), [(ENV, 0.19, 0.41), (MIRRORED, 0.41, 0.19)])
def test_only_the_way_around_reaches_the_goal(env_id, corner, wrong):
    """At a speed that gives slightly more than the paper's −8.45 for a point with inertia."""

    def driver(corner):
        def act(position):
            below = position[:, 1] < 0.3
            aim = np.where(below[:, None], (corner, 0.31), (0.3, 0.5))
            return np.clip((aim - position) / point_mass_maze.SPEED, -1.0, 1.0)

        return act

    found = collect(make(env_id, 20, 0), driver(corner), 20, seed=0)
    assert np.linalg.norm(found.next_observation[found.done].numpy() - (0.3, 0.5), axis=1).max() < 1e-3
    assert -8.45 < float(found.episode_returns().mean()) < -6
    lost = collect(make(env_id, 20, 0), driver(wrong), 20, seed=0)
    assert (lost.next_observation[:, 1] < 0.3).all()
    assert float(lost.episode_returns().max()) < -20


def test_same_seed_gives_same_starts():
    starts = [make(ENV, 50, 0).reset(seed=seed)[0] for seed in (3, 3, 4)]
    np.testing.assert_array_equal(starts[0], starts[1])
    assert not np.array_equal(starts[0], starts[2])
    assert np.abs(starts[0] - (0.3, 0.0)).max() <= 0.01
    assert -53 < random_return(ENV) < -46
    assert -53 < random_return(MIRRORED) < -46


def test_gymnasium_checks_pass_for_both_versions():
    for env_id in (ENV, MIRRORED):
        check_env(make_single(env_id).unwrapped, skip_render_check=True)
        assert gymnasium.spec(env_id).vector_entry_point is not None


def test_unknown_barrier_raises():
    with pytest.raises(ConfigError, match="barrier is 'top'; choose one of right, left, none"):
        make(ENV, 2, 0, barrier="top")
