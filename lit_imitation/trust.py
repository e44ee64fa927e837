"""What a file may name. Weights and their descriptions are data: without `--trust true` they choose no foreign code."""

from __future__ import annotations

import importlib
import inspect
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import yaml

from lit_imitation.errors import ConfigError, LitImitationError

PUBLIC_MODULES = (
    "lit_imitation",
    "lit_imitation.callbacks",
    "lit_imitation.generators",
    "lit_imitation.methods",
    "lit_imitation.policies",
    "lit_imitation.rewards",
    "lit_imitation.tabular",
)
"""Modules whose `__all__` holds the public classes."""

MOST_NODES, MOST_CHARACTERS, MOST_BRACKETS = 10_000, 2**18, 1_000
"""Size of a configuration inside a checkpoint, in values, characters and brackets; ours have about a hundred values."""


class Trust(NamedTuple):
    """What the person allowed in this call."""

    everything: bool = False
    names: frozenset[str] = frozenset()
    """Values that the command line spelled out itself."""


_NONE = Trust()
_TRUST: ContextVar[Trust] = ContextVar("trust", default=_NONE)


@contextmanager
def trusting(everything: bool, names: Collection[str] = ()) -> Iterator[None]:
    """Within the block, files may name foreign classes: any of them, or those in `names`.

    Trust that an outer block gave stays.
    """
    outer = _TRUST.get()
    token = _TRUST.set(Trust(outer.everything or everything, outer.names | frozenset(names)))
    try:
        yield
    finally:
        _TRUST.reset(token)


def trusted(name: str | None = None) -> bool:
    """Whether everything is allowed in this call, or `name` was spelled out in it."""
    trust = _TRUST.get()
    return trust.everything or (name is not None and name in trust.names)


def refused(file: object, name: object, where: str = "") -> ConfigError:
    """The error for a file that names foreign code."""
    place = f" ({where})" if where else ""
    return ConfigError(
        f"{file} names {name}{place}, which is not of this package; if you trust the file, add --trust true "
        "(in Python trust=True)"
    )


def is_url(value: object) -> bool:
    """Whether a source is an address such as `https://…`, `s3://…` or `memory://…`, with or without a prefix."""
    return isinstance(value, str) and re.search(r"[A-Za-z][A-Za-z0-9+.-]*:/{2}", value) is not None


def refuse_url(value: object, what: str, error: type[LitImitationError] = ConfigError) -> None:
    """Raise `error` if `value` is a URL: nothing is fetched."""
    if is_url(value):
        raise error(f"{what}: {value} is a URL, and nothing is fetched; download the file and give its path")


def public_names() -> frozenset[str]:
    """Every spelling of every public class: `lit_imitation.BC` and `lit_imitation.methods.bc.BC`."""
    names = set()
    for path in PUBLIC_MODULES:
        module = importlib.import_module(path)
        for name in module.__all__:
            thing = getattr(module, name)
            if inspect.isclass(thing):
                names |= {f"{path}.{name}", f"{thing.__module__}.{thing.__qualname__}"}
    return frozenset(names)


def read_config(text: object, file: object) -> dict[str, Any]:
    """The configuration that a checkpoint carries, as far as it may be used: seed, model and data.

    Args:
        text: what the checkpoint holds.
        file: the checkpoint, for messages.

    Returns:
        Primitives that can be given to `--config`.

    Raises:
        ConfigError: not a configuration, or it names what only the person may name.
    """
    if not isinstance(text, str) or len(text) > MOST_CHARACTERS:
        raise ConfigError(f"{file} holds a configuration that is not text of at most {MOST_CHARACTERS} characters")
    if max(text.count(sign) for sign in ("[", "{", "- -")) > MOST_BRACKETS:  # which YAML's reader takes minutes for
        raise ConfigError(f"{file} holds a configuration of more than {MOST_BRACKETS} nested values")
    try:
        config = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"{file} holds a configuration that is not YAML: {type(error).__name__}") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{file} holds a configuration that is a {type(config).__name__}, not a mapping")
    kept = {key: config[key] for key in ("seed_everything", "model", "data") if key in config}
    if trusted():
        return kept
    if not isinstance(kept.get("seed_everything", 0), int):
        raise ConfigError(f"{file} holds a seed_everything that is no number")
    for part in ("model", "data"):
        if part in kept and not (isinstance(kept[part], dict) and "class_path" in kept[part]):
            raise refused(file, repr(kept[part])[:100], part)
    try:
        return dict(_Reader(file).mapping(kept, ""))
    except RecursionError as error:
        raise ConfigError(f"{file} holds a configuration nested too deeply") from error


class _Reader:
    """Copies an untrusted configuration, and stops at the first thing that could make the parser run or read more.

    A parser of class paths imports any dotted name, and opens any string that is the name of a file. So strings have
    to be words, except under the keys that are known to hold paths.
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
            if key == "env_kwargs":
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
        if trusted(value) or not value:
            return value
        refuse_url(value, f"{self.file}: {where}")
        self.inert(value, where)
        if key == "class_path":
            if value not in self.public:
                raise refused(self.file, value, where.removesuffix(".class_path"))
        elif key == "env_id":
            if ":" in value:
                raise refused(self.file, value, where)
        elif key == "expert":
            self.expert(value, where)
        elif key == "demonstrations":
            if value.startswith("hf:") and not os.path.isdir(os.path.expanduser(value[3:])):
                raise ConfigError(
                    f"{self.file} names {value} ({where}), which would be fetched; name it yourself with "
                    "--data.demonstrations, or add --trust true"
                )
        elif key in ("start", "reward") and value not in self.public and not _is_word(value):
            return os.path.abspath(os.path.expanduser(value))  # the parser would import `module.ckpt`
        elif value not in self.public and not _is_word(value):
            raise refused(self.file, value, where)
        return value

    def inert(self, value: str, where: str) -> None:
        """Refuse what the parser would replace by what it reads: YAML inside the text, or a text file of that name."""
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
            raise refused(self.file, value, where)

    def plain(self, value: Any, where: str) -> Any:
        """Arguments of an environment: numbers, words, and lists and dictionaries of them; none names a file."""
        self.count()
        if isinstance(value, dict):
            return {key: self.plain(one, f"{where}.{key}") for key, one in value.items()}
        if isinstance(value, list):
            return [self.plain(one, where) for one in value]
        if isinstance(value, str):
            if not trusted(value) and (value.startswith(("/", "~", ".")) or ".." in value or is_url(value)):
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
    """Whether no parser takes it for a class: `tanh`, `4x4`, `1e-3`."""
    return re.fullmatch(r"[a-z0-9][A-Za-z0-9_+-]*|[+-]?[0-9.]+(e[+-]?[0-9]+)?", value) is not None
