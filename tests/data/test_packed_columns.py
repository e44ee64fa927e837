"""Recordings with images and vectors, in every format, as packed observations."""

from __future__ import annotations

import foreign_formats as formats
import h5py
import numpy as np
import pytest
import torch
from cameras import write_two_cameras
from gymnasium.spaces import Box, Dict, Discrete

from lit_imitation import DemonstrationDataModule
from lit_imitation.data.demonstrations import (
    Demonstrations,
    demonstrations_of,
    read_all,
    read_demonstrations,
    write_demonstrations,
)
from lit_imitation.data.file_spaces import infer_spaces
from lit_imitation.errors import DemonstrationError
from lit_imitation.utils.spaces import FlatBox, PackedBox

ACTIONS = Box(-1, 1, (2,), np.float32)
IMAGE = Box(0, 255, (8, 6, 3), np.uint8)


def vector(size: int) -> Box:
    return Box(-np.inf, np.inf, (size,), np.float32)


def whole(key: str) -> np.ndarray:
    return np.concatenate([one[key] for one in formats.episodes()])


WRITERS = {
    "robomimic": (lambda path: formats.write_robomimic(path / "a.hdf5"), "agentview_image", "robot0_eef_pos", "object"),
    "zarr": (lambda path: formats.write_zarr(path / "a.zarr"), "img", "state", "keypoint"),
    "zarr zip": (lambda path: formats.write_zarr(path / "a.zarr.zip"), "img", "state", "keypoint"),
    "keyed hdf5": (lambda path: formats.write_keyed(path / "a.hdf5"), "camera", "state", "object"),
    "keyed npz": (lambda path: formats.write_keyed(path / "a.npz"), "camera", "state", "object"),
}
LEROBOT = ("observation.image", "observation.state", "observation.environment_state")
WRITERS |= {
    "LeRobot 2.1": (lambda path: formats.write_lerobot_2(path / "a"), *LEROBOT),
    "LeRobot 3.0": (lambda path: formats.write_lerobot_3(path / "a"), *LEROBOT),
    "LeRobot 2.1 with video": (lambda path: formats.write_lerobot_2(path / "a", video=True), *LEROBOT),
    "LeRobot 3.0 with video": (lambda path: formats.write_lerobot_3(path / "a", video=True), *LEROBOT),
}


def write(name, path):
    if "video" in name:
        pytest.importorskip("av", reason='needs pip install "lit-imitation[video]"')
    return WRITERS[name][0](path)


def read(source, **options):
    """Demonstrations of a file alone, with the space that is inferred, and the parts by path."""
    sources = read_all(str(source), **options)
    space, _ = infer_spaces(sources)
    demonstrations = demonstrations_of(sources, space, ACTIONS)
    return demonstrations, space, space.unflatten(demonstrations.transitions.observation.numpy())


