"""Types of constructor arguments, checked against their annotations, as a recipe's parser does it."""

from __future__ import annotations

import collections.abc
import functools
import inspect
import math
import numbers
import os
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union

import numpy as np

from lit_imitation.errors import ConfigError

_NAMES: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "text",
    dict: "a mapping",
}


class TypeChecked:
    """A base whose subclasses' constructors refuse arguments of other types than annotated, before they run."""

    argument_owner = ""
    """What a message calls the object: `data`, `model`; empty for the name of the class."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Check the arguments, and leave them to the constructor."""
        if inspect.isabstract(cls):
            missing = ", ".join(sorted(getattr(cls, "__abstractmethods__", ())))
            raise ConfigError(f"{cls.__name__} is abstract: it does not define {missing}; name a class that does")
        check_arguments(cls, args, kwargs, cls.argument_owner)
        new = super().__new__
        return new(cls) if new is object.__new__ else new(cls, *args, **kwargs)


def check_arguments(cls: type, args: Sequence[Any], kwargs: Mapping[str, Any], owner: str = "") -> None:
    """Raise `ConfigError` at the first argument of `cls(*args, **kwargs)` that its annotation has no room for.

    Arguments that equal their default pass, as do annotations that cannot be evaluated and arguments that the
    constructor does not have, which Python reports by itself. NaN is no number. What works is let through: NumPy's
    numbers, whole numbers as numbers, `True` as 1, paths as text, anything that can be walked through as a list.
    """
    try:
        signature, hints = _signature(cls)
        given = signature.bind_partial(None, *args, **kwargs).arguments
    except (TypeError, NameError, ValueError):
        return
    for name, value in list(given.items())[1:]:
        if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):  # NumPy's and torch's numbers
            value = value.item()
        if name not in hints or value is signature.parameters[name].default:
            continue
        where = f"{f'{owner}.' if owner else f'{cls.__name__}: '}{name} is {_short(value)}"
        if not _fits(value, hints[name]):
            chosen = typing.get_origin(hints[name]) is Literal
            raise ConfigError(f"{where}; {'choose' if chosen else 'it must be'} {_describe(hints[name])}")
        if name.endswith("learning_rate") and isinstance(value, numbers.Real) and not 0.0 < float(value) < math.inf:
            raise ConfigError(f"{where}; it must be positive and finite")


@functools.lru_cache
def _signature(cls: type) -> tuple[inspect.Signature, dict[str, Any]]:
    """Of the constructor; the hints of plain parameters alone."""
    signature = inspect.signature(cls.__init__, eval_str=True)  # type: ignore[misc]
    plain = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    typed = [one for one in signature.parameters.values() if one.kind in plain and one.annotation is not one.empty]
    return signature, {one.name: one.annotation for one in typed}


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in arguments)
    if origin is Literal:
        return isinstance(value, str | int) and value in arguments
    if hint is bool:
        return isinstance(value, bool | np.bool_) or (isinstance(value, numbers.Integral) and value in (0, 1))
    if hint is int:
        return isinstance(value, numbers.Integral)
    if hint is float:
        return isinstance(value, numbers.Real) and not math.isnan(value)
    if hint in (str, Path):
        return isinstance(value, str | os.PathLike)
    if hint in (None, type(None)):
        return value is None
    if origin is collections.abc.Callable:
        return callable(value)
    if origin in (list, tuple, collections.abc.Sequence):
        if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
            return False
        checked = isinstance(value, Sequence | np.ndarray) and arguments and arguments[0] in (int, float, str)
        return not checked or all(_fits(one, arguments[0]) for one in value)
    kind = Mapping if (origin or hint) is dict else origin or hint
    if getattr(kind, "_is_runtime_protocol", False):
        return isinstance(value, kind)
    if isinstance(kind, type) and not getattr(kind, "_is_protocol", False):
        return isinstance(value, kind)
    return True


def _describe(hint: Any) -> str:
    """A type as a person calls it."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_describe(one) for one in arguments))
    if origin is Literal:
        return " or ".join(map(str, arguments)) if len(arguments) < 3 else f"one of {', '.join(map(str, arguments))}"
    if hint in (None, type(None)):
        return "None"
    if origin is collections.abc.Callable:
        result = arguments[-1] if arguments else None
        return f"a class or function that makes a {result.__name__}" if isinstance(result, type) else "a function"
    if origin in (list, tuple, collections.abc.Sequence):
        return "a list of whole numbers" if arguments and arguments[0] is int else "a list"
    kind = origin or hint
    if getattr(kind, "_is_runtime_protocol", False):
        return f"an object with {', '.join(name for name in vars(kind) if not name.startswith('_'))}"
    return _NAMES.get(kind, f"a {getattr(kind, '__name__', kind)}")


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"a {type(value).__name__}"
