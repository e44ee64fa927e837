"""Stage for hostile files: a secret outside, a module that leaves a marker, and guards on processes and sockets."""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import subprocess
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import yaml
from gymnasium.spaces import Box, Discrete

from lit_imitation.policies import CategoricalPolicy
from lit_imitation.policies.checkpoints import describe
from lit_imitation.utils.seeding import get_states

SECRET = 31337.0
"""Content of every file outside."""
OBSERVATIONS, ACTIONS = Box(-1e6, 1e6, (3,), np.float32), Discrete(2)

HOSTILE_MODULE = """
import pathlib
pathlib.Path({marker!r}).touch()
from lit_imitation.policies import CategoricalPolicy
class Policy(CategoricalPolicy): pass
class Reward: pass
def act(observation): return observation[:, 0] > 0
def factory(*arguments, **keywords): return CategoricalPolicy(*arguments)
"""


class Harm:
    """Object that creates a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return Path.touch, (self.target,)


@dataclass
class Stage:
    """Working directory `inside` of the victim; harm shows in `marker` and `events`."""

    inside: Path
    outside: Path
    marker: Path
    events: list[str] = field(default_factory=list)

    @property
    def harm(self) -> Harm:
        """Object that creates the marker when it is unpickled."""
        return Harm(self.marker)

    def checkpoint(self, name: str = "x.ckpt", config: Any = None, **changes: Any) -> Path:
        """Checkpoint of BC on CartPole without training, with some entries replaced."""
        policy = CategoricalPolicy(Box(-1, 1, (4,), np.float32), Discrete(2), hidden_sizes=[8])
        state = {f"policy.{key}": value for key, value in policy.state_dict().items()}
        held = {
            "pytorch-lightning_version": "2.6.6",
            "epoch": 1,
            "global_step": 3,
            "state_dict": state,
            "method": {"class": "lit_imitation.methods.bc.BC", "arguments": {}},
            "policy": describe(policy),
            "env_id": "CartPole-v1",
            "env_steps": 0,
            "gradient_steps": 3,
            "evaluation": {},
            "random_states": get_states(),
            "config": yaml.safe_dump(good_config()) if config is None else config,
        }
        path = self.inside / name
        torch.save({**held, **changes}, path)
        return path

    def checkpoint_with(self, change: Any) -> Path:
        """Checkpoint whose configuration was changed in place."""
        config = good_config()
        change(config)
        return self.checkpoint(config=yaml.safe_dump(config))

    def demonstrations(self, name: str = "x.npz", **changes: Any) -> Path:
        """An `.npz` or `.hdf5` file of 4 rows; None leaves a key out."""
        columns = {key: value for key, value in {**good_columns(), **changes}.items() if value is not None}
        path = self.inside / name
        if path.suffix == ".npz":
            np.savez(path, **columns)
        else:
            with h5py.File(path, "w") as file:
                for key, value in columns.items():
                    file[key] = value
        return path


def good_config() -> dict[str, Any]:
    """Short configuration as a run of BC writes it."""
    data = {"env_id": "CartPole-v1", "expert": "scripted", "expert_trajectories": 1, "test_episodes": 1}
    return {
        "seed_everything": 0,
        "model": {"class_path": "lit_imitation.BC", "init_args": {"learning_rate": 0.001}},
        "data": {"class_path": "lit_imitation.DemonstrationDataModule", "init_args": data},
    }


def good_columns(value: float = 0.0) -> dict[str, Any]:
    """Demonstrations of 4 rows."""
    return {
        "observations": np.full((4, 3), value, np.float32),
        "actions": np.zeros(4, np.int64),
        "rewards": np.ones(4, np.float32),
        "terminals": np.array([False, False, False, True]),
        "timeouts": np.zeros(4, bool),
    }


def make_stage(root: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Plant the secrets and the traps."""
    inside, outside = root / "inside", root / "outside"
    inside.mkdir()
    outside.mkdir()
    stage = Stage(inside, outside, root / "marker")
    (inside / "hostile_module.py").write_text(HOSTILE_MODULE.format(marker=str(stage.marker)))
    (outside / "secret.txt").write_text(f"secret {SECRET}\n")
    secret = good_columns(SECRET)
    np.savez(outside / "secret.npz", **secret)
    with h5py.File(outside / "secret.hdf5", "w") as file:
        for key, value in secret.items():
            file[key] = value
    secret["observations"].tofile(outside / "secret.bin")
    monkeypatch.chdir(inside)
    monkeypatch.syspath_prepend(str(inside))

    def trap(what: str) -> Any:
        def sprung(*arguments: Any, **keywords: Any) -> Any:
            stage.events.append(what)
            raise OSError(f"{what} is closed")

        return sprung

    for owner, name in (
        (socket.socket, "connect"),
        (socket, "getaddrinfo"),
        (socket, "create_connection"),
        (subprocess, "Popen"),
        (os, "system"),
        (os, "execv"),
        (os, "posix_spawn"),
    ):
        monkeypatch.setattr(owner, name, trap(f"{owner.__name__}.{name}"))
    return stage


def flip_bit(path: Path, member: str, bit: int = 0) -> Path:
    """Flip one bit of a member's content in an archive."""
    with zipfile.ZipFile(path) as archive:
        info = next(one for one in archive.infolist() if one.filename.endswith(member))
    content = bytearray(path.read_bytes())
    offset = info.header_offset
    name, extra = (int.from_bytes(content[offset + at : offset + at + 2], "little") for at in (26, 28))
    start = offset + 30 + name + extra
    content[start + info.compress_size // 2] ^= 1 << bit
    path.write_bytes(bytes(content))
    return path


def rewrite_archive(path: Path, change: Any) -> Path:
    """Rewrite an archive with Python's zipfile; `change(members)` edits the list of (name, bytes, method)."""
    with zipfile.ZipFile(path) as archive:
        members = [(one.filename, archive.read(one), one.compress_type) for one in archive.infolist()]
    change(members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content, method in members:
            archive.writestr(name, content, method)
    return path


def make_special(path: Path, kind: str) -> Path:
    """Replace a file by a directory, FIFO, socket, device or dangling link."""
    path.unlink(missing_ok=True)
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as server:
            here = os.getcwd()
            os.chdir(path.parent)  # socket names have a short maximum length
            server.bind(path.name)
            os.chdir(here)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "empty":
        path.touch()
    else:
        raise ValueError(kind)
    return path


def to_pickle(thing: Any) -> bytes:
    """Pickle an object."""
    return pickle.dumps(thing)
