"""Writers of small recordings in the published layouts of robomimic, Diffusion Policy, and LeRobot 2.1 and 3.0."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

LENGTHS = (3, 2, 4)
"""Steps of the episodes that `episodes` makes."""


def episodes(lengths: tuple[int, ...] = LENGTHS) -> list[dict[str, np.ndarray]]:
    """Episodes with `state` `[T, 2]`, `object` `[T, 3]`, `camera` `[T, 8, 6, 3]`, `action` `[T, 2]` and `reward` `[T]`.

    The first number of `state` is 100 · episode + row; `last_…` is the observation after the last action.
    """
    rng, made = np.random.default_rng(0), []
    for number, length in enumerate(lengths):
        rows = 100.0 * number + np.arange(length + 1)
        held = {
            "state": np.stack([rows, -rows], 1).astype(np.float32),
            "object": np.stack([rows + 0.25, rows + 0.5, rows + 0.75], 1).astype(np.float32),
            "camera": rng.integers(0, 256, (length + 1, 8, 6, 3)).astype(np.uint8),
        }
        made.append(
            {
                **{key: value[:-1] for key, value in held.items()},
                **{f"last_{key}": value[-1:] for key, value in held.items()},
                "action": rng.uniform(-1, 1, (length, 2)).astype(np.float32),
                "reward": np.arange(length, dtype=np.float64),
            }
        )
    return made


def write_robomimic(path: Path, made: list[dict[str, np.ndarray]] | None = None, successors: bool = True) -> Path:
    """A file as robomimic's `dataset_states_to_obs.py` and `split_train_val.py` leave it; the first demo succeeds."""
    made = episodes() if made is None else made
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        for number, one in enumerate(made):
            demo = data.create_group(f"demo_{number}")
            length = len(one["action"])
            demo.create_dataset("actions", data=one["action"].astype(np.float64))
            demo.create_dataset("states", data=np.zeros((length, 7)))
            demo.create_dataset("rewards", data=one["reward"])
            demo.create_dataset("dones", data=((np.arange(length) == length - 1) & (number == 0)).astype(np.int64))
            demo.attrs["num_samples"] = length
            demo.attrs["model_file"] = "<mujoco/>"
            for key, name in (("state", "robot0_eef_pos"), ("object", "object"), ("camera", "agentview_image")):
                options = {"compression": "gzip"} if key == "camera" else {}
                demo.create_dataset(f"obs/{name}", data=one[key], **options)
                if successors:
                    after = np.concatenate([one[key][1:], one[f"last_{key}"]])
                    demo.create_dataset(f"next_obs/{name}", data=after, **options)
        data.attrs["total"] = sum(len(one["action"]) for one in made)
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "type": 1, "env_kwargs": {"control_freq": 20}})
        names = [f"demo_{number}" for number in range(len(made))]
        file.create_dataset("mask/train", data=np.array(names[:-1], dtype="S"))
        file.create_dataset("mask/valid", data=np.array(names[-1:], dtype="S"))
    return path


def write_keyed(path: Path, made: list[dict[str, np.ndarray]] | None = None, **changes: Any) -> Path:
    """D4RL's layout with `observations/state`, `observations/object` and `observations/camera`."""
    made = episodes() if made is None else made
    keys = ("state", "object", "camera")
    held = {f"observations/{key}": np.concatenate([one[key] for one in made]) for key in keys}
    held |= {"actions": np.concatenate([one["action"] for one in made])}
    held["rewards"] = np.concatenate([one["reward"] for one in made])
    ends = np.cumsum([len(one["action"]) for one in made]) - 1
    held["terminals"] = np.isin(np.arange(len(held["actions"])), ends[:1])
    held["timeouts"] = np.isin(np.arange(len(held["actions"])), ends[1:])
    held = {key: value for key, value in (held | changes).items() if value is not None}
    if path.suffix == ".npz":
        np.savez(path, **held)
    else:
        with h5py.File(path, "w") as file:
            for key, value in held.items():
                file[key] = value
    return path


