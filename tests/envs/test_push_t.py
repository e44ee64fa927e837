"""Push-T against the paper's starts, complex numbers and a replay; what simulates is skipped without gym-pusht."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from lit_imitation.envs import make_single, push_t
from lit_imitation.errors import ConfigError, MissingExtraError

ENV = "lit_imitation/PushT-v0"
simulated = pytest.mark.skipif(importlib.util.find_spec("gym_pusht") is None, reason="needs gym-pusht (extra pusht)")
BESIDE = np.array([180.0, 60.0, 250.0, 200.0, 0.3])
"""A start with the agent above the block, in no contact."""


def test_keypoints_turn_and_shift_like_complex_numbers():
    poses = np.array([[100.0, 200.0, 0.7], [256.0, 256.0, -2.5]])
    points = push_t.KEYPOINTS[:, 0] + 1j * push_t.KEYPOINTS[:, 1]
    for pose, got in zip(poses, push_t.keypoints(poses), strict=True):
        wanted = points * np.exp(1j * pose[2]) + complex(*pose[:2])
        np.testing.assert_allclose(got[:, 0] + 1j * got[:, 1], wanted)


def test_start_state_is_the_papers():
    """As `PushTEnv.reset` of the paper's repository draws it, one number at a time."""
    for seed in (0, 1, 100_000):
        random = np.random.RandomState(seed)
        wanted = [random.randint(50, 450), random.randint(50, 450), random.randint(100, 400), random.randint(100, 400)]
        np.testing.assert_array_equal(push_t.start_state(seed), [*wanted, random.randn() * 2 * np.pi - np.pi])


@pytest.mark.skipif(importlib.util.find_spec("gym_pusht") is not None, reason="gym-pusht is installed")
def test_missing_simulation_names_extra():
    with pytest.raises(MissingExtraError, match=r"lit-imitation\[pusht\]"):
        make_single(ENV)


@simulated
def test_gymnasium_checks_pass():
    for arguments in ({}, {"image": True}):
        check_env(push_t.PushTEnv(**arguments), skip_render_check=True)


@simulated
def test_given_state_is_where_it_starts():
    env = push_t.PushTEnv()
    observation, _ = env.reset(options={"state": BESIDE})
    np.testing.assert_allclose(env.state, BESIDE, atol=1e-6)
    np.testing.assert_allclose(observation[18:], BESIDE[:2])
    np.testing.assert_allclose(observation[:18].reshape(9, 2), push_t.keypoints(BESIDE[2:]), rtol=1e-6)


@simulated
def test_seeded_start_is_the_papers_and_others_differ():
    env = push_t.PushTEnv()
    env.reset(seed=3)
    np.testing.assert_allclose(env.state[:2], push_t.start_state(3)[:2])
    first = [env.reset()[0] for _ in range(2)]
    env.reset(seed=3)
    again = [env.reset()[0] for _ in range(2)]
    np.testing.assert_array_equal(first, again)
    assert (first[0] != first[1]).any()


@simulated
def test_return_is_best_clipped_coverage():
    env, total, best = push_t.PushTEnv(), 0.0, 0.0
    env.reset(options={"state": [256, 90, 256, 200, np.pi / 4]})
    for t in range(60):
        _, reward, terminated, truncated, info = env.step(np.array([256.0, 110.0 + 4 * t]))
        total, best = total + reward, max(best, min(info["coverage"] / 0.95, 1.0))
        assert reward >= 0
        assert info["is_success"] == terminated == (info["coverage"] > 0.95)
        assert not truncated
        if terminated:
            break
    assert total == pytest.approx(best)
    assert best > 0.2
    assert info["coverage"] < 0.95 * best or terminated  # pushed on past the outline


@simulated
def test_image_observation_shows_the_block():
    env = push_t.PushTEnv(image=True)
    first, second = (env.reset(seed=seed)[0] for seed in (0, 1))
    assert first["image"].shape == (96, 96, 3)
    assert (first["image"] != second["image"]).any()
    np.testing.assert_allclose(first["agent"], push_t.start_state(0)[:2])


@simulated
def test_unknown_render_mode_is_an_error():
    with pytest.raises(ConfigError, match="rgb_array"):
        push_t.PushTEnv(render_mode="human")
