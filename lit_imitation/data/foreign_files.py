"""Names of files that are no demonstrations, or not in a layout that is read, by their first bytes and members."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

from lit_imitation.data.columns import LARGEST_JSON

BEGINNINGS = (
    (
        b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.",
        "a PyTorch checkpoint in torch's old format, a pickle, which is not opened",
    ),
    (
        b"\x80",
        "a pickle, which is not opened because it could run code: if you trust it, load it yourself and write its "
        "arrays with np.savez_compressed",
    ),
    (b"\x93NUMPY", "a single array (.npy), but each column needs a key: write it with np.savez_compressed"),
    (b"PAR1", "a single parquet file: give the folder of the LeRobot dataset that it belongs to, with meta/info.json"),
    (b"\x1f\x8b", "a gzip file: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd file: unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive: unpack it first"),
    (b"#ROSBAG", "a ROS bag: convert it to one of the formats in docs/data.md"),
    (b"\x89MCAP", "an MCAP recording: convert it to one of the formats in docs/data.md"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"ARROW1", "an Arrow file: give the folder that save_to_disk wrote as hf:DIRECTORY"),
    (b"SQLite format 3", "an SQLite database"),
    (b"MATLAB 5.0", "a MATLAB file: load it with scipy.io.loadmat and write its arrays with np.savez_compressed"),
)
"""First bytes of files, and what they are."""


def name_file(path: Path) -> str | None:
    """What a file is that cannot be read as demonstrations; None if it is unknown, or an `.npz` or HDF5 file."""
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        return "an empty file (0 bytes)"
    for beginning, name in BEGINNINGS:
        if head.startswith(beginning):
            return name
    if head[4:8] == b"ftyp":
        return "a video: give the folder of the LeRobot dataset that it belongs to"
    if head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return "a safetensors file, the weights of a network: data.demonstrations are recorded episodes"
    if head[257:262] == b"ustar" or path.suffix == ".tar":
        return "a tar archive: unpack it first"
    if path.suffix == ".tfrecord" or ".tfrecord-" in path.name:
        return "a file of a TensorFlow dataset (RLDS): convert it to one of the formats in docs/data.md"
    if zipfile.is_zipfile(path):
        return _name_zip(path)
    return _name_hdf5(path)


def _name_zip(path: Path) -> str | None:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.endswith(".npy") for name in names):
        return None
    if "policy.pth" in names:
        return "a Stable-Baselines3 policy, not recorded episodes: name it with data.expert sb3:PATH.zip"
    if any(name.rpartition("/")[2] == "data.pkl" for name in names):
        return (
            "a PyTorch checkpoint, not recorded episodes: if it is a run of this package, let it demonstrate with "
            "data.expert checkpoint:PATH"
        )
    if any(name.rpartition("/")[2] == "zarr.json" for name in names):
        return ZARR_3
    if any(name.rpartition("/")[2] in (".zgroup", ".zarray") for name in names):
        return "a zarr store without meta/episode_ends, which Diffusion Policy's layout has at its top"
    if any(name.endswith("meta/info.json") for name in names):
        return "a zipped LeRobot dataset: unpack it and give its folder"
    return "a zip archive without arrays (.npy)"


ZARR_3 = "a zarr v3 store, but Diffusion Policy's layout is zarr v2: write it with zarr_format=2"


def _name_hdf5(path: Path) -> str | None:
    import h5py

    if not h5py.is_hdf5(path):
        return None
    with h5py.File(path, "r") as file:
        keys = list(file)
        if "episode_0" in keys:
            return "the main_data.hdf5 of a Minari dataset: write minari:DIRECTORY with the folder of the dataset"
        hard = isinstance(file.get("observations", getlink=True), h5py.HardLink)
        if (
            "action" in keys
            and hard
            and isinstance(file["observations"], h5py.Group)
            and "qpos" in file["observations"]
        ):
            return "an episode of ALOHA (ACT) without flags: join the episodes in one of the formats in docs/data.md"
        if "model_weights" in keys:
            return "the weights of a Keras network: data.demonstrations are recorded episodes"
        if "data" in keys and "mask" in keys:
            return "a robomimic file without demonstrations (data/demo_0, …)"
    return None


def name_folder(folder: Path) -> str | None:
    """What a folder is that cannot be read under its plain path; None if it is unknown."""
    tests: tuple[tuple[str, Callable[[], str]], ...] = (
        ("meta/info.json", lambda: _name_lerobot(folder / "meta/info.json")),
        ("meta_data/info.json", lambda: f"a LeRobot v1 folder: convert it with {CONVERT_V1}"),
        ("zarr.json", lambda: ZARR_3),
        (".zgroup", lambda: "a zarr store without meta/episode_ends, which Diffusion Policy's layout has at its top"),
        ("state.json", lambda: f"a Hugging Face dataset: write hf:{folder}"),
        ("dataset_dict.json", lambda: f"a Hugging Face dataset: write hf:{folder}"),
        ("data/metadata.json", lambda: f"a Minari dataset: write minari:{folder}"),
        ("metadata.json", lambda: f"a Minari dataset: write minari:{folder}"),
        ("features.json", lambda: "a TensorFlow dataset (RLDS): convert it to one of the formats in docs/data.md"),
    )
    return next((name() for file, name in tests if (folder / file).is_file()), None)


CONVERT_V1 = "lerobot 0.1: python lerobot/common/datasets/v2/convert_dataset_v1_to_v2.py"
CONVERT_V20 = "lerobot 0.3: python -m lerobot.datasets.v21.convert_dataset_v20_to_v21 --repo-id=NAME"
READ_VERSIONS = ("v2.1", "v3.0")
"""Versions of LeRobot's layout that are read."""


def _name_lerobot(path: Path) -> str:
    with path.open("rb") as file:
        text = file.read(LARGEST_JSON)
    try:
        version = str(json.loads(text).get("codebase_version"))[:20]
    except (ValueError, AttributeError, RecursionError):
        return "a LeRobot folder whose meta/info.json is not a JSON object"
    return name_version(version)


def name_version(version: str) -> str:
    """A LeRobot folder of this version, and how to convert it to one that is read."""
    if version == "v2.0":
        return f"a LeRobot v2.0 folder: convert it with {CONVERT_V20}"
    if version.startswith("v1"):
        return f"a LeRobot {version} folder: convert it with {CONVERT_V1}"
    return f"a LeRobot folder of version {version}; versions that are read: {', '.join(READ_VERSIONS)}"
