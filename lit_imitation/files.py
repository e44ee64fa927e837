"""Paths as people write them, and files that no reader, and no kill at any moment, ever meets half of."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from lit_imitation.errors import ConfigError


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

    The bytes go to a new file beside `path`, are forced to disk, and take its name in one step. On an error the new
    file is removed; only a kill in between can leave it behind, under a name that starts with a dot and ends in
    `.tmp`. The folder must exist.

    Raises:
        OSError: the folder is missing, cannot be written, or the disk is full.
    """
    path = Path(path)
    # Opened like any other file, not through `tempfile`, so that it gets the permissions of the person's umask.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
