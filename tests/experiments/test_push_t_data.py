"""Push-T demonstrations as the environment would record them, and their mirror image."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.push_t import mirrored, prepare
from lit_imitation.envs.push_t import PushTEnv, keypoints

STATE = np.array([[100.0, 200, 300, 150, 0.4], [110, 210, 301, 149, 0.5], [50, 60, 200, 220, -1.0]], np.float32)
ACTION = np.array([[120.0, 230], [130, 220], [55, 80]], np.float32)
DONE = np.array([False, True, True])


def source(tmp_path):
    np.savez(tmp_path / "human.npz", observations=STATE, actions=ACTION, terminals=np.zeros(3, bool), timeouts=DONE)
    return tmp_path / "human.npz"


def test_columns_hold_keypoints_agent_and_action(tmp_path):
    columns = prepare(source(tmp_path), mirror=False)
    np.testing.assert_allclose(columns["observations"][1, :18].reshape(9, 2), keypoints(STATE[1, 2:]), rtol=1e-5)
    np.testing.assert_array_equal(columns["observations"][:, 18:], STATE[:, :2])
    np.testing.assert_array_equal(columns["actions"], ACTION)
    np.testing.assert_array_equal(columns["timeouts"], DONE)


def test_mirrored_episodes_follow(tmp_path):
    columns = prepare(source(tmp_path), mirror=True)
    np.testing.assert_array_equal(columns["actions"][:3], ACTION)
    displacement = columns["actions"] - columns["observations"][:, 18:]
    np.testing.assert_allclose(displacement[3:], -displacement[:3, ::-1])  # (dx, dy) → (−dy, −dx)
    np.testing.assert_array_equal(columns["timeouts"], np.tile(DONE, 2))


def test_mirror_is_a_reflection_that_keeps_the_goal():
    state, action = mirrored(STATE.astype(np.float64), ACTION.astype(np.float64))
    again = mirrored(state, action)
    np.testing.assert_allclose(again[0], STATE, rtol=1e-6)
    np.testing.assert_allclose(again[1], ACTION)
    goal = np.array([[0.0, 0, 256, 256, np.pi / 4]])
    np.testing.assert_allclose(mirrored(goal, goal[:, :2])[0][:, 2:], goal[:, 2:])
    # The block is symmetric about its own y axis, so a point (x, y) of it goes where (−x, y) is after the reflection.
    cos, sin = np.cos(STATE[0, 4]), np.sin(STATE[0, 4])
    point = STATE[0, 2:4] + [cos * 20 - sin * 90, sin * 20 + cos * 90]
    angle = state[0, 4]
    image = state[0, 2:4] + [np.cos(angle) * -20 - np.sin(angle) * 90, np.sin(angle) * -20 + np.cos(angle) * 90]
    np.testing.assert_allclose(image, 512 - point[::-1], rtol=1e-6)


def test_first_demonstrations_are_whole(tmp_path):
    columns = prepare(source(tmp_path), mirror=False, demonstrations=1)
    np.testing.assert_array_equal(columns["actions"], ACTION[:2])
    assert columns["timeouts"].tolist() == [False, True]


def test_images_show_the_recorded_states(tmp_path):
    pytest.importorskip("gym_pusht")
    columns = prepare(source(tmp_path), mirror=False, image=True)
    np.testing.assert_allclose(columns["observations/agent"], STATE[:, :2])
    assert columns["observations/image"].shape == (3, 96, 96, 3)
    env = PushTEnv(image=True)
    expected = env.reset(options={"state": STATE[2].astype(np.float64)})[0]["image"]
    np.testing.assert_array_equal(columns["observations/image"][2], expected)
    assert (columns["observations/image"][0] != expected).any()
