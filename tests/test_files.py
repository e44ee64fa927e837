import os
import stat
from pathlib import Path

import pytest

from lit_imitation.errors import ConfigError
from lit_imitation.files import atomic_write, expanded


def test_replaces_what_was_there(tmp_path):
    path = tmp_path / "a.json"
    atomic_write(path, "grün")
    atomic_write(str(path), b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    atomic_write(path, "grün")
    assert path.read_text(encoding="utf-8") == "grün"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    atomic_write(path, "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        atomic_write(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_the_old_file_stands_until_the_new_one_is_on_disk(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    atomic_write(path, "old")
    seen = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: seen.append((path.read_text(), os.fstat(descriptor).st_size)))
    atomic_write(path, "newer")
    assert seen == [("old", 5)]
    assert path.read_text() == "newer"


def test_permissions_are_those_of_any_new_file(tmp_path):
    (tmp_path / "ordinary").touch()
    atomic_write(tmp_path / "ours", "")
    modes = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ordinary", "ours")}
    assert modes["ours"] == modes["ordinary"]


def test_tilde_means_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded("~/a.npz") == tmp_path / "a.npz"
    assert expanded(Path("~")) == tmp_path
    assert expanded("a/~/b") == Path("a/~/b")
    with pytest.raises(ConfigError, match="~nobody-here/a: there is no such user"):
        expanded("~nobody-here/a")
