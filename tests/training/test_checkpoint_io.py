"""Atomic checkpoints: kills and errors during a write leave whole files."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from lit_imitation.errors import ConfigError
from lit_imitation.policies.checkpoints import find_checkpoint, load_policy
from lit_imitation.training.checkpoint_io import AtomicCheckpointIO

SIZE = 1_000_000


def write_for_ever(path: Path, ready: Path) -> None:
    torch.set_num_threads(1)
    io, number = AtomicCheckpointIO(), 0
    while True:
        io.save_checkpoint({"number": number, "values": torch.full((SIZE,), float(number))}, path)
        ready.touch()
        number += 1


@pytest.mark.integration
def test_kill_during_write_leaves_whole_checkpoint(tmp_path):
    path, ready = tmp_path / "checkpoints" / "last.ckpt", tmp_path / "ready"
    rng = random.Random(0)
    interrupted, numbers = 0, set()
    for _ in range(15):
        ready.unlink(missing_ok=True)
        pid = os.fork()
        if pid == 0:
            try:
                write_for_ever(path, ready)
            finally:
                os._exit(1)
        try:
            deadline = time.monotonic() + 30
            while not ready.exists():
                assert time.monotonic() < deadline
                time.sleep(0.001)
            time.sleep(rng.uniform(0.0, 0.06))
        finally:
            os.kill(pid, signal.SIGKILL)
            assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
        checkpoint = torch.load(path, weights_only=True)
        assert checkpoint["values"].shape == (SIZE,)
        assert (checkpoint["values"] == checkpoint["number"]).all()
        numbers.add(checkpoint["number"])
        left = list(path.parent.glob(".*.tmp"))
        interrupted += len(left)
        assert find_checkpoint(tmp_path) == path
        for file in left:
            file.unlink()
    assert interrupted > 0  # at least one kill interrupted a write
    assert len(numbers) > 1


def test_failed_write_leaves_only_previous_checkpoint(tmp_path):
    io, path = AtomicCheckpointIO(), tmp_path / "x.ckpt"
    io.save_checkpoint({"number": 1}, path)
    with pytest.raises(Exception, match="pickle"):
        io.save_checkpoint({"number": 2, "function": lambda: None}, path)
    assert torch.load(path, weights_only=True) == {"number": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["x.ckpt"]


def test_loaded_checkpoint_equals_saved_one(tmp_path):
    io, path = AtomicCheckpointIO(), tmp_path / "deep" / "er" / "x.ckpt"
    io.save_checkpoint({"a": torch.arange(3), "b": [1.5, None, "text"]}, path)
    loaded = io.load_checkpoint(path, weights_only=True)
    assert torch.equal(loaded["a"], torch.arange(3))
    assert loaded["b"] == [1.5, None, "text"]


def test_leftover_of_a_kill_is_not_a_checkpoint(tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    leftovers = [folder / ".last.ckpt.0123456789ab.tmp", folder / ".epoch=3.ckpt.0123456789ab.tmp"]
    for file in leftovers:
        file.write_bytes(b"half a checkpoint")
    with pytest.raises(ConfigError, match=r"contains no checkpoints/\*\.ckpt"):
        find_checkpoint(tmp_path)
    with pytest.raises(ConfigError):
        load_policy(tmp_path)
    for name in ("epoch=1.ckpt", "last.ckpt", "best.ckpt"):  # each takes precedence over the ones written earlier
        (folder / name).write_bytes(b"")
        for file in leftovers:
            os.utime(file)
        assert find_checkpoint(tmp_path) == folder / name
