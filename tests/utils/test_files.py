import errno
import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from lit_imitation.errors import ConfigError
from lit_imitation.utils import files
from lit_imitation.utils.files import FileLock, atomic_write, check_local, expand_user, remove_leftovers, write_json


def test_atomic_write_replaces_file(tmp_path):
    path = tmp_path / "a.json"
    atomic_write(path, "grün")
    atomic_write(str(path), b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    atomic_write(path, "grün")
    assert path.read_text(encoding="utf-8") == "grün"
    assert os.listdir(tmp_path) == ["a.json"]


def test_failed_write_keeps_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    atomic_write(path, "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        atomic_write(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_old_file_remains_until_new_one_is_synced(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    atomic_write(path, "old")
    seen = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: seen.append((path.read_text(), os.fstat(descriptor).st_size)))
    atomic_write(path, "newer")
    assert seen == [("old", 5)]
    assert path.read_text() == "newer"


def test_new_file_follows_umask(tmp_path):
    (tmp_path / "ordinary").touch()
    atomic_write(tmp_path / "atomic", "")
    modes = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ordinary", "atomic")}
    assert modes["atomic"] == modes["ordinary"]


def test_expand_user(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expand_user("~/a.npz") == tmp_path / "a.npz"
    assert expand_user(Path("~")) == tmp_path
    assert expand_user("a/~/b") == Path("a/~/b")
    with pytest.raises(ConfigError, match="~nobody-here/a: no such user"):
        expand_user("~nobody-here/a")


@pytest.mark.integration
def test_leftovers_of_dead_processes_are_removed(tmp_path):
    """Files of live processes, other machines and other programs stay."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    own = files.temporary_name(tmp_path / "a.json")
    left = own.with_name(own.name.replace(f"-{os.getpid()}-", f"-{dead.pid}-"))
    elsewhere = left.with_name(left.name.replace(left.name.split(".")[3].split("-")[0], "00000000"))
    remaining = [tmp_path / ".a.json.tmp", tmp_path / "b.tmp", elsewhere, own]
    for path in (left, *remaining):
        path.touch()
    remove_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(remaining)


def test_lock_excludes_other_processes(tmp_path):
    hold = FileLock(tmp_path / ".lock", "the run", "wait")
    with pytest.raises(ConfigError, match=rf"^the run is in use by process {os.getpid()} on .* since 20.*: wait$"):
        FileLock(tmp_path / ".lock", "the run", "wait")
    hold.release()
    assert not list(tmp_path.iterdir())
    FileLock(tmp_path / ".lock", "the run", "wait").release()


@pytest.mark.integration
def test_lock_ends_with_killed_process(tmp_path):
    code = (
        "import os, sys, time, pathlib; from lit_imitation.utils.files import FileLock; "
        "FileLock(pathlib.Path(sys.argv[1]), 'it', ''); os.fork() or print('forked', flush=True); time.sleep(30)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, tmp_path / ".lock"], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "forked\n"  # the child, which holds no lock any more
    with pytest.raises(ConfigError, match=f"process {holder.pid}"):
        FileLock(tmp_path / ".lock", "it", "")
    holder.kill()
    holder.wait()
    FileLock(tmp_path / ".lock", "it", "").release()


def test_lock_without_file_system_support_checks_pid(tmp_path, monkeypatch):
    def unsupported(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", unsupported)
    living = {"pid": os.getppid(), "host": socket.gethostname(), "since": "then"}
    (tmp_path / ".lock").write_text(json.dumps(living))
    with pytest.raises(ConfigError, match=f"process {os.getppid()} on .* since then"):
        FileLock(tmp_path / ".lock", "it", "")
    (tmp_path / ".lock").write_text(json.dumps({**living, "pid": 2**22 + 1}))
    FileLock(tmp_path / ".lock", "it", "").release()


def test_json_has_no_nan(tmp_path):
    write_json(tmp_path / "a.json", {"a": [float("nan"), 1.0, (float("-inf"),)], "b": "NaN"})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [None, 1.0, [None]], "b": "NaN"}


@pytest.mark.parametrize("path", ["s3://bucket/run", "memory://run", "file:///tmp/run", "gs:/bucket"])
def test_url_as_directory_raises(path):
    with pytest.raises(ConfigError, match="only local directories can be written"):
        check_local(path, "--out")
    check_local("C:/runs", "--out")
    check_local("runs/a:b", "--out")
