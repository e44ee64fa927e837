"""Constructor arguments: what a class accepts, and checks against annotations like those of a recipe's parser."""

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
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Union

import numpy as np

from lit_imitation.errors import ConfigError

_TYPE_NAMES: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "text",
    dict: "a mapping",
}
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class TypeChecked:
    """Base class that checks the names and types of constructor arguments before the constructor runs."""

    argument_owner = ""
    """Prefix of an argument in messages: `data`, `model`; empty for the name of the class."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Check the arguments before the constructor runs."""
        if inspect.isabstract(cls):
            missing = ", ".join(sorted(getattr(cls, "__abstractmethods__", ())))
            raise ConfigError(f"{cls.__name__} is abstract: it does not define {missing}; name a class that does")
        check_arguments(cls, args, kwargs, cls.argument_owner)
        new = super().__new__
        return new(cls) if new is object.__new__ else new(cls, *args, **kwargs)


def constructor_signature(cls: type, *, evaluated: bool = False) -> inspect.Signature:
    """Signature of a constructor, with `*args` and `**kwargs` replaced by the parameters they are forwarded to.

    A constructor that takes `*args` or `**kwargs` is assumed to forward them by `super().__init__`, so the search goes
    up the method resolution order until a constructor takes neither. Where none does, the last `*args` and `**kwargs`
    remain. The first parameter is `self`.

    Args:
        cls: Class whose constructor it is.
        evaluated: Evaluate annotations that are strings.

    Raises:
        NameError: An annotation cannot be evaluated.
        TypeError: A constructor has no signature, like some that are written in C.
        ValueError: Likewise, or the parameters do not fit together.
    """
    return _signature(cls, evaluated)


@functools.lru_cache
def _signature(cls: type, evaluated: bool) -> inspect.Signature:
    return inspect.Signature(_parameters(cls.__mro__, evaluated))


def argument_names(cls: type) -> list[str]:
    """Names of the constructor's arguments, those of base classes included (see `constructor_signature`)."""
    parameters = list(constructor_signature(cls).parameters.values())[1:]
    return [parameter.name for parameter in parameters if parameter.kind in _BY_NAME]


def _parameters(mro: Sequence[type], evaluated: bool) -> list[inspect.Parameter]:
    """Parameters of the first constructor in `mro`; empty if only `object` has one."""
    first = next((i for i, cls in enumerate(mro) if "__init__" in vars(cls) and cls is not object), None)
    if first is None:
        return []
    own = list(inspect.signature(vars(mro[first])["__init__"], eval_str=evaluated).parameters.values())
    inherited = _parameters(mro[first + 1 :], evaluated) if any(one.kind in _VARIABLE for one in own) else []
    if not inherited:
        return own
    named = {one.name for one in own if one.kind not in _VARIABLE}
    found: list[inspect.Parameter] = []
    for one in own:
        if one.kind is inspect.Parameter.VAR_POSITIONAL:
            kinds = (*_POSITIONAL, inspect.Parameter.VAR_POSITIONAL)
            found += [other for other in inherited[1:] if other.kind in kinds and other.name not in named]
        elif one.kind is inspect.Parameter.VAR_KEYWORD:
            named |= {other.name for other in found}
            by_name = [other for other in inherited[1:] if other.kind in _BY_NAME and other.name not in named]
            found += [other.replace(kind=inspect.Parameter.KEYWORD_ONLY) for other in by_name]
            found += [other for other in inherited if other.kind is inspect.Parameter.VAR_KEYWORD]
        else:
            found.append(one)
    return found


def check_arguments(cls: type, args: Sequence[Any], kwargs: Mapping[str, Any], owner: str = "") -> None:
    """Check names and types of the arguments of `cls(*args, **kwargs)`.

    Arguments that equal their default pass, and so do those whose annotation cannot be evaluated. Python itself reports
    missing arguments and too many. NaN is not a number. Values that work pass although their type is another one:
    NumPy's numbers, whole numbers as numbers, `True` as 1, paths as text, any iterable as a list.

    Raises:
        ConfigError: An argument does not exist, or its annotation does not allow the value; names the first.
    """
    try:
        signature, hints = _hints(cls)
    except (TypeError, NameError, ValueError):
        return
    parameters = signature.parameters
    if not any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        for name in kwargs:
            if name not in parameters:
                raise ConfigError(f"{cls.__name__} has no argument {name}{_nearest(name, list(parameters)[1:])}")
    try:
        given = signature.bind_partial(None, *args, **kwargs).arguments
    except TypeError:
        return
    for name, value in list(given.items())[1:]:
        if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):  # scalars of NumPy and torch
            value = value.item()
        if name not in hints or value is parameters[name].default:
            continue
        where = f"{f'{owner}.' if owner else f'{cls.__name__}: '}{name} is {_abbreviate(value)}"
        if not _fits(value, hints[name]):
            chosen = typing.get_origin(hints[name]) is Literal
            raise ConfigError(f"{where}; {'choose' if chosen else 'it must be'} {_describe(hints[name])}")
        if name.endswith("learning_rate") and isinstance(value, numbers.Real) and not 0.0 < float(value) < math.inf:
            raise ConfigError(f"{where}; it must be positive and finite")


def _nearest(name: str, names: list[str]) -> str:
    near = get_close_matches(name, names, 1)
    return f"; did you mean {near[0]}?" if near else f"; it has {', '.join(names) or 'none'}"


@functools.lru_cache
def _hints(cls: type) -> tuple[inspect.Signature, dict[str, Any]]:
    """Signature of the constructor, and the annotations of arguments that can be given by name."""
    signature = constructor_signature(cls, evaluated=True)
    typed = [one for one in signature.parameters.values() if one.kind in _BY_NAME and one.annotation is not one.empty]
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
    """Describe a type in words, for messages."""
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
    return _TYPE_NAMES.get(kind, f"a {getattr(kind, '__name__', kind)}")


def _abbreviate(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"a {type(value).__name__}"