def write_zarr(path: Path, made: list[dict[str, np.ndarray]] | None = None, codec: Any = "blosc") -> Path:
    """A store as Diffusion Policy's `ReplayBuffer.save_to_path` leaves it: zarr v2, a folder or a `.zip`."""
    import numcodecs
    import zarr

    made = episodes() if made is None else made
    if codec == "blosc":
        codec = numcodecs.Blosc("zstd", clevel=5, shuffle=numcodecs.Blosc.BITSHUFFLE)
    whole = {key: np.concatenate([one[key] for one in made]) for key in ("state", "action", "camera", "object")}
    arrays = {
        "data/state": whole["state"],
        "data/action": whole["action"],
        "data/img": whole["camera"].astype(np.float32),
        "data/keypoint": np.repeat(whole["object"][:, :, None], 2, axis=2),
        "data/n_contacts": np.ones((len(whole["state"]), 1), np.float32),
        "meta/episode_ends": np.cumsum([len(one["action"]) for one in made]),
    }
    packed = path.suffix == ".zip"
    store = zarr.storage.ZipStore(path, mode="w") if packed else zarr.storage.LocalStore(path)
    root = zarr.open_group(store, mode="w", zarr_format=2)
    for key, value in arrays.items():
        chunks = (5, *value.shape[1:]) if key.startswith("data/") else value.shape
        made_array = root.create_array(
            key, shape=value.shape, dtype=value.dtype, chunks=chunks, compressors=codec if key[:4] == "data" else None
        )
        made_array[:] = value
    store.close()
    return path