@pytest.mark.parametrize("name", WRITERS)
def test_all_observations_of_a_file_keep_their_parts(tmp_path, name):
    _, image, state, thing = WRITERS[name]
    demonstrations, space, parts = read(write(name, tmp_path))
    assert isinstance(space, PackedBox)
    assert list(parts) == sorted(parts)
    assert {image, state, thing} <= set(parts)
    assert demonstrations.metadata["observation_keys"] == ", ".join(parts)
    np.testing.assert_allclose(parts[image], whole("camera"), atol="video" in name)
    assert parts[image].dtype == np.uint8, "also of zarr, whose floats are whole numbers from 0 to 255"
    np.testing.assert_array_equal(parts[state], whole("state"))
    object_ = np.repeat(whole("object")[:, :, None], 2, 2) if "zarr" in name else whole("object")
    np.testing.assert_array_equal(parts[thing], object_)
    numbers = 4 * sum(np.prod(part.space.shape) for part in space.parts if part.path != image)
    assert demonstrations.transitions.observation.shape == (9, -(-(8 * 6 * 3 + numbers) // 8) * 8)


@pytest.mark.parametrize("name", WRITERS)
def test_environment_chooses_parts_and_order(tmp_path, name):
    _, image, state, _ = WRITERS[name]
    if "zarr" in name:
        pytest.skip("its images are floats")
    space = PackedBox(Dict([(state, vector(2)), (image, IMAGE)]))
    observation = read_demonstrations(write(name, tmp_path), space, ACTIONS).transitions.observation.numpy()
    parts = space.unflatten(observation)
    np.testing.assert_array_equal(parts[state], whole("state"))
    np.testing.assert_allclose(parts[image], whole("camera"), atol="video" in name)


def test_keys_of_another_name_are_taken_in_the_environments_order(tmp_path):
    path = formats.write_robomimic(tmp_path / "a.hdf5")
    space = PackedBox(Dict([("camera", IMAGE), ("arm", vector(2))]))
    keys = ["agentview_image", "robot0_eef_pos"]
    parts = space.unflatten(
        read_demonstrations(path, space, ACTIONS, observation_keys=keys).transitions.observation.numpy()
    )
    np.testing.assert_array_equal(parts["camera"], whole("camera"))
    np.testing.assert_array_equal(parts["arm"], whole("state"))
    with pytest.raises(DemonstrationError, match="has 2 observations, camera, arm: name the key of each"):
        read_demonstrations(path, space, ACTIONS, observation_keys=keys[:1])


def test_chosen_keys_are_packed_in_their_order(tmp_path):
    path = formats.write_robomimic(tmp_path / "a.hdf5")
    _, space, parts = read(path, observation_keys=["object", "agentview_image"])
    assert list(parts) == ["object", "agentview_image"]
    _, space, vectors = read(path, observation_keys=["object", "robot0_eef_pos"])
    assert type(space) is FlatBox
    np.testing.assert_array_equal(vectors["object"], whole("object"))
    space, _ = infer_spaces(read_all(str(path), observation_keys=["agentview_image"]))
    assert space == IMAGE


def test_successors_are_read_where_they_are_needed(tmp_path):
    path = formats.write_robomimic(tmp_path / "a.hdf5")
    transitions = read(path)[0].transitions
    following = [np.concatenate([one["camera"][1:], one["last_camera"]]) for one in formats.episodes()]
    space = PackedBox(Dict([("agentview_image", IMAGE)]))
    found = read_demonstrations(path, space, ACTIONS).transitions.next_observation
    np.testing.assert_array_equal(space.unflatten(found.numpy())["agentview_image"], np.concatenate(following))
    assert transitions.next_observation is not None
    assert read(path, successors=False)[0].transitions.next_observation is None
    data = DemonstrationDataModule(demonstrations=str(path), val_fraction=0.4)
    data.setup("fit")
    assert data.train.next_observation is None, "BC needs none"


def test_floats_of_images_keep_what_they_hold(tmp_path):
    made = formats.episodes()
    for name, values in (("unit", lambda x: x / 255.0), ("fractions", lambda x: x / 2.0)):
        images = [values(one["camera"]).astype(np.float32) for one in made]
        path = formats.write_keyed(tmp_path / f"{name}.hdf5", **{"observations/camera": np.concatenate(images)})
        _, space, parts = read(path)
        np.testing.assert_array_equal(parts["camera"], np.concatenate(images))
        bounds = space.original["camera"].low.min(), space.original["camera"].high.max()
        assert bounds == ((0, 1) if name == "unit" else (-np.inf, np.inf))


def test_written_observations_can_be_read_by_others(tmp_path):
    original = Dict([("camera", IMAGE), ("kind", Discrete(3, start=1)), ("state", vector(2))])
    space = PackedBox(original)
    seen = {"camera": whole("camera"), "kind": np.arange(9) % 3 + 1, "state": whole("state")}
    plain = formats.write_keyed(tmp_path / "plain.hdf5", **{"observations/kind": seen["kind"]})
    demonstrations = read_demonstrations(plain, space, ACTIONS)
    assert torch.equal(demonstrations.transitions.observation, torch.from_numpy(space.flatten(seen)))
    for suffix in ("npz", "hdf5"):
        path = tmp_path / f"b.{suffix}"
        write_demonstrations(path, demonstrations, space)
        again = read_demonstrations(path, space, ACTIONS).transitions
        assert torch.equal(again.observation, demonstrations.transitions.observation)
        assert torch.equal(again.reward, demonstrations.transitions.reward)
        write_demonstrations(path, demonstrations)  # as bytes, like the cache
        again = read_demonstrations(path, space, ACTIONS).transitions
        assert torch.equal(again.observation, demonstrations.transitions.observation)
    with np.load(tmp_path / "b.npz") as held:
        assert held["observations"].shape == (9, *space.shape)


def test_vectors_are_chosen_for_a_space_without_parts(tmp_path):
    path = formats.write_keyed(tmp_path / "a.hdf5")
    given = {"type": "Box", "shape": [5]}
    data = DemonstrationDataModule(demonstrations=str(path), val_fraction=0.4, observation_space=given)
    data.setup("fit")
    assert data.train.observation.shape[1:] == (5,)


# --- faults ----------------------------------------------------------------------------------------------------------


def change(path, changes):
    with h5py.File(path, "a") as file:
        for key, value in changes.items():
            del file[key]
            if value is not None:
                file[key] = value
    return path


def pictures(*shape, dtype=np.uint8):
    return np.zeros(shape, dtype)


FRONT, WRIST, ARM = "obs/agentview_image", "obs/robot0_eye_in_hand_image", "obs/robot0_eef_pos"
FAULTS = {
    "ragged size": (
        {f"data/demo_2/{FRONT}": pictures(5, 32, 40, 3)},
        r"data/demo_2: 'agentview_image' has rows of shape \[32, 40, 3\], but those of data/demo_0 have \[40, 40, 3\]",
    ),
    "ragged count": (
        {f"data/demo_1/{WRIST}": pictures(2, 40, 40, 3)},
        "data/demo_1: lengths differ: 'robot0_eye_in_hand_image' has 2 rows and 'actions' 4",
    ),
    "missing camera": (
        {f"data/demo_3/{WRIST}": None},
        "data/demo_3: lacks the observation 'robot0_eye_in_hand_image', which data/demo_0 has",
    ),
    "another type": (
        {f"data/demo_1/{FRONT}": pictures(4, 40, 40, 3, dtype=np.float32)},
        "data/demo_1: 'agentview_image' holds images of float32, but those of data/demo_0 are uint8",
    ),
    "NaN": (
        {f"data/demo_1/{ARM}": np.array([[0, 0, 0]] * 3 + [[0, np.nan, 0]])},
        r"part 'robot0_eef_pos', column 1 is nan, which is not finite",
    ),
    "text": ({f"data/demo_0/{ARM}": np.array([b"a"] * 3)}, "'robot0_eef_pos' holds .*; numbers are needed"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_cameras_are_one_error_with_file_episode_and_key(tmp_path, fault):
    changes, message = FAULTS[fault]
    path = change(write_two_cameras(tmp_path / "a.hdf5"), changes)
    data = DemonstrationDataModule(demonstrations=str(path))
    with pytest.raises(DemonstrationError, match=message) as caught:
        data.setup("fit")
    assert str(path) in str(caught.value)


def test_images_of_another_size_than_the_environments_are_refused(tmp_path):
    path = formats.write_keyed(tmp_path / "a.hdf5")
    space = PackedBox(Dict([("camera", Box(0, 255, (9, 6, 3), np.uint8)), ("state", vector(2))]))
    with pytest.raises(DemonstrationError, match=r"episode 0: 'camera' has rows of shape \[8, 6, 3\], but"):
        read_demonstrations(path, space, ACTIONS)


def test_floats_for_an_environments_bytes_are_refused(tmp_path):
    images = whole("camera").astype(np.float32)
    path = formats.write_keyed(tmp_path / "a.hdf5", **{"observations/camera": images})
    space = PackedBox(Dict([("camera", IMAGE), ("state", vector(2))]))
    with pytest.raises(DemonstrationError, match=r"episode 0: 'camera' holds float32, .*write it unchanged, as uint8"):
        read_demonstrations(path, space, ACTIONS)


def test_choices_outside_the_environments_are_refused(tmp_path):
    path = formats.write_keyed(tmp_path / "a.hdf5", **{"observations/kind": np.arange(9) % 4})
    space = PackedBox(Dict([("camera", IMAGE), ("kind", Discrete(3))]))
    with pytest.raises(DemonstrationError, match=r"row 0 of episode 1, part 'kind' is 3, outside Discrete\(3\)"):
        read_demonstrations(path, space, ACTIONS)


def test_files_with_different_cameras_are_refused(tmp_path):
    one = write_two_cameras(tmp_path / "a.hdf5")
    other = write_two_cameras(tmp_path / "b.hdf5", side=36)
    data = DemonstrationDataModule(demonstrations=[str(one), str(other)])
    with pytest.raises(DemonstrationError, match=r"b.hdf5.*\[36, 36, 3\] of uint8.* but .*a.hdf5.*\[40, 40, 3\]"):
        data.setup("fit")


def test_bytes_of_another_environment_are_refused(tmp_path):
    space, other = (PackedBox(Dict([("camera", IMAGE), ("state", vector(size))])) for size in (2, 7))
    demonstrations = read_demonstrations(formats.write_keyed(tmp_path / "a.npz"), space, ACTIONS)
    write_demonstrations(tmp_path / "b.npz", Demonstrations(*demonstrations))
    with pytest.raises(DemonstrationError, match="are these demonstrations of another environment"):
        read_demonstrations(tmp_path / "b.npz", other, ACTIONS)
