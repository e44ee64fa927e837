"""Files in the published layouts of robomimic, Diffusion Policy, and LeRobot, and D4RL's with several observations."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import foreign_formats as formats
import gymnasium
import h5py
import numpy as np
import pytest
import torch
from foreign_formats import episodes
from gymnasium.spaces import Box, Discrete

from lit_imitation.data.demonstration_module import DemonstrationDataModule
from lit_imitation.data.demonstrations import read_demonstrations
from lit_imitation.data.sources import open_recording
from lit_imitation.errors import DemonstrationError, MissingExtraError
from lit_imitation.utils import integrity
from lit_imitation.utils.spaces import FlatBox

ACTIONS = Box(-1, 1, (2,), np.float32)
PICTURE = Box(0, 255, (8, 6, 3), np.uint8)
STARTS = np.cumsum([0, *formats.LENGTHS])


def vectors(size: int) -> Box:
    return Box(-np.inf, np.inf, (size,), np.float32)


def whole(key: str, following: bool = False) -> np.ndarray:
    """Rows of all episodes, or the successors of these rows."""
    made = episodes()
    if following:
        return np.concatenate([np.concatenate([one[key][1:], one[f"last_{key}"]]) for one in made])
    return np.concatenate([one[key] for one in made])


WRITERS = {
    "robomimic": (lambda path: formats.write_robomimic(path / "a.hdf5"), ["robot0_eef_pos", "object"], True),
    "zarr": (lambda path: formats.write_zarr(path / "a.zarr"), ["state", "keypoint"], False),
    "zarr zip": (lambda path: formats.write_zarr(path / "a.zarr.zip"), ["state", "keypoint"], False),
    "LeRobot 2.1": (
        lambda path: formats.write_lerobot_2(path / "a"),
        ["observation.state", "observation.environment_state"],
        False,
    ),
    "LeRobot 3.0": (
        lambda path: formats.write_lerobot_3(path / "a"),
        ["observation.state", "observation.environment_state"],
        False,
    ),
    "LeRobot 3.0 in two files": (
        lambda path: formats.write_lerobot_3(path / "a", files=2),
        ["observation.state", "observation.environment_state"],
        False,
    ),
    "keyed hdf5": (lambda path: formats.write_keyed(path / "a.hdf5"), ["state", "object"], False),
    "keyed npz": (lambda path: formats.write_keyed(path / "a.npz"), ["state", "object"], False),
}


@pytest.mark.parametrize("name", WRITERS)
def test_chosen_observations_are_joined_in_order(tmp_path, name):
    write, keys, successors = WRITERS[name]
    path = write(tmp_path)
    repeated = "zarr" in name  # a keypoint has two numbers, both the object's
    shown = whole("object").repeat(2, 1) if repeated else whole("object")
    expected = np.concatenate([whole("state"), shown], 1)
    read = read_demonstrations(path, vectors(expected.shape[1]), ACTIONS, observation_keys=keys)
    np.testing.assert_array_equal(read.transitions.observation, expected)
    np.testing.assert_array_equal(read.transitions.action, whole("action"))
    done = read.transitions.done.nonzero()[:, 0]
    assert done.tolist() == (STARTS[1:] - 1).tolist()
    assert read.transitions.terminated.nonzero()[:, 0].tolist() == ([] if repeated else [STARTS[1] - 1])
    assert read.metadata["observation_keys"] == ", ".join(keys)
    if not repeated:
        assert read.episode_returns.tolist() == [3, 1, 6]
    assert (read.transitions.next_observation is not None) == successors
    if successors:
        following = np.concatenate([whole("state", True), whole("object", True)], 1)
        np.testing.assert_array_equal(read.transitions.next_observation, following)


@pytest.mark.parametrize("name", WRITERS)
def test_default_observations_are_all_but_images(tmp_path, name):
    write, keys, _ = WRITERS[name]
    more = ["n_contacts"] if "zarr" in name else []
    read = read_demonstrations(write(tmp_path), vectors(9 if more else 5), ACTIONS)
    assert read.metadata["observation_keys"] == ", ".join(sorted([*keys, *more]))


IMAGES = {
    "robomimic": "agentview_image",
    "LeRobot 2.1": "observation.image",
    "LeRobot 3.0": "observation.image",
    "keyed hdf5": "camera",
    "keyed npz": "camera",
}


@pytest.mark.parametrize("name", IMAGES)
def test_one_image_is_read_as_it_is(tmp_path, name):
    read = read_demonstrations(WRITERS[name][0](tmp_path), PICTURE, ACTIONS, observation_keys=[IMAGES[name]])
    assert torch.equal(read.transitions.observation, torch.from_numpy(whole("camera")))


@pytest.mark.parametrize("name", IMAGES)
def test_image_in_a_vector_is_refused_with_a_hint(tmp_path, name):
    keys = [WRITERS[name][1][0], IMAGES[name]]
    with pytest.raises(DemonstrationError, match=rf"'{IMAGES[name]}' is an image \[8, 6, 3\].*data.observation_keys"):
        read_demonstrations(WRITERS[name][0](tmp_path), vectors(5), ACTIONS, observation_keys=keys)


@pytest.mark.parametrize("name", WRITERS)
def test_unknown_observation_key_is_named(tmp_path, name):
    with pytest.raises(DemonstrationError, match=r"no observation 'elbow', which data\.observation_keys names; found "):
        read_demonstrations(WRITERS[name][0](tmp_path), vectors(5), ACTIONS, observation_keys=["elbow"])


def test_keys_of_plain_observations_are_refused(tmp_path):
    held = {"observations": np.zeros((2, 3)), "actions": np.zeros((2, 2)), "terminals": np.array([0, 1])}
    np.savez(tmp_path / "a.npz", **held, timeouts=np.zeros(2))
    with pytest.raises(DemonstrationError, match=r"one array without keys: leave out data\.observation_keys"):
        read_demonstrations(tmp_path / "a.npz", vectors(3), ACTIONS, observation_keys=["state"])


def test_dict_space_of_the_environment_chooses_keys(tmp_path):
    """In its order, and one-hot where it is discrete."""
    kind = np.array([0, 1, 2, 1, 0, 2, 2, 1, 0])
    path = formats.write_keyed(tmp_path / "a.hdf5", **{"observations/kind": kind})
    space = gymnasium.spaces.Dict(
        [("object", vectors(3)), ("kind", Discrete(3)), ("state", Box(-np.inf, np.inf, (2,), np.float32))]
    )
    read = read_demonstrations(path, FlatBox(space), ACTIONS)
    expected = [
        gymnasium.spaces.flatten(space, {"object": thing, "kind": one, "state": state})
        for thing, one, state in zip(whole("object"), kind, whole("state"), strict=True)
    ]
    np.testing.assert_array_equal(read.transitions.observation, np.stack(expected))
    with pytest.raises(DemonstrationError, match="no observation 'elbow', which the environment names"):
        read_demonstrations(path, FlatBox(gymnasium.spaces.Dict(elbow=vectors(3))), ACTIONS)


def test_data_module_passes_keys_and_filter(tmp_path):
    made = episodes()
    for one in made:
        one["action"] = one["action"][:, :1]
    path = formats.write_robomimic(tmp_path / "a.hdf5", made)
    data = DemonstrationDataModule(
        "Pendulum-v1", demonstrations=path, observation_keys=["object"], filter_key="valid", val_fraction=0.0
    )
    data.setup("fit")
    np.testing.assert_array_equal(data.train.observation, made[2]["object"])


def test_several_files_and_folders_of_files_are_joined(tmp_path):
    (tmp_path / "two").mkdir()
    for name in ("a", "b"):
        formats.write_robomimic(tmp_path / f"two/{name}.hdf5")
    read = read_demonstrations(tmp_path / "two", vectors(5), ACTIONS, filter_key="valid")
    assert read.transitions.episode_lengths().tolist() == [4, 4]
    assert read.metadata["filter_key"] == "valid"


# --- robomimic -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("filter_key", "lengths"), [("train", [3, 2]), ("valid", [4]), ("", [3, 2, 4])])
def test_filter_key_chooses_demonstrations(tmp_path, filter_key, lengths):
    path = formats.write_robomimic(tmp_path / "a.hdf5")
    read = read_demonstrations(path, vectors(5), ACTIONS, filter_key=filter_key)
    assert read.transitions.episode_lengths().tolist() == lengths
    assert read.metadata["env_name"] == "Lift"


def test_demonstrations_are_in_the_order_of_their_numbers(tmp_path):
    made = episodes((1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12))
    path = formats.write_robomimic(tmp_path / "a.hdf5", made)
    read = read_demonstrations(path, vectors(5), ACTIONS)
    assert read.transitions.episode_lengths().tolist() == list(range(1, 13))


def test_success_before_the_end_does_not_cut_the_episode(tmp_path):
    path = formats.write_robomimic(tmp_path / "a.hdf5")
    with h5py.File(path, "a") as file:
        file["data/demo_2/dones"][...] = [0, 1, 1, 1]
    read = read_demonstrations(path, vectors(5), ACTIONS)
    assert read.transitions.episode_lengths().tolist() == [3, 2, 4]
    assert read.transitions.terminated.nonzero()[:, 0].tolist() == [2, 8]


def change(path: str, value=None):
    def apply(file: h5py.File) -> None:
        del file[path]
        if value is not None:
            file[path] = value

    return apply


ROBOMIMIC_FAULTS = {
    "actions": (change("data/demo_1/actions"), "a robomimic file without actions: 'data/demo_1' has only"),
    "observations": (change("data/demo_1/obs"), "without observations.*dataset_states_to_obs"),
    "one observation": (change("data/demo_1/obs/object"), "data/demo_1: lacks the observation 'object'"),
    "length": (change("data/demo_1/obs/object", np.zeros((5, 3))), "data/demo_1: lengths differ: 'object' has 5 rows"),
    "rewards": (change("data/demo_1/rewards", np.zeros(7)), "data/demo_1: lengths differ: 'rewards' has 7 rows"),
    "successors": (change("data/demo_2/next_obs/object", np.zeros((9, 3))), "'next_obs/object' has 9 rows"),
    "width": (change("data/demo_2/obs/object", np.zeros((4, 2))), r"demo_2: 'object' has rows of shape \[2\], but"),
    "camera": (
        change("data/demo_2/obs/agentview_image", np.zeros((4, 9, 6, 3), np.uint8)),
        r"'agentview_image' has rows of shape \[9, 6, 3\]",
    ),
    "nan": (change("data/demo_2/actions", np.full((4, 2), np.nan)), "'actions', row 0 of data/demo_2, column 0 is nan"),
    "scalar": (change("data/demo_2/actions", 1.0), "'data/demo_2/actions' is not a list of rows"),
    "text": (change("data/demo_2/obs/object", np.array([[b"a"] * 3] * 4)), "'object' holds .S1; numbers are needed"),
    "filter key": (change("mask/train"), "no filter key mask/train, which data.filter_key names; found valid"),
    "filter key with numbers": (change("mask/train", np.zeros(3)), "'mask/train' is not a list of names"),
    "filter key with unknown names": (change("mask/train", np.array([b"demo_9"])), "'mask/train' names demo_9"),
    "no demonstrations": (change("data/demo_0"), None),
}


@pytest.mark.parametrize("fault", ROBOMIMIC_FAULTS)
def test_faulty_robomimic_file_is_refused(tmp_path, fault):
    path = formats.write_robomimic(tmp_path / "a.hdf5")
    apply, message = ROBOMIMIC_FAULTS[fault]
    with h5py.File(path, "a") as file:
        apply(file)
        if message is None:
            del file["data/demo_1"], file["data/demo_2"], file["mask"]
    with pytest.raises(DemonstrationError, match=message or "without demonstrations") as caught:
        read_demonstrations(path, vectors(5), ACTIONS, filter_key="train" if "filter" in fault else "")
    assert str(path) in str(caught.value)


def test_filter_key_of_another_format_is_refused(tmp_path):
    with pytest.raises(DemonstrationError, match=r"data\.filter_key train is for robomimic files"):
        read_demonstrations(formats.write_keyed(tmp_path / "a.npz"), vectors(5), ACTIONS, filter_key="train")


# --- D4RL's keys -----------------------------------------------------------------------------------------------------

KEYED_FAULTS = {
    "length": ({"observations/object": np.zeros((8, 3))}, "lengths differ: 'observations/object' has 8 rows"),
    "flags": ({"timeouts": np.zeros(4)}, "'timeouts' 4; each needs one row per step"),
    "no end": ({"timeouts": np.zeros(9)}, "no episode end"),
    "numbers for flags": ({"terminals": np.arange(9)}, "'terminals' must hold one flag per row"),
    "no actions": ({"actions": None}, "missing key 'actions'"),
}


@pytest.mark.parametrize("suffix", [".npz", ".hdf5"])
@pytest.mark.parametrize("fault", KEYED_FAULTS)
def test_faulty_keyed_file_is_refused(tmp_path, fault, suffix):
    changes, message = KEYED_FAULTS[fault]
    with pytest.raises(DemonstrationError, match=message):
        read_demonstrations(formats.write_keyed(tmp_path / f"a{suffix}", **changes), vectors(5), ACTIONS)


def test_weights_and_returns_of_a_keyed_file_are_read(tmp_path):
    more = {"weights": np.arange(9.0), "episode_returns": np.array([10.0, 20, 30])}
    read = read_demonstrations(formats.write_keyed(tmp_path / "a.hdf5", **more), vectors(5), ACTIONS)
    assert read.transitions.weight.tolist() == list(range(9))
    assert read.episode_returns.tolist() == [10, 20, 30]


def test_keyed_successors_are_read(tmp_path):
    path = formats.write_keyed(tmp_path / "a.hdf5", **{"next_observations/state": whole("state", True)})
    read = read_demonstrations(path, vectors(2), ACTIONS, observation_keys=["state"])
    np.testing.assert_array_equal(read.transitions.next_observation, whole("state", True))


# --- zarr ------------------------------------------------------------------------------------------------------------


@pytest.mark.integration
@pytest.mark.parametrize("codec", ["Zlib", "GZip", "Zstd", "LZ4", "Blosc", None])
def test_zarr_codecs_are_read(tmp_path, codec):
    numcodecs = pytest.importorskip("numcodecs")
    path = formats.write_zarr(tmp_path / "a.zarr", codec=getattr(numcodecs, codec)() if codec else None)
    read = read_demonstrations(path, vectors(2), ACTIONS, observation_keys=["state"])
    np.testing.assert_array_equal(read.transitions.observation, whole("state"))


def array_json(path: Path, **changes) -> None:
    file = path / ".zarray"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def bomb(chunk: Path) -> None:
    """A header of blosc that declares 2 GiB."""
    content = bytearray(chunk.read_bytes())
    content[4:8] = (2**31 - 1).to_bytes(4, "little")
    chunk.write_bytes(bytes(content))


ZARR_FAULTS = {
    "no ends": (lambda path: (path / "meta/episode_ends/.zarray").unlink(), "zarr store without meta/episode_ends"),
    "no actions": (lambda path: (path / "data/action/.zarray").unlink(), "missing key 'data/action'"),
    "objects": (lambda path: array_json(path / "data/state", dtype="|O"), "objects are never opened"),
    "a pickle filter": (
        lambda path: array_json(path / "data/state", filters=[{"id": "pickle", "protocol": 5}]),
        "filters .*pickle.*, which is not read",
    ),
    "a codec of others": (
        lambda path: array_json(path / "data/img", compressor={"id": "imagecodecs_jpegxl"}),
        "the codec 'imagecodecs_jpegxl', which is not read: write it with one of blosc",
    ),
    "huge": (lambda path: array_json(path / "data/state", shape=[10**12, 2]), "not plausible"),
    "large": (lambda path: array_json(path / "data/state", shape=[10**9, 2], chunks=[10**9, 2]), "would take 8,000"),
    "chunk of a bomb": (
        lambda path: bomb(path / "data/state/0.0"),
        "the chunk data/state/0.0 has .* bytes that unpack to 2147483647, not to 40",
    ),
    "chunk of another size": (
        lambda path: array_json(path / "data/state", chunks=[7, 2]),
        "unpack to 40, not to 56",
    ),
    "shorter": (lambda path: array_json(path / "data/state", shape=[6, 2]), "'data/state' has 6 rows, but 'meta/epis"),
    "no JSON": (lambda path: (path / "data/state/.zarray").write_text("["), "does not describe a zarr v2 array"),
}


@pytest.mark.integration
@pytest.mark.parametrize("fault", ZARR_FAULTS)
def test_faulty_zarr_store_is_refused(tmp_path, fault):
    pytest.importorskip("zarr")
    path = formats.write_zarr(tmp_path / "a.zarr")
    apply, message = ZARR_FAULTS[fault]
    apply(path)
    with pytest.raises(DemonstrationError, match=message) as caught:
        read_demonstrations(path, vectors(9), ACTIONS)
    assert str(path) in str(caught.value)


@pytest.mark.integration
@pytest.mark.parametrize("ends", [[3, 3, 9], [5, 3, 9], [], [0, 9]])
def test_ends_that_do_not_increase_are_refused(tmp_path, ends):
    zarr = pytest.importorskip("zarr")
    path = formats.write_zarr(tmp_path / "a.zarr")
    made = zarr.open_group(zarr.storage.LocalStore(path), mode="a", zarr_format=2)
    made.create_array("meta/episode_ends", data=np.array(ends, np.int64), overwrite=True, compressors=None)
    with pytest.raises(DemonstrationError, match="'meta/episode_ends'"):
        read_demonstrations(path, vectors(9), ACTIONS)


# --- LeRobot ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [formats.write_lerobot_2, formats.write_lerobot_3])
def test_videos_are_decoded_frame_by_frame(tmp_path, write):
    pytest.importorskip("av", reason='needs pip install "lit-imitation[video]"')
    path = write(tmp_path / "a", video=True)
    read = read_demonstrations(path, PICTURE, ACTIONS, observation_keys=["observation.image"])
    np.testing.assert_allclose(read.transitions.observation.numpy(), whole("camera"), atol=1)
    with open_recording(str(path)) as recording:
        frames = recording.episodes[2].observation["observation.image"]
        np.testing.assert_allclose(frames[1:4:2], episodes()[2]["camera"][1:4:2], atol=1)
        np.testing.assert_allclose(frames[3:], episodes()[2]["camera"][3:], atol=1)


def info(path: Path, **changes) -> None:
    file = path / "meta/info.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def feature(path: Path, name: str, **changes) -> None:
    held = json.loads((path / "meta/info.json").read_text())["features"]
    info(path, features=held | {name: held.get(name, {}) | changes})


LEROBOT_FAULTS = {
    "v2.0": (
        lambda path: info(path, codebase_version="v2.0"),
        "this is a LeRobot v2.0 folder: convert it with lerobot",
    ),
    "v1.6": (
        lambda path: info(path, codebase_version="v1.6"),
        "this is a LeRobot v1.6 folder: convert it with lerobot",
    ),
    "v9": (lambda path: info(path, codebase_version="v9"), "of version v9; versions that are read: v2.1, v3.0"),
    "no actions": (lambda path: info(path, features={}), "missing key 'action'"),
    "template outside": (lambda path: info(path, data_path="../{episode_index}.parquet"), "not a path in this folder"),
    "template of an attribute": (
        lambda path: info(path, data_path="data/{episode_index.__class__}.parquet"),
        "not a path in this folder",
    ),
    "template of nothing": (lambda path: info(path, data_path="data/{x:03d}.parquet"), "{x:03d} is None"),
    "no file": (lambda path: info(path, data_path="data/none.parquet"), "no such file"),
    "episodes": (lambda path: info(path, total_episodes=7), None),
    "no column": (
        lambda path: feature(path, "observation.other", dtype="float32", shape=[1]),
        "no column 'observation.o",
    ),
    "width": (lambda path: feature(path, "action", shape=[3]), r"rows of shape \[2\], but meta/info.json says \[3\]"),
    "size": (
        lambda path: feature(path, "observation.image", shape=[9, 6, 3]),
        "8×6 pixels, but meta/info.json says 9×6",
    ),
    "endless image": (lambda path: feature(path, "observation.image", shape=[10**9, 6, 3]), "has shape"),
    "objects": (lambda path: feature(path, "action", dtype="object"), "'action' holds object; numbers are needed"),
}


@pytest.mark.integration
@pytest.mark.parametrize("write", [formats.write_lerobot_2, formats.write_lerobot_3])
@pytest.mark.parametrize("fault", LEROBOT_FAULTS)
def test_faulty_lerobot_folder_is_refused(tmp_path, fault, write):
    pytest.importorskip("pyarrow")
    path = write(tmp_path / "a")
    apply, message = LEROBOT_FAULTS[fault]
    apply(path)
    keys = ["observation.image"] if fault == "size" else None
    if message is None:
        with open_recording(str(path)) as recording:
            assert recording.faults == ["meta/info.json: 'total_episodes' is 7, but the table of episodes has 3"]
        return
    with pytest.raises(DemonstrationError, match=message) as caught:
        read_demonstrations(path, PICTURE if keys else vectors(5), ACTIONS, observation_keys=keys)
    assert str(path) in str(caught.value)


def test_truncated_episode_is_not_terminated(tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    pa = pytest.importorskip("pyarrow")
    path = formats.write_lerobot_2(tmp_path / "a")
    feature(path, "next.truncated", dtype="bool", shape=[1])
    for number, length in enumerate(formats.LENGTHS):
        file = path / f"data/chunk-000/episode_{number:06d}.parquet"
        last = np.arange(length) == length - 1
        table = pq.read_table(file).drop_columns(["next.done"])
        table = table.append_column("next.done", pa.array(last))
        pq.write_table(table.append_column("next.truncated", pa.array(last & (number == 1))), file)
    read = read_demonstrations(path, vectors(5), ACTIONS)
    assert read.transitions.terminated.nonzero()[:, 0].tolist() == [2, 8]
    assert read.transitions.truncated.nonzero()[:, 0].tolist() == [4]


def test_many_equal_values_in_a_small_file_are_refused(tmp_path, monkeypatch):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = formats.write_lerobot_2(tmp_path / "a")
    zeros = pa.repeat(pa.scalar(0.0, pa.float32()), 1_000_000)
    pq.write_table(pa.table({"action": pa.FixedSizeListArray.from_arrays(zeros, 800)}),
                   path / "data/chunk-000/episode_000001.parquet", compression="zstd")  # fmt: skip
    monkeypatch.setattr(integrity, "FREE_BYTES", 2**20)
    with pytest.raises(DemonstrationError, match="its 1,000,000 values would take 8,000,000 bytes"):
        read_demonstrations(path, vectors(5), ACTIONS)


def test_length_of_the_table_of_episodes_is_compared(tmp_path):
    pytest.importorskip("pyarrow")
    path = formats.write_lerobot_2(tmp_path / "a")
    table = path / "meta/episodes.jsonl"
    table.write_text(table.read_text().replace('"length": 2', '"length": 3'))
    with pytest.raises(DemonstrationError, match="has 2 rows of episode 1, but the table of episodes says 3"):
        read_demonstrations(path, vectors(5), ACTIONS)


def test_image_in_another_file_is_not_opened(tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    pa = pytest.importorskip("pyarrow")
    path = formats.write_lerobot_2(tmp_path / "a")
    file = path / "data/chunk-000/episode_000000.parquet"
    table = pq.read_table(file)
    kind = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
    images = pa.array([{"bytes": None, "path": "/etc/passwd"}] * len(table), kind)
    pq.write_table(table.set_column(table.column_names.index("observation.image"), "observation.image", images), file)
    with pytest.raises(DemonstrationError, match="no bytes of an image; images in other files are not opened"):
        read_demonstrations(path, PICTURE, ACTIONS, observation_keys=["observation.image"])


# --- missing packages ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        ("zarr", "zarr", "zarr"),
        ("LeRobot 2.1", "pyarrow.parquet", "lerobot"),
        ("LeRobot 3.0", "pyarrow.parquet", "lerobot"),
    ],
)
def test_missing_package_is_one_line_with_the_extra(tmp_path, monkeypatch, name, module, extra):
    path = WRITERS[name][0](tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        MissingExtraError, match=rf'needs {module.split(".")[0]}: pip install "lit-imitation\[{extra}\]"'
    ):
        read_demonstrations(path, vectors(5), ACTIONS)


def test_missing_av_is_one_line_with_the_extra(tmp_path, monkeypatch):
    path = formats.write_lerobot_2(tmp_path / "a", video=True)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r'needs av: pip install "lit-imitation\[video\]"'):
        read_demonstrations(path, PICTURE, ACTIONS, observation_keys=["observation.image"])
    assert read_demonstrations(path, vectors(5), ACTIONS).metadata["observation_keys"], "vectors need no video"
