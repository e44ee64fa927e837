"""Trust in files: without `--trust true`, a file cannot choose code from outside this package."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from lit_imitation.errors import ConfigError, LitImitationError

PUBLIC_MODULES = (
    "lit_imitation",
    "lit_imitation.experts.fork",
    "lit_imitation.methods.dagger",
    "lit_imitation.rl",
    "lit_imitation.methods",
    "lit_imitation.policies",
    "lit_imitation.rewards",
    "lit_imitation.tabular",
)
"""Modules whose `__all__` lists the public classes."""


class Trust(NamedTuple):
    """Permissions that the user gave for this call."""

    everything: bool = False
    names: frozenset[str] = frozenset()
    """Names that the user wrote on the command line."""


_NONE = Trust()
_TRUST: ContextVar[Trust] = ContextVar("trust", default=_NONE)


@contextmanager
def trust_scope(everything: bool, names: Collection[str] = ()) -> Iterator[None]:
    """Within the block, files may name outside classes: all of them, or those in `names`.

    Permissions of an outer block remain valid.
    """
    outer = _TRUST.get()
    token = _TRUST.set(Trust(outer.everything or everything, outer.names | frozenset(names)))
    try:
        yield
    finally:
        _TRUST.reset(token)


def is_trusted(name: str | None = None) -> bool:
    """Whether everything is trusted in this call, or `name` was given explicitly."""
    trust = _TRUST.get()
    return trust.everything or (name is not None and name in trust.names)


def untrusted_error(file: object, name: object, where: str = "") -> ConfigError:
    """Error for a file that names code outside this package."""
    place = f" ({where})" if where else ""
    return ConfigError(
        f"{file} names {name}{place}, which is not part of this package; if you trust the file, add --trust true "
        "(in Python trust=True)"
    )


def is_url(value: object) -> bool:
    """Whether `value` is or contains a URL such as `https://…`, `s3://…` or `memory://…`."""
    return isinstance(value, str) and re.search(r"[A-Za-z][A-Za-z0-9+.-]*:/{2}", value) is not None


def refuse_url(value: object, what: str, error: type[LitImitationError] = ConfigError) -> None:
    """Raise `error` if `value` is a URL."""
    if is_url(value):
        raise error(f"{what}: {value} is a URL; download the file and give its path")


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
