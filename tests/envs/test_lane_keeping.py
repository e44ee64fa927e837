"""LaneKeeping against its equations, one scalar at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from lit_imitation.envs import lane_keeping as lane
from lit_imitation.envs import make, make_single
from lit_imitation.experts import CONTROLLERS
from lit_imitation.rollout import collect

ENV = "lit_imitation/LaneKeeping-v0"
expert = CONTROLLERS[ENV]


def step_equations(seed, actions, horizon):
    """Observation, reward, truncated and next observation of one copy, with resets between episodes."""
    rng, rows, actions = np.random.default_rng(seed), [], list(actions)
    while True:
        offset, turned = rng.uniform(-1, 1), rng.uniform(-1, 1)
        x, y, psi = 0.0, 0.05 * offset, math.atan(0.6 * math.pi / 2) + 0.1 * turned
        for t in range(horizon):
            if not actions:
                return rows
            before = (x, y, math.cos(psi), math.sin(psi))
            psi += 0.15 * min(max(actions.pop(0), -1.0), 1.0) + 0.02 * rng.standard_normal()
            x, y = x + 0.05 * math.cos(psi), y + 0.05 * math.sin(psi)
            reward = -1.0 if abs(y - 0.6 * math.sin(math.pi / 2 * x)) > 0.1 else 0.0
            rows.append((before, reward, t == horizon - 1, (x, y, math.cos(psi), math.sin(psi))))


@pytest.mark.parametrize("batched", [True, False])
def test_steps_match_equations(batched):
    actions = np.random.default_rng(1).uniform(-1.3, 1.3, 600)
    wanted = step_equations(3, actions, horizon=40)
    assert {row[1] for row in wanted} == {0.0, -1.0}
    env = make_single(ENV, horizon=40)
    envs = make(ENV, 1, 0, "vector", horizon=40)
    state = envs.reset(seed=3)[0][0] if batched else env.reset(seed=3)[0]
    for action, (before, reward, truncated, after) in zip(actions, wanted, strict=True):
        np.testing.assert_allclose(state, before, atol=1e-5)
        if batched:
            rows = envs.step(np.array([[action]]))[:4]
            state, step_reward, terminated, ended = (row[0] for row in rows)
        else:
            state, step_reward, terminated, ended, _ = env.step(np.array([action]))
        np.testing.assert_allclose(state, after, atol=1e-5)
        assert (step_reward, terminated, ended) == (reward, False, truncated)
        if ended:
            state = envs.step(np.zeros((1, 1)))[0][0] if batched else env.reset()[0]


def test_copies_in_a_batch_are_independent():
    """Two batches with one seed share their noise, so rows with equal actions stay equal."""
    rows = np.arange(64) % 2 == 0
    ends = []
    for other in (0.3, -0.7):
        envs = make(ENV, 64, 0)
        assert type(envs.unwrapped) is lane.LaneKeepingVectorEnv
        envs.reset(seed=4)
        for _ in range(20):
            observation, *_ = envs.step(np.where(rows, 0.1, other)[:, None])
        ends.append(observation)
    np.testing.assert_array_equal(ends[0][rows], ends[1][rows])
    assert (ends[0][~rows] != ends[1][~rows]).any(axis=1).all()
    assert len(np.unique(ends[0][rows], axis=0)) == 32


def test_center_heading_matches_center_line():
    x = np.linspace(-3, 9, 400)
    slope = (lane.center_line(x + 1e-6) - lane.center_line(x - 1e-6)) / 2e-6
    np.testing.assert_allclose(np.tan(lane.center_heading(x)), slope, atol=1e-8)
    np.testing.assert_allclose(lane.lateral_offset(np.stack([x, lane.center_line(x) - 0.1, x, x], -1)), -0.1)


def test_expert_keeps_lane_through_bends():
    record = collect(make(ENV, 200, 0), expert, 200, seed=0)
    assert not record.reward.any()
    last = record.next_observation[record.done].numpy()
    assert (last[:, 0] > 8.0).all()  # two full periods
    assert np.abs(lane.lateral_offset(record.next_observation.numpy())).max() < 0.055  # starts are up to 0.05 off
    assert np.abs(record.action.numpy()[:, 0]).max() <= 1


def test_expert_recovers_from_hazard_at_any_heading():
    envs = make(ENV, 300, 0)
    envs.reset(seed=0)
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 4, 300)
    side = rng.choice([-0.5, 0.5], 300)
    envs.unwrapped._state = np.stack([x, lane.center_line(x) + side, rng.uniform(-np.pi, np.pi, 300)], -1)
    observation = envs.unwrapped._observe(envs.unwrapped._state)
    step_reward = []
    for _ in range(100):
        observation, reward, *_ = envs.step(expert(observation))
        step_reward.append(reward)
    assert (np.array(step_reward[0]) == -1).mean() > 0.9
    assert not np.array(step_reward[-20:]).any()


def test_driving_straight_ends_in_hazard():
    record = collect(make(ENV, 20, 0), lambda o: np.zeros((len(o), 1), np.float32), 20, seed=0)
    outside = np.abs(lane.lateral_offset(record.next_observation.double().numpy())) > lane.HALF_WIDTH + 1e-5
    assert (record.reward.numpy()[outside] == -1).all()
    assert (record.episode_returns() < -50).all()


def test_gymnasium_checks_pass():
    check_env(make_single(ENV).unwrapped, skip_render_check=True)
