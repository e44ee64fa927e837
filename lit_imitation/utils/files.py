"""Paths as people write them, files that are whole or not there, and locks on what one process alone may write."""

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
_swept: set[Path] = set()


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with a leading `~` or `~user` replaced by that home directory, as a shell would.

    Raises:
        ConfigError: there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{os.fspath(path)}: there is no such user's home; give the whole path") from error


def atomic_write(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Put `data` at `path` whole, or leave what was there untouched; text is written as UTF-8.

    Raises:
        OSError: as `atomic_file`.
    """
    with atomic_file(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A new file, open for writing and reading, that takes the name `path` in one step once the block is done.

    It lies beside `path` and is forced to disk before. On an error it is removed; only a kill in between can leave it
    behind, under a name of `temporary_name`, and the next process that writes there removes it. The folder must exist.

    Raises:
        OSError: the folder is missing, cannot be written, or the disk is full; it names `path`.
    """
    path = Path(path)
    if path.parent not in _swept:
        _swept.add(path.parent)
        sweep(path.parent)
    # Opened like any other file, not through `tempfile`, so that it gets the permissions of the person's umask.
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
            raise named(error, path) from error
        raise


def named(error: OSError, path: Path) -> OSError:
    """The same error with the file that it is about: a full disk does not name one."""
    return OSError(error.errno, error.strerror or str(error), str(path))


def temporary_name(path: Path, ending: str = "tmp") -> Path:
    """A new name beside `path` that says which process of which machine it belongs to, for `sweep`."""
    return path.with_name(f".{path.name}.{_machine()}-{os.getpid()}-{secrets.token_hex(6)}.{ending}")


def sweep(directory: Path) -> None:
    """Remove what killed processes of this machine left in `directory` under a `temporary_name`.

    Files of other names are never touched, nor are those of processes that live, or that run on other machines.
    """
    with suppress(OSError):
        for left in list(directory.iterdir()):
            match = _TEMPORARY.match(left.name)
            if match is None or match[1] != _machine() or _lives(int(match[2])):
                continue
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def write_json(path: str | os.PathLike[str], value: Any, indent: int | None = 2) -> None:
    """Write `value` as JSON, atomically; numbers that are not finite, which JSON does not have, become null."""
    atomic_write(path, json.dumps(finite(value), indent=indent, allow_nan=False) + "\n")


def finite(value: Any) -> Any:
    """`value` with None for every number in it that is not finite."""
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def check_local(path: str, setting: str) -> None:
    """Refuse a URL where a directory is wanted: it would become a local directory of that name.

    Raises:
        ConfigError: `path` is a URL.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", path):
        raise ConfigError(f"{setting} {path}: only local directories can be written; copy the results there afterwards")


class Hold:
    """Keeps other processes out of what `path` names until `release`, or until this process ends, however it ends.

    The system's lock on `path` is what counts; the text in it says who holds it. Where the file system has no locks,
    a process of this machine that is named there and still lives counts as the holder.

    Args:
        path: the lock file, made here and removed by `release`.
        what: what is held, for the message.
        advice: what to do, for the message.

    Raises:
        ConfigError: somebody else holds it; one line says who and since when.
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
            os.close(descriptor)  # removed by its holder between opening and locking
        self._descriptor = descriptor
        _held.add(descriptor)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        with suppress(OSError):  # on a full disk the lock still holds
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
        """Let others in."""
        if self._descriptor >= 0:
            self.path.unlink(missing_ok=True)
            _held.discard(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1


_held: set[int] = set()


def _let_go() -> None:
    """In a forked process: the lock is its parent's alone, and ends with that."""
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def _lock(descriptor: int, holder: dict[str, Any]) -> bool:
    """Whether the lock could be had."""
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
    return not (here and isinstance(pid, int) and pid != os.getpid() and _lives(pid))


def _holder(found: dict[str, Any]) -> str:
    if "pid" not in found:
        return "another process"
    return f"process {found['pid']} on {found.get('host')} since {found.get('since')}"


def _lives(pid: int) -> bool:
    """Whether there is a process of that number here; where that cannot be told, yes."""
    if os.name != "posix":  # elsewhere signal 0 is no question
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _machine() -> str:
    """The machine in eight characters: where one process number is one process."""
    name = socket.gethostname()
    with suppress(OSError):  # containers may share the name and the files
        name += os.readlink("/proc/self/ns/pid")
    return f"{zlib.crc32(name.encode()):08x}"
