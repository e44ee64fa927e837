"""A file of 10 GB trains in less than 2 GB of memory; the figures of the page on data come from `-s`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from lit_imitation.data.demonstrations import read_all
from lit_imitation.data.file_spaces import infer_spaces
from lit_imitation.data.stored_observations import StoredObservations

pytestmark = pytest.mark.slow

WIDTH, EPISODE = 25_000, 200
ROW = 4 * WIDTH
PROGRAM = Path(__file__).parents[1] / "helpers" / "train_from_disk.py"


def write(path: Path, size: int) -> Path:
    """A file of `size` bytes of observations `[N, 25000]`, in chunks of 8 rows, written an episode at a time."""
    episodes = size // (EPISODE * ROW)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(EPISODE, WIDTH)).astype(np.float32)
    with h5py.File(path, "w") as file:
        shape = (episodes * EPISODE, WIDTH)
        observations = file.create_dataset("observations", shape, np.float32, chunks=(8, WIDTH))
        for episode in range(episodes):
            observations[episode * EPISODE : (episode + 1) * EPISODE] = np.roll(rows, episode, 1)
        file["actions"] = rng.normal(size=(len(observations), 2)).astype(np.float32)
        file["terminals"] = np.zeros(len(observations), bool)
        file["timeouts"] = np.arange(len(observations)) % EPISODE == EPISODE - 1
    return path


def memory_of(pid: int) -> int:
    """Bytes that a process and its children hold: proportional set size, in which a shared page counts once."""
    total = 0
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            total += memory_of(int(child))
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        pass
    return total


def train(file: Path, memory: str) -> dict[str, Any]:
    """Clone a file in another process, and return what it prints and its largest memory."""
    command = [sys.executable, str(PROGRAM), str(file), memory]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    said = file.with_suffix(".txt")
    with said.open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        largest = 0
        while process.poll() is None:
            largest = max(largest, memory_of(process.pid))
            time.sleep(0.2)
    assert process.returncode == 0, said.read_text()
    return {**json.loads(said.read_text().splitlines()[-1]), "memory": largest}


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory is measured by /proc")
def test_ten_gigabytes_train_in_two(tmp_path):
    if shutil.disk_usage(tmp_path).free < 15 * 10**9:
        pytest.skip("less than 15 GB of disk are free")
    try:
        large, small = write(tmp_path / "large.hdf5", 10**10), write(tmp_path / "small.hdf5", 4 * 10**8)
        found = {"10 GB streamed": train(large, "stream")}
        found |= {f"0.4 GB {memory}": train(small, memory) for memory in ("stream", "resident")}
        for name, figures in found.items():
            print(name, json.dumps(figures))
        assert large.stat().st_size > 9.9e9
        streamed = found["10 GB streamed"]
        assert streamed["streams"]
        assert streamed["samples"] > 0.97 * 10**10 / ROW
        assert streamed["memory"] < 2 * 10**9
    finally:
        for file in tmp_path.glob("*.hdf5"):
            file.unlink(missing_ok=True)


def test_groups_of_rows_are_read_faster_than_rows(tmp_path):
    """Images of 84×84×3 bytes, 3,200 of 16,000, in chunks of 32, of 1, or without; read in the order of the file."""
    rng, rate = np.random.default_rng(0), {}
    images = rng.integers(0, 256, (1600, 84, 84, 3)).astype(np.uint8)
    for chunks in (None, 1, 32):
        with h5py.File(tmp_path / "a.hdf5", "w") as file:
            shape = (16_000, *images.shape[1:])
            observations = file.create_dataset(
                "observations", shape, np.uint8, chunks=None if chunks is None else (chunks, *shape[1:])
            )
            for start in range(0, len(observations), len(images)):
                observations[start : start + len(images)] = images
            file["actions"] = rng.normal(size=(len(observations), 2)).astype(np.float32)
            file["terminals"] = np.zeros(len(observations), bool)
            file["timeouts"] = np.arange(len(observations)) % EPISODE == EPISODE - 1
        sources = read_all(tmp_path / "a.hdf5", stored=True)
        stored = StoredObservations(sources, infer_spaces(sources)[0])
        stored._nearby = 1
        for group in (1, 8, 32, 128):
            firsts = rng.permutation(len(stored) // group)[: 3200 // group] * group
            rows = torch.from_numpy((firsts[:, None] + np.arange(group)).ravel())
            began = time.perf_counter()
            found = stored.read(rows)
            rate[chunks, group] = len(rows) / (time.perf_counter() - began)
            assert torch.equal(found[-1], torch.from_numpy(images[rows[-1] % len(images)]))
            print(f"chunks of {chunks} rows, groups of {group}: {rate[chunks, group]:,.0f} rows a second")
        stored.close()
    assert rate[32, 32] > 2 * rate[32, 1]
    assert rate[None, 32] > 2 * rate[None, 1]
