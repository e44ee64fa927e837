"""What `inspect` finds in recordings with known faults."""

from __future__ import annotations

import sys

import foreign_formats as formats
import h5py
import numpy as np
import pytest
from gymnasium.spaces import Box

from lit_imitation.data.inspection import Inspection, inspect_recording
from lit_imitation.data.sources import open_recording


def inspect(path, action_space=None, **options) -> Inspection:
    with open_recording(str(path), **options) as recording:
        return inspect_recording(recording, action_space=action_space)


WRITERS = {
    "robomimic HDF5": lambda path: formats.write_robomimic(path / "a.hdf5"),
    "Diffusion Policy zarr": lambda path: formats.write_zarr(path / "a.zarr"),
    "D4RL's layout with several observations": lambda path: formats.write_keyed(path / "a.hdf5"),
    "LeRobot v2.1": lambda path: formats.write_lerobot_2(path / "a"),
    "LeRobot v3.0": lambda path: formats.write_lerobot_3(path / "a"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_keys_ranges_lengths_and_returns_are_found(tmp_path, name):
    found = inspect(WRITERS[name](tmp_path))
    assert (found.format, found.episodes, found.steps) == (name, 3, 9)
    assert found.lengths == (2, 3, 4)
    keys = {key.name: key for key in found.keys}
    state = next(key for key in keys.values() if key.name.endswith(("state", "eef_pos")) and key.shape == (2,))
    assert (state.low, state.high, state.rows, state.total) == (-203, 203, 9, 9)
    image = next(key for key in keys.values() if key.shape == (8, 6, 3))
    assert image.low >= 0
    assert image.high <= 255
    if "zarr" in name:
        assert found.returns is None
        assert "no rewards are recorded: set data.expert_return for a normalized score" in found.notes
    else:
        assert found.returns == (1, pytest.approx(10 / 3), 6)
        assert found.terminated == 1
    assert found.faults == []
    assert found.multimodality is None, "3 episodes are too few"
    assert any("no next observations" in note for note in found.notes) == ("robomimic" not in name)


def test_plain_columns_are_inspected(tmp_path):
    done = np.arange(10) % 5 == 4
    held = {"observations": np.zeros((10, 3), np.float32), "actions": np.arange(10) % 3, "rewards": np.zeros(10)}
    np.savez(tmp_path / "a.npz", **held, terminals=done & (np.arange(10) < 5), timeouts=done)
    found = inspect(tmp_path / "a.npz")
    assert [(key.name, key.shape, key.dtype) for key in found.keys] == [
        ("observations", (3,), "float32"),
        ("actions", (), "int64"),
        ("rewards", (), "float64"),
    ]
    assert (found.episodes, found.terminated, found.actions_at_bounds) == (2, 1, None)
    assert "all returns are 0: set data.expert_return for a normalized score" in found.notes


def test_returns_of_whole_episodes_are_preferred(tmp_path):
    done = np.arange(4) == 3
    held = {"observations": np.zeros((4, 3)), "actions": np.arange(4), "rewards": np.ones(4), "terminals": done}
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        for key, value in (held | {"timeouts": ~done & done, "episode_returns": np.array([70.0])}).items():
            file[key] = value
    found = inspect(tmp_path / "a.hdf5")
    assert found.returns == (70, 70, 70)
    assert found.format == "D4RL's layout"


def test_video_without_av_is_noted(tmp_path, monkeypatch):
    path = formats.write_lerobot_2(tmp_path / "a", video=True)
    monkeypatch.setitem(sys.modules, "av", None)
    found = inspect(path)
    assert next(key for key in found.keys if key.name == "observation.image").low is None
    assert any("'observation.image' was not decoded" in note and "[video]" in note for note in found.notes)


def test_only_a_few_images_are_read(tmp_path):
    path = formats.write_robomimic(tmp_path / "a.hdf5", formats.episodes((6,) * 12))
    keys = {key.name: key for key in inspect(path).keys}
    assert (keys["agentview_image"].rows, keys["agentview_image"].total) == (30, 72)
    assert keys["object"].rows == 72


def change(path, changes) -> None:
    with h5py.File(path, "a") as file:
        for key, value in changes.items():
            del file[key]
            if value is not None:
                file[key] = value


FAULTS = {
    "NaN": ({"data/demo_1/obs/object": np.full((2, 3), np.nan)}, "'object': 6 values are NaN or infinite"),
    "length": ({"data/demo_1/rewards": np.zeros(7)}, "data/demo_1: lengths differ: 'rewards' has 7 rows, 'actions' 2"),
    "samples": (
        {"data/demo_1/actions": np.zeros((1, 2))},
        "data/demo_1: attribute 'num_samples' is 2, but 'actions' has 1 rows",
    ),
    "bounds": (
        {"data/demo_1/actions": np.array([[0, 3.0], [0.5, 0]])},
        "'actions': 5.6% of the components are out of bounds, most in component 1: -0.8525 to 3, bounds -1 to 1",
    ),
    "lower bound": (
        {"data/demo_1/actions": np.array([[-3.0, 0], [-2, 0]])},
        "'actions': 11.1% of the components are out of bounds, most in component 0: -3 to ",
    ),
    "missing key": ({"data/demo_2/obs/object": None}, "data/demo_2: lacks the observation 'object', which data/demo_0"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_listed(tmp_path, fault):
    path = formats.write_robomimic(tmp_path / "a.hdf5")
    changes, message = FAULTS[fault]
    change(path, changes)
    assert any(message in one for one in inspect(path).faults), inspect(path).faults


def test_constant_short_and_repeated_actions_are_listed(tmp_path):
    made = formats.episodes((3, 1, 2))
    for one in made:
        one["action"][:, 1] = 0.5
    path = formats.write_robomimic(tmp_path / "a.hdf5", [*made, made[2], made[0]])
    faults = inspect(path).faults
    assert "'actions', component 1 is 0.5 in all steps" in faults
    assert "1 of 5 episodes have one step: data/demo_1" in faults
    assert "data/demo_3 is the same as data/demo_2" in faults
    assert "data/demo_4 is the same as data/demo_0" in faults


def test_share_of_actions_at_bounds_counts_components(tmp_path):
    made = formats.episodes((4,))
    made[0]["action"][:] = [[-1, 0.2], [1, -1], [0.1, 1], [0.99, 0.3]]
    path = formats.write_robomimic(tmp_path / "a.hdf5", made)
    assert inspect(path).actions_at_bounds == 0.5
    assert inspect(path, Box(-2, 2, (2,))).actions_at_bounds == 0
    assert any("but the action space is" in one for one in inspect(path, Box(-2, 2, (3,))).faults)


def test_several_actions_in_the_same_state_are_told(tmp_path):
    rng = np.random.default_rng(0)
    made = []
    for side in rng.choice([-1.0, 1.0], 30):
        one = formats.episodes((20,))[0]
        one["state"], one["object"] = rng.normal(size=(20, 2)), rng.normal(size=(20, 3))
        one["action"] = np.stack([np.full(20, side), rng.uniform(-0.1, 0.1, 20)], 1)
        made.append(one)
    with open_recording(str(formats.write_robomimic(tmp_path / "a.hdf5", made, successors=False))) as recording:
        found = inspect_recording(recording, ["robot0_eef_pos"])
        assert found.multimodality.verdict == "several actions in the same state"
        other = inspect_recording(recording, ["elbow", "object"])
        assert other.faults[-1].startswith("there is no observation 'elbow', which data.observation_keys names; found ")
        assert other.keys == found.keys


def test_filter_keys_are_told_and_honored(tmp_path):
    path = formats.write_robomimic(tmp_path / "a.hdf5")
    assert inspect(path).metadata == {"env_name": "Lift", "filter_keys": "train, valid"}
    assert inspect(path, filter_key="valid").episodes == 1
