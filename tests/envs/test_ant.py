"""Ants of the transfer study, as compiled by MuJoCo."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

pytest.importorskip("mujoco")

from lit_imitation.envs import make, make_single
from lit_imitation.rollout import collect

ENV, CRIPPLED = "lit_imitation/WeakAnt-v0", "lit_imitation/CrippledAnt-v0"


@pytest.fixture(scope="module")
def models():
    return {env_id: make_single(env_id).unwrapped.model for env_id in ("Ant-v5", ENV, CRIPPLED)}


def gears(model):
    return {model.joint(model.actuator_trnid[i, 0]).name: model.actuator_gear[i, 0] for i in range(model.nu)}


def test_crippled_back_legs_have_gear_1(models):
    assert set(gears(models[ENV]).values()) == {30}
    weak = {name for name, gear in gears(models[CRIPPLED]).items() if gear == 1}
    assert weak == {"hip_3", "ankle_3", "hip_4", "ankle_4"}
    assert {gear for name, gear in gears(models[CRIPPLED]).items() if name not in weak} == {30}


def test_crippled_back_legs_are_half_as_long(models):
    """Lengths along x and y: the ankle body's offset for the upper segment, and the capsules of both."""
    usual, weak, crippled = (models[env_id] for env_id in ("Ant-v5", ENV, CRIPPLED))
    np.testing.assert_array_equal(weak.body_pos, usual.body_pos)
    np.testing.assert_array_equal(weak.geom_size, usual.geom_size)
    back = {"back_leg_geom": 0.1, "rightback_leg_geom": 0.1, "third_ankle_geom": 0.2, "fourth_ankle_geom": 0.2}
    for i in range(usual.ngeom):
        name = usual.geom(i).name
        for axis in (0, 1):
            if name in back:
                assert abs(crippled.geom_pos[i, axis]) == pytest.approx(back[name] / 2)
                assert abs(usual.geom_pos[i, axis]) == pytest.approx(back[name])
        if name in back:
            assert crippled.geom_size[i, 1] == pytest.approx(back[name] / np.sqrt(2))  # half the diagonal
        else:
            np.testing.assert_array_equal(crippled.geom_pos[i], usual.geom_pos[i])
            np.testing.assert_array_equal(crippled.geom_size[i], usual.geom_size[i])
    ankles = {"ankle_3": (-0.1, -0.1, 0.0), "ankle_4": (0.1, -0.1, 0.0)}
    for i in range(usual.nbody):
        first = usual.body_jntadr[i]
        joint = usual.joint(first).name if first >= 0 else ""
        np.testing.assert_allclose(crippled.body_pos[i], ankles.get(joint, usual.body_pos[i]))


def test_observation_excludes_contact_forces():
    env = make_single(CRIPPLED)
    observation, _ = env.reset(seed=0)
    data = env.unwrapped.data
    assert env.observation_space.shape == (27,)
    np.testing.assert_array_equal(observation, np.concatenate([data.qpos[2:], data.qvel]))


def test_reward_is_velocity_minus_costs():
    env = make_single(ENV)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(30):
        before = env.unwrapped.data.body(1).xpos[0]
        action = rng.uniform(-1, 1, 8)
        _, reward, terminated, _, info = env.step(action)
        forward = (env.unwrapped.data.body(1).xpos[0] - before) / env.unwrapped.dt
        wanted = forward - 0.01 * np.square(action).sum() + info["reward_contact"]
        assert reward == pytest.approx(wanted)
        assert not terminated


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.parametrize("env_id", [ENV, CRIPPLED])
def test_episodes_always_take_500_steps(env_id):
    envs = make(env_id, 2, 0)
    envs.action_space.seed(0)
    found = collect(envs, lambda _: envs.action_space.sample(), 2, seed=1)
    assert found.episode_lengths().tolist() == [500, 500]
    assert not found.terminated.any()
    assert (found.episode_returns().abs() < 80).all()


def test_same_seed_gives_same_episode():
    rows = []
    for _ in range(2):
        env = make_single(CRIPPLED)
        rows.append([env.reset(seed=5)[0], *(env.step(np.full(8, 0.3))[0] for _ in range(20))])
    np.testing.assert_array_equal(*rows)


def test_gymnasium_checks_pass():
    check_env(make_single(CRIPPLED).unwrapped, skip_render_check=True)
