"""Safe reading of the configuration in an untrusted checkpoint."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

import yaml

from lit_imitation.errors import ConfigError
from lit_imitation.utils.trust import is_trusted, is_url, public_names, refuse_url, untrusted_error

MOST_NODES, MOST_CHARACTERS, MOST_BRACKETS = 10_000, 2**18, 1_000
"""Limits on a checkpoint's configuration, in values, characters and brackets; typical ones have a hundred values."""


def read_config(text: object, file: object) -> dict[str, Any]:
    """Read seed, model and data from a checkpoint's configuration.

    Args:
        text: Configuration in the checkpoint, as YAML.
        file: Path of the checkpoint, for messages.

    Returns:
        Primitives that `--config` accepts.

    Raises:
        ConfigError: The text is not a configuration, or it names code or files that need `--trust true`.
    """
    if not isinstance(text, str) or len(text) > MOST_CHARACTERS:
        raise ConfigError(f"{file} holds a configuration that is not text of at most {MOST_CHARACTERS} characters")
    if max(text.count(sign) for sign in ("[", "{", "- -")) > MOST_BRACKETS:  # YAML's reader would take minutes
        raise ConfigError(f"{file} holds a configuration of more than {MOST_BRACKETS} nested values")
    try:
        config = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"{file} holds a configuration that is not YAML: {type(error).__name__}") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{file} holds a configuration that is a {type(config).__name__}, not a mapping")
    kept = {key: config[key] for key in ("seed_everything", "model", "data") if key in config}
    if is_trusted():
        return kept
    if not isinstance(kept.get("seed_everything", 0), int):
        raise ConfigError(f"{file} holds a seed_everything that is not a whole number")
    for part in ("model", "data"):
        if part in kept and not (isinstance(kept[part], dict) and "class_path" in kept[part]):
            raise untrusted_error(file, repr(kept[part])[:100], part)
    try:
        return dict(_Reader(file).mapping(kept, ""))
    except RecursionError as error:
        raise ConfigError(f"{file} holds a configuration nested too deeply") from error


class _Reader:
    """Copies an untrusted configuration, and raises at the first value that could make the parser run or read more.

    The parser of class paths imports any dotted name, and opens any string that names a file. Strings must therefore
    be plain words, except under keys that hold paths.
    """

    def __init__(self, file: object) -> None:
        self.file, self.public, self.nodes = file, public_names(), 0

    def count(self) -> None:
        self.nodes += 1
        if self.nodes > MOST_NODES:
            raise ConfigError(f"{self.file} holds a configuration of more than {MOST_NODES} values")

    def mapping(self, held: dict[Any, Any], where: str) -> Iterator[tuple[str, Any]]:
        for key, value in held.items():
            self.count()
            place = f"{where}.{key}" if where else str(key)
            if not isinstance(key, str) or not key.isidentifier() or key.startswith("__"):
                raise ConfigError(f"{self.file} holds a configuration with the key {key!r} ({where or 'top'})")
            if key in ("env_kwargs", "observation_space", "action_space"):
                yield key, self.plain(value, place)
            elif key == "trust":
                yield key, False  # a file does not vouch for itself
            else:
                yield key, self.value(key, value, place.replace(".init_args", ""))

    def value(self, key: str, value: Any, where: str) -> Any:
        self.count()
        if isinstance(value, dict):
            return dict(self.mapping(value, where))
        if isinstance(value, list):
            return [self.value(key, one, where) for one in value]
        if not isinstance(value, str):
            return self.primitive(value, where)
        if is_trusted(value) or not value:
            return value
        refuse_url(value, f"{self.file}: {where}")
        self.inert(value, where)
        if key == "class_path":
            if value not in self.public:
                raise untrusted_error(self.file, value, where.removesuffix(".class_path"))
        elif key == "env_id":
            if ":" in value:
                raise untrusted_error(self.file, value, where)
        elif key == "expert":
            self.expert(value, where)
        elif key == "demonstrations":
            if value.startswith("hf:") and not os.path.isdir(os.path.expanduser(value[3:])):
                raise ConfigError(
                    f"{self.file} names {value} ({where}), which would be downloaded; name it yourself with "
                    "--data.demonstrations, or add --trust true"
                )
        elif key == "observation_keys":
            pass  # names of arrays, never of classes or files
        elif key in ("start", "reward") and value not in self.public and not _is_word(value):
            return os.path.abspath(os.path.expanduser(value))  # the parser would import `module.ckpt`
        elif value not in self.public and not _is_word(value):
            raise untrusted_error(self.file, value, where)
        return value

    def inert(self, value: str, where: str) -> None:
        """Raise for text that the parser would replace: YAML inside the text, or the name of a text file."""
        try:
            nested = isinstance(yaml.safe_load(value), dict | list)
        except (yaml.YAMLError, ValueError):
            nested = True
        path = os.path.expanduser(value)
        if not nested and os.path.isfile(path):
            with open(path, "rb") as file:
                nested = file.read(4) not in (b"PK\x03\x04", b"\x89HDF")
        if nested:
            raise ConfigError(
                f"{self.file}: {where} is {value[:100]!r}, which could be read as more configuration; if you trust the "
                "file, add --trust true"
            )

    def expert(self, value: str, where: str) -> None:
        from lit_imitation.experts import FILE_FORMS, PUBLIC_FUNCTIONS

        form, colon, _ = value.partition(":")
        if colon and form not in FILE_FORMS and value not in PUBLIC_FUNCTIONS:
            raise untrusted_error(self.file, value, where)

    def plain(self, value: Any, where: str) -> Any:
        """Copy arguments of an environment or space: numbers, words, lists and dictionaries, but no file names."""
        self.count()
        if isinstance(value, dict):
            return {key: self.plain(one, f"{where}.{key}") for key, one in value.items()}
        if isinstance(value, list):
            return [self.plain(one, where) for one in value]
        if isinstance(value, str):
            if not is_trusted(value) and (value.startswith(("/", "~", ".")) or ".." in value or is_url(value)):
                raise ConfigError(
                    f"{self.file} names the file {value} ({where}); if you trust the file, add --trust true"
                )
            return value
        return self.primitive(value, where)

    def primitive(self, value: Any, where: str) -> Any:
        if value is not None and not isinstance(value, bool | int | float):
            raise ConfigError(f"{self.file} holds a {type(value).__name__} ({where}), not a number or text")
        return value


def _is_word(value: str) -> bool:
    """Whether the parser reads `value` as a word or number, like `tanh`, `4x4` or `1e-3`, and not as a class."""
    return re.fullmatch(r"[a-z0-9][A-Za-z0-9_+-]*|[+-]?[0-9.]+(e[+-]?[0-9]+)?", value) is not None
