"""Paths, atomic writes, and file locks between processes."""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import shutil
import socket
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from lit_imitation.errors import ConfigError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_TEMPORARY = re.compile(r"^\..+\.([0-9a-f]{8})-(\d+)-[0-9a-f]{12}\.(tmp|old)$")
_cleaned_directories: set[Path] = set()


def expand_user(path: str | os.PathLike[str]) -> Path:
    """Expand a leading `~` or `~user` as a shell would.

    Raises:
        ConfigError: The user does not exist.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{os.fspath(path)}: no such user; give the full path") from error


def atomic_write(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Write `data` to `path` completely, or leave the old file untouched; text is encoded as UTF-8.

    Raises:
        OSError: As `atomic_file`.
    """
    with atomic_file(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a new file that replaces `path` in one step when the block ends without an error.

    The file is created in the folder of `path`, which must exist, and synced to disk before it replaces `path`. An
    error removes it. Only a kill can leave it behind, under a `temporary_name`; the next process that writes to the
    folder removes it.

    Raises:
        OSError: The folder is missing or not writable, or the disk is full; the error names `path`.
    """
    path = Path(path)
    if path.parent not in _cleaned_directories:
        _cleaned_directories.add(path.parent)
        remove_leftovers(path.parent)
    # `tempfile` would ignore the user's umask.
    temporary = temporary_name(path)
    try:
        with temporary.open("x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and (error.filename is None or error.filename == str(temporary)):
            raise with_path(error, path) from error
        raise


def with_path(error: OSError, path: Path) -> OSError:
    """Copy an error with the file it concerns: the error of a full disk names none."""
    return OSError(error.errno, error.strerror or str(error), str(path))


def temporary_name(path: Path, ending: str = "tmp") -> Path:
    """Unique name in the folder of `path` that records machine and process, for `remove_leftovers`."""
    return path.with_name(f".{path.name}.{_machine()}-{os.getpid()}-{secrets.token_hex(6)}.{ending}")


def remove_leftovers(directory: Path) -> None:
    """Remove the temporary files that killed processes of this machine left in `directory`.

    Only files with a `temporary_name` are removed, and none of a live process or of another machine.
    """
    with suppress(OSError):
        for left in list(directory.iterdir()):
            match = _TEMPORARY.match(left.name)
            if match is None or match[1] != _machine() or _is_alive(int(match[2])):
                continue
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def write_json(path: str | os.PathLike[str], value: Any, indent: int | None = 2) -> None:
    """Write `value` as JSON, atomically; numbers that are not finite become null."""
    atomic_write(path, json.dumps(replace_nonfinite(value), indent=indent, allow_nan=False) + "\n")


def replace_nonfinite(value: Any) -> Any:
    """Replace every number in `value` that is not finite by None."""
    if isinstance(value, dict):
        return {key: replace_nonfinite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [replace_nonfinite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def check_local(path: str, setting: str) -> None:
    """Refuse a URL where a directory is expected; it would become a local directory of that name.

    Raises:
        ConfigError: `path` is a URL.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", path):
        raise ConfigError(f"{setting} {path}: only local directories can be written; copy the results there afterwards")


class FileLock:
    """Exclusive lock between processes, until `release` or the end of this process.

    The operating system's lock on `path` decides; the text in the file says who holds it. On file systems without
    locks, a live process of this machine named in the file counts as the holder.

    Args:
        path: Lock file, created here and removed by `release`.
        what: Name of the locked resource, for the message.
        advice: What to do about it, for the message.

    Raises:
        ConfigError: Another process holds the lock; the text says which one and since when.
    """

    def __init__(self, path: Path, what: str, advice: str) -> None:
        self.path, self._descriptor = path, -1
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                if not _lock(descriptor, self._read(descriptor)):
                    raise ConfigError(f"{what} is in use by {_holder(self._read(descriptor))}: {advice}")
                with suppress(OSError):
                    if os.fstat(descriptor).st_ino == os.stat(path).st_ino or fcntl is None:
                        break
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # the holder removed the file between our open and our lock
        self._descriptor = descriptor
        _locked_descriptors.add(descriptor)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        with suppress(OSError):  # the lock is valid even if a full disk prevents the note
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            me = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
            os.write(descriptor, json.dumps(me).encode())

    @staticmethod
    def _read(descriptor: int) -> dict[str, Any]:
        try:
            os.lseek(descriptor, 0, os.SEEK_SET)
            found = json.loads(os.read(descriptor, 4096))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def release(self) -> None:
        """Release the lock and remove its file."""
        if self._descriptor >= 0:
            self.path.unlink(missing_ok=True)
            _locked_descriptors.discard(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1


_locked_descriptors: set[int] = set()


def _release_after_fork() -> None:
    """Close inherited lock files in a forked process: the locks belong to the parent and end with it."""
    for descriptor in _locked_descriptors:
        with suppress(OSError):
            os.close(descriptor)
    _locked_descriptors.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_after_fork)


def _lock(descriptor: int, holder: dict[str, Any]) -> bool:
    """Try to lock the file; return whether that succeeded."""
    if fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks
            pass
        else:
            return True
    pid = holder.get("pid")
    here = holder.get("host") == socket.gethostname()
    return not (here and isinstance(pid, int) and pid != os.getpid() and _is_alive(pid))


def _holder(found: dict[str, Any]) -> str:
    if "pid" not in found:
        return "another process"
    return f"process {found['pid']} on {found.get('host')} since {found.get('since')}"


def _is_alive(pid: int) -> bool:
    """Whether a process with this PID runs here; True where that cannot be determined."""
    if os.name != "posix":  # elsewhere signal 0 is not a mere test
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _machine() -> str:
    """Machine identifier of eight characters; within it a PID identifies one process."""
    name = socket.gethostname()
    with suppress(OSError):  # containers may share host name and files
        name += os.readlink("/proc/self/ns/pid")
    return f"{zlib.crc32(name.encode()):08x}"
