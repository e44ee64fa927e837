"""A file that cannot be read as demonstrations is named as what it is."""

from __future__ import annotations

import gzip
import json
import pickle
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from demonstration_files import PAIR, VECTOR

from lit_imitation.data.demonstrations import read_demonstrations
from lit_imitation.errors import DemonstrationError


def zipped(**members: bytes):
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name.replace("__", "/"), content)

    return write


def hdf5(*names: str):
    def write(path: Path) -> None:
        with h5py.File(path, "w") as file:
            for name in names:
                file[name] = np.zeros(3)

    return write


def content(data: bytes):
    return lambda path: path.write_bytes(data)


FILES = {
    "a.ckpt": (lambda path: torch.save({"a": 1}, path), "this is a PyTorch checkpoint, not recorded episodes"),
    "old.pt": (
        lambda path: torch.save({"a": 1}, path, _use_new_zipfile_serialization=False),
        "this is a PyTorch checkpoint in torch's old format",
    ),
    "a.pkl": (content(pickle.dumps([1])), "this is a pickle, which is not opened because it could run code"),
    "a.npy": (lambda path: np.save(path, np.zeros(3)), r"this is a single array \(.npy\)"),
    "a.parquet": (
        content(b"PAR1" + bytes(60)),
        "this is a single parquet file: give the folder of the LeRobot dataset",
    ),
    "a.npz.gz": (content(gzip.compress(b"x")), "this is a gzip file: unpack it first"),
    "a.mp4": (content(b"\0\0\0\x20ftypisom" + bytes(60)), "this is a video: give the folder"),
    "a.safetensors": (
        content((20).to_bytes(8, "little") + b'{"weight":{}}' + bytes(60)),
        "this is a safetensors file, the weights of a network",
    ),
    "a.bag": (content(b"#ROSBAG V2.0\n" + bytes(60)), "this is a ROS bag"),
    "a.mcap": (content(b"\x89MCAP0\r\n" + bytes(60)), "this is an MCAP recording"),
    "x.tfrecord-00000-of-00001": (content(bytes(80)), r"this is a file of a TensorFlow dataset \(RLDS\)"),
    "policy.zip": (zipped(**{"policy.pth": b"", "data": b""}), "this is a Stable-Baselines3 policy.*sb3:PATH"),
    "lerobot.zip": (zipped(a__meta__info=b"", **{"a/meta/info.json": b"{}"}), "a zipped LeRobot dataset: unpack it"),
    "three.zarr.zip": (zipped(**{"zarr.json": b"{}"}), "this is a zarr v3 store.*zarr_format=2"),
    "two.zarr.zip": (zipped(**{".zgroup": b"{}"}), "this is a zarr store without meta/episode_ends"),
    "text.zip": (zipped(readme=b""), "this is a zip archive without arrays"),
    "text.npz": (zipped(readme=b""), "its name says npz, but it is a zip archive without arrays"),
    "minari.hdf5": (hdf5("episode_0/actions"), "it is the main_data.hdf5 of a Minari dataset: write minari:"),
    "aloha.hdf5": (hdf5("action", "observations/qpos"), r"it is an episode of ALOHA \(ACT\)"),
    "keras.h5": (hdf5("model_weights/a"), "it is the weights of a Keras network"),
    "a.hdf5": (content(pickle.dumps([1])), "its name says hdf5, but it is a pickle"),
    "empty.npz": (content(b""), r"it is an empty file \(0 bytes\)"),
}


@pytest.mark.parametrize("name", FILES)
def test_file_is_named_as_what_it_is(tmp_path, name):
    write, message = FILES[name]
    write(tmp_path / name)
    with pytest.raises(DemonstrationError, match=message) as caught:
        read_demonstrations(tmp_path / name, VECTOR, PAIR)
    assert str(tmp_path / name) in str(caught.value)


FOLDERS = {
    "LeRobot 1": ("meta_data/info.json", "this is a LeRobot v1 folder: convert it with"),
    "zarr 3": ("zarr.json", "this is a zarr v3 store"),
    "zarr": (".zgroup", "this is a zarr store without meta/episode_ends"),
    "Hugging Face": ("state.json", "this is a Hugging Face dataset: write hf:"),
    "Minari": ("data/metadata.json", "this is a Minari dataset: write minari:"),
    "RLDS": ("features.json", r"this is a TensorFlow dataset \(RLDS\)"),
    "nothing": ("readme.md", "is a directory, not a file"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_folder_is_named_as_what_it_is(tmp_path, name):
    file, message = FOLDERS[name]
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(json.dumps({}))
    with pytest.raises(DemonstrationError, match=message):
        read_demonstrations(tmp_path, VECTOR, PAIR)
