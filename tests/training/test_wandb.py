"""Data that a run logs to Weights & Biases, read from the file of an offline run."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from lit_imitation.cli import main

wandb = pytest.importorskip("wandb")
from wandb.proto.wandb_internal_pb2 import Record  # noqa: E402

pytestmark = pytest.mark.integration

BLOCK = 32768
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(path: Path) -> Iterator[Record]:
    """Read a `.wandb` file: a header of 7 bytes, then LevelDB's log format with protobuf records."""
    data = path.read_bytes()
    assert data[:4] == b":W&B"
    at, entry = 7, b""
    while at + 7 <= len(data):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK
            continue
        checksum, length, kind = struct.unpack("<IHB", data[at : at + 7])
        part = data[at + 7 : at + 7 + length]
        assert kind in (FULL, FIRST, MIDDLE, LAST)
        assert zlib.crc32(part, zlib.crc32(bytes([kind]))) & 0xFFFFFFFF == checksum
        entry, at = entry + part, at + 7 + length
        if kind in (FULL, LAST):
            record = Record()
            record.ParseFromString(entry)
            yield record
            entry = b""


def key_of(item) -> str:
    return item.key or "/".join(item.nested_key)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory, elsewhere = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("elsewhere")
    configs = Path(__file__).parents[2] / "configs"
    here = os.getcwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_CONSOLE", "off")
        patch.setenv("WANDB_SILENT", "true")
        patch.delenv("WANDB_DIR", raising=False)
        patch.setenv("SDL_VIDEODRIVER", "dummy")
        patch.chdir(elsewhere)  # nothing may depend on the working directory or be written to it
        main(
            [
                "fit",
                f"--config={configs / 'bc' / 'cartpole.yaml'}",
                f"--config={configs / 'trainer' / 'wandb.yaml'}",
                f"--trainer.default_root_dir={directory}",
                "--trainer.callbacks.every_n_validations=1",
                "--trainer.callbacks.max_steps=20",
                "--trainer.max_epochs=2",
                "--trainer.accelerator=cpu",
                "--trainer.log_every_n_steps=5",
                "--data.num_trajectories=4",
                "--data.eval_episodes=3",
                "--data.test_episodes=4",
            ]
        )
        wandb.finish()
        wandb.teardown()
    assert os.getcwd() == here
    assert not list(elsewhere.iterdir())
    (file,) = directory.glob("wandb/offline-run-*/run-*.wandb")
    return directory, file, list(records(file))


def history(read: list[Record]) -> list[dict[str, object]]:
    rows = [record.history.item for record in read if record.WhichOneof("record_type") == "history"]
    return [{key_of(item): json.loads(item.value_json) for item in row} for row in rows]


@pytest.mark.slow
def test_history_has_the_metrics(run):
    directory, _, read = run
    rows = history(read)
    logged = {key: [row[key] for row in rows if key in row] for key in set().union(*rows)}
    for name in ("val/return_mean", "val/loss", "val/normalized_score", "val/accuracy"):
        assert len(logged[name]) == 2, name
    assert len(logged["train/loss"]) > 2
    summary = json.loads((directory / "summary.json").read_text())
    assert logged["test/return_mean"] == [pytest.approx(summary["return_mean"])]


def test_config_has_the_hyper_parameters(run):
    directory, _, read = run
    config: dict[str, object] = {}
    for record in read:
        if record.WhichOneof("record_type") == "run":
            config |= {key_of(item): json.loads(item.value_json) for item in record.run.config.update}
        if record.WhichOneof("record_type") == "config":
            config |= {key_of(item): json.loads(item.value_json) for item in record.config.update}
    written = yaml.safe_load((directory / "config.yaml").read_text())
    assert config["model"]["init_args"]["learning_rate"] == 0.001
    assert config["data"]["init_args"]["env_id"] == "CartPole-v1"
    for name in ("model", "data", "seed_everything"):
        assert config[name] == written[name]


def test_videos_are_logged_as_media(run):
    directory, file, read = run
    videos = [row["val/video/videos"][0]["path"] for row in history(read) if "val/video/videos" in row]
    assert len(videos) == 2
    for video in videos:
        path = file.parent / "files" / video
        assert path.parent == file.parent / "files" / "media" / "videos" / "val"
        with Image.open(path) as image:
            assert image.format == "GIF"
            assert image.n_frames > 5
    files = {f.path for r in read if r.WhichOneof("record_type") == "files" for f in r.files.files}
    assert set(videos) <= files
    assert len(list((directory / "videos").glob("*.gif"))) == 2


def test_best_checkpoint_is_a_model_artifact(run):
    directory, _, read = run
    requests = [
        record.request.log_artifact.artifact for record in read if record.WhichOneof("record_type") == "request"
    ]
    artifacts = [record.artifact for record in read if record.WhichOneof("record_type") == "artifact"] + requests
    models = [artifact for artifact in artifacts if artifact.type == "model"]
    assert {"latest", "best"} <= {alias for artifact in models for alias in artifact.aliases}
    best = next(artifact for artifact in models if "best" in artifact.aliases)
    (entry,) = best.manifest.contents
    assert entry.path == "model.ckpt"
    assert entry.size == (directory / "checkpoints" / "best.ckpt").stat().st_size
    assert torch.load(entry.local_path, weights_only=True)["policy"]["class"].endswith("CategoricalPolicy")


def test_tracker_files_are_in_the_run_directory(run):
    directory, file, _ = run
    assert file.is_relative_to(directory)
    assert (directory / "metrics.csv").is_file()  # the tracker does not replace it
