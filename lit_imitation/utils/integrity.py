"""Integrity checks before a file is parsed: a regular file, complete, of a plausible size."""

from __future__ import annotations

import math
import os
import stat
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from lit_imitation.errors import ConfigError, LitImitationError
from lit_imitation.utils.files import expand_user
from lit_imitation.utils.trust import refuse_url

MAX_RATIO, FREE_BYTES = 200, 2**30
"""A file is taken for a compression bomb if it unpacks to over 1 GiB and over `MAX_RATIO` times its size."""

_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def check_file(
    path: str | os.PathLike[str],
    error: type[LitImitationError] = ConfigError,
    largest: int | None = None,
) -> Path:
    """Check that `path` is a regular file, or a link to one. Reading a FIFO or device could block forever.

    Args:
        path: Path of the file.
        error: Class of the error to raise.
        largest: Maximum size in bytes.

    Returns:
        The path with `~` expanded.

    Raises:
        LitImitationError: Of class `error`: `path` is a URL, missing, not a regular file, or too large.
    """
    refuse_url(os.fspath(path), "a path", error)
    path = expand_user(path)
    try:
        status = path.stat()
    except FileNotFoundError as missing:
        raise error(f"{path}: no such file") from missing
    except (OSError, ValueError) as failure:  # the name is too long or contains a null byte
        raise error(f"{path}: cannot be read: {getattr(failure, 'strerror', None) or failure}") from failure
    if not stat.S_ISREG(status.st_mode):
        kind = next((name for test, name in _KINDS if test(status.st_mode)), "something else")
        raise error(f"{path} is {kind}, not a file")
    if largest is not None and status.st_size > largest:
        raise error(f"{path} has {status.st_size:,} bytes; the maximum is {largest:,}")
    return path


def check_within(path: Path, directory: Path, error: type[LitImitationError]) -> None:
    """Raise `error` if `path`, with links resolved, lies outside `directory`."""
    if not path.resolve().is_relative_to(directory.resolve()):
        raise error(f"{path} points outside {directory}, to {path.resolve()}; give the path of that file instead")


def check_size(declared: int, path: Path, what: str, error: type[LitImitationError]) -> None:
    """Raise `error` if a file declares more content than a file of its size can plausibly hold."""
    held = path.stat().st_size
    if declared > FREE_BYTES and declared > MAX_RATIO * held:
        raise error(
            f"{path}: {what} would take {declared:,} bytes, but the file has {held:,}: probably a compression bomb. "
            "If the data is real, write the file without compression"
        )


def verify_archive(path: Path, what: str = "checkpoint") -> None:
    """Compare every member of an uncompressed zip with its checksum; torch does not do this.

    Raises:
        ConfigError: The file is not such an archive, is cut off, or a member has changed; the text names the member.
    """
    reading = f"{path} cannot be read as a {what}"
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            names = [member.filename for member in members]
            if len(set(names)) < len(names):
                raise ConfigError(f"{reading}: it contains a member twice")
            for member in members:
                if member.filename.startswith("/") or ".." in member.filename.split("/"):
                    raise ConfigError(f"{reading}: its member {member.filename} lies outside the archive")
                if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
                    raise ConfigError(f"{reading}: {member.filename} is compressed; torch writes members uncompressed")
            if sum(member.file_size for member in members) > path.stat().st_size:
                raise ConfigError(f"{reading}: its members overlap")
            for member in members:
                try:
                    with archive.open(member) as file:
                        while file.read(2**20):
                            pass
                except zipfile.BadZipFile as error:
                    raise ConfigError(
                        f"{reading}: member {member.filename} is damaged ({error}); copy the file again, or use "
                        "another checkpoint"
                    ) from error
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, ValueError, NotImplementedError, zlib.error) as error:
        size = path.stat().st_size
        raise ConfigError(f"{reading}: {'it is empty' if not size else error} ({size:,} bytes)") from error


def check_npz(path: Path, keys: Sequence[str] | None, error: type[LitImitationError]) -> None:
    """Check that each array of an `.npz` has the bytes its header declares, before memory is allocated.

    Raises:
        LitImitationError: Of class `error`: an array or the whole file declares an impossible size.
        ValueError, OSError, zipfile.BadZipFile: The file is not such an archive.
    """
    with zipfile.ZipFile(path) as archive:
        members = {one.filename.removesuffix(".npy"): one for one in archive.infolist()}
        chosen = [name for name in members if keys is None or name in keys]
        check_size(sum(members[name].file_size for name in chosen), path, "its content", error)
        for name in chosen:
            with archive.open(members[name]) as file:
                _check_header(file, members[name].file_size, f"{path}: '{name}'", error)


def _check_header(file: IO[bytes], size: int, what: str, error: type[LitImitationError]) -> None:
    version = np.lib.format.read_magic(file)
    read: Any = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise error(f"{what} uses NumPy format {version[0]}.{version[1]}, which is not used for plain numbers")
    shape, _, dtype = read(file)
    if dtype.hasobject:
        return  # a pickle; NumPy refuses to load it
    declared, held = math.prod(shape) * dtype.itemsize, size - file.tell()
    if any(n < 0 for n in shape) or declared != held:
        raise error(f"{what} declares {dtype} {list(shape)}, {declared:,} bytes, but contains {held:,}")