def png(image: np.ndarray) -> bytes:
    """An image `[height, width, 3]` as a PNG file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, format="PNG")
    return file.getvalue()


def _features(video: bool) -> dict[str, Any]:
    names = ["height", "width", "channels"]
    return {
        "observation.state": {"dtype": "float32", "shape": [2], "names": ["x", "y"]},
        "observation.environment_state": {"dtype": "float32", "shape": [3], "names": None},
        "observation.image": {"dtype": "video" if video else "image", "shape": [8, 6, 3], "names": names},
        "action": {"dtype": "float32", "shape": [2], "names": None},
        "next.reward": {"dtype": "float32", "shape": [1], "names": None},
        "next.done": {"dtype": "bool", "shape": [1], "names": None},
        "timestamp": {"dtype": "float32", "shape": [1], "names": None},
        "frame_index": {"dtype": "int64", "shape": [1], "names": None},
        "episode_index": {"dtype": "int64", "shape": [1], "names": None},
        "index": {"dtype": "int64", "shape": [1], "names": None},
        "task_index": {"dtype": "int64", "shape": [1], "names": None},
    }


def _table(one: dict[str, np.ndarray], number: int, first: int, video: bool) -> Any:
    """Rows of one episode, with the column types that LeRobot writes; the first episode is done at its end."""
    import pyarrow as pa

    length = len(one["action"])
    rows = np.arange(length)

    def lists(values: np.ndarray) -> Any:
        flat = pa.array(values.reshape(-1), pa.float32())
        return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])

    columns = {
        "observation.state": lists(one["state"]),
        "observation.environment_state": lists(one["object"]),
        "action": lists(one["action"]),
        "next.reward": pa.array(one["reward"].astype(np.float32)),
        "next.done": pa.array((rows == length - 1) & (number == 0)),
        "timestamp": pa.array((rows / 10).astype(np.float32)),
        "frame_index": pa.array(rows),
        "episode_index": pa.array(np.full(length, number)),
        "index": pa.array(first + rows),
        "task_index": pa.array(np.zeros(length, np.int64)),
    }
    if not video:
        images = [{"bytes": png(image), "path": f"frame_{row:06d}.png"} for row, image in enumerate(one["camera"])]
        columns["observation.image"] = pa.array(
            images, pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
        )
    return pa.table(columns)


def _info(version: str, made: list[dict[str, np.ndarray]], video: bool, paths: dict[str, str]) -> dict[str, Any]:
    return {
        "codebase_version": version,
        "robot_type": "so100",
        "total_episodes": len(made),
        "total_frames": sum(len(one["action"]) for one in made),
        "total_tasks": 1,
        "chunks_size": 1000,
        "fps": 10,
        "splits": {"train": f"0:{len(made)}"},
        **paths,
        "features": _features(video),
    }


def write_lerobot_2(folder: Path, made: list[dict[str, np.ndarray]] | None = None, video: bool = False) -> Path:
    """A folder in LeRobot's layout 2.1: one parquet file, and one video, for each episode."""
    import pyarrow.parquet as pq

    made = episodes() if made is None else made
    (folder / "meta").mkdir(parents=True)
    (folder / "data/chunk-000").mkdir(parents=True)
    lines = []
    for number, one in enumerate(made):
        first = sum(len(other["action"]) for other in made[:number])
        pq.write_table(_table(one, number, first, video), folder / f"data/chunk-000/episode_{number:06d}.parquet")
        lines.append(json.dumps({"episode_index": number, "tasks": ["push"], "length": len(one["action"])}))
        if video:
            write_video(folder / f"videos/chunk-000/observation.image/episode_{number:06d}.mp4", one["camera"])
    paths = {"data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"}
    paths["video_path"] = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    (folder / "meta/info.json").write_text(json.dumps(_info("v2.1", made, video, paths), indent=4))
    (folder / "meta/episodes.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "meta/tasks.jsonl").write_text(json.dumps({"task_index": 0, "task": "push"}) + "\n")
    return folder


def write_lerobot_3(
    folder: Path, made: list[dict[str, np.ndarray]] | None = None, video: bool = False, files: int = 1
) -> Path:
    """A folder in LeRobot's layout 3.0: episodes in `files` parquet files and one video, and a table of episodes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    made = episodes() if made is None else made
    for name in ("meta/episodes/chunk-000", "data/chunk-000"):
        (folder / name).mkdir(parents=True)
    rows, tables, first = [], [[] for _ in range(files)], 0
    for number, one in enumerate(made):
        length, file = len(one["action"]), number * files // len(made)
        tables[file].append(_table(one, number, first, video))
        row = {
            "episode_index": number,
            "tasks": ["push"],
            "length": length,
            "data/chunk_index": 0,
            "data/file_index": file,
            "dataset_from_index": first,
            "dataset_to_index": first + length,
            "meta/episodes/chunk_index": 0,
            "meta/episodes/file_index": 0,
            "stats/action/min": one["action"].min(0).tolist(),
        }
        if video:
            row |= {"videos/observation.image/chunk_index": 0, "videos/observation.image/file_index": 0}
            row |= {
                "videos/observation.image/from_timestamp": first / 10,
                "videos/observation.image/to_timestamp": (first + length) / 10,
            }
        rows.append(row)
        first += length
    for number, parts in enumerate(tables):
        pq.write_table(pa.concat_tables(parts), folder / f"data/chunk-000/file-{number:03d}.parquet", row_group_size=4)
    pq.write_table(pa.Table.from_pylist(rows), folder / "meta/episodes/chunk-000/file-000.parquet")
    pq.write_table(pa.table({"task_index": [0], "task": ["push"]}), folder / "meta/tasks.parquet")
    if video:
        whole = np.concatenate([one["camera"] for one in made])
        write_video(folder / "videos/observation.image/chunk-000/file-000.mp4", whole)
    paths = {"data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"}
    paths["video_path"] = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    (folder / "meta/info.json").write_text(json.dumps(_info("v3.0", made, video, paths), indent=4))
    return folder


def write_video(path: Path, frames: np.ndarray, fps: int = 10) -> None:
    """Frames `[T, height, width, 3]` as an `.mp4` file, without loss but for the color space."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=fps, options={"crf": "0", "g": "2"})
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "rgb24"
        for image in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
