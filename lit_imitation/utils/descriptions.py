"""Serialization of objects as plain data for checkpoints, and reconstruction from it."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import partial, wraps
from pathlib import Path
from types import BuiltinFunctionType, FunctionType
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from gymnasium import Space
from torch import Tensor, nn

from lit_imitation.errors import ConfigError
from lit_imitation.utils.arguments import TypeChecked, constructor_signature
from lit_imitation.utils.spaces import space_from_dict, space_to_dict
from lit_imitation.utils.trust import is_trusted, trust_scope, untrusted_error

KIND = "__kind__"
"""The key that tells the description of an object from a dictionary that was given as one."""
DATACLASSES = ("lit_imitation.methods.dagger.schedules", "lit_imitation.optim.optimization")
"""Modules of the dataclasses that may be arguments."""
Built = TypeVar("Built")


class Describable(TypeChecked):
    """Base class whose objects record their constructor arguments in `arguments`.

    Numbers of NumPy and torch are converted to Python's before the constructor runs, so that an object and its copy
    from a checkpoint compute the same.
    """

    arguments: dict[str, Any]
    """Arguments of the constructor by name, defaults and those of base classes included, without `context`."""
    source = ""
    """Checkpoint and method that the object was loaded from; empty otherwise."""
    context: ClassVar[tuple[str, ...]] = ()
    """Names of the constructor's first arguments, which are set by the task: the spaces."""
    factory_context: ClassVar[tuple[str, ...]] = ()
    """Names of the next arguments, which a factory receives after `context`."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not hasattr(cls.__init__, "notes"):
            cls.__init__ = _record_arguments(cls.__init__)  # type: ignore[method-assign]


def _record_arguments(init: Callable[..., None]) -> Callable[..., None]:
    signature = inspect.signature(init)

    @wraps(init)
    def noting(self: Any, *args: Any, **kwargs: Any) -> None:
        args = tuple(plain_numbers(value) for value in args)
        kwargs = {name: plain_numbers(value) for name, value in kwargs.items()}
        if "arguments" not in vars(self):
            vars(self)["arguments"] = _given(type(self), self, *args, **kwargs)
        defaults = _defaults(type(self), signature, self, *args, **kwargs)
        vars(self)["arguments"] = defaults | vars(self)["arguments"]
        init(self, *args, **kwargs)

    noting.notes = True  # type: ignore[attr-defined]
    return noting


def _given(cls: type[Describable], *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Arguments of the outermost constructor by name, without defaults."""
    try:
        bound = constructor_signature(cls).bind(*args, **kwargs)
    except (TypeError, ValueError):  # the constructor itself reports the mistake
        return {}
    found: dict[str, Any] = {}
    for position, (name, value) in enumerate(bound.arguments.items()):
        kind = bound.signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            names = (*cls.context, *cls.factory_context)[max(position - 1, 0) :]
            found |= dict(zip(names, value, strict=False))
        elif kind is inspect.Parameter.VAR_KEYWORD:
            found |= value
        elif position:  # after `self`
            found[name] = value
    return {name: value for name, value in found.items() if name not in cls.context}


def _defaults(cls: type[Describable], signature: inspect.Signature, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Arguments that a constructor was not given, with their defaults, where the constructor of `cls` accepts them.

    Each constructor in the chain of `super().__init__` notes its own: an argument that a subclass fixes for its parent
    must not be given when the object is built again.
    """
    try:
        accepted, given = constructor_signature(cls).parameters, signature.bind(*args, **kwargs).arguments
    except (TypeError, ValueError):  # the constructor itself reports the mistake
        return {}
    return {
        name: parameter.default
        for name, parameter in signature.parameters.items()
        if name in accepted and name not in (*given, *cls.context) and parameter.default is not parameter.empty
    }


def plain_numbers(value: Any) -> Any:
    """Convert scalars of NumPy and torch to Python numbers, also inside lists, tuples and dictionaries."""
    if type(value) is Tensor and value.ndim == 0 and not value.requires_grad:
        return value.item()
    if isinstance(value, np.generic | np.ndarray):
        return _number(value)
    if type(value) in (list, tuple):
        return type(value)(plain_numbers(item) for item in value)
    if type(value) is dict:
        return {plain_numbers(key): plain_numbers(item) for key, item in value.items()}
    return value


def _number(value: Any) -> Any:
    if value.ndim or value.dtype.kind not in "biufcU":
        return value
    return float(value) if value.dtype.char == "g" else value.item()  # `item` of a long double is a long double


def _double(value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Convert an array of long doubles to doubles; neither torch nor Python supports long doubles."""
    return value.astype({"g": np.float64, "G": np.complex128}.get(value.dtype.char, value.dtype), copy=False)


def to_plain(value: Any) -> Any:
    """Convert the state of an object to types that torch loads with `weights_only=True`.

    Numbers of NumPy become Python's, arrays become tensors, and paths become strings.
    """
    if isinstance(value, np.generic | np.ndarray):
        value = _number(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        return torch.from_numpy(np.ascontiguousarray(_double(value)))
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, dict):
        kind = type(value) if hasattr(value, "move_to_end") else dict  # keep an OrderedDict
        return kind((key, to_plain(item)) for key, item in value.items())
    if type(value) in (list, tuple):
        return type(value)(to_plain(item) for item in value)
    return value


def class_name(cls: Any) -> str:
    """Full name of a class: `package.module.Class`."""
    return f"{cls.__module__}.{cls.__qualname__}"


def subclasses(cls: type[Built]) -> Iterator[type[Built]]:
    """All direct and indirect subclasses of a class."""
    for subclass in cls.__subclasses__():
        yield subclass
        yield from subclasses(subclass)


def find_class(name: object, base: type[Built], file: object = "the checkpoint") -> type[Built]:
    """Find `base` or the subclass of it that a file names.

    A file may name public classes of this package. Other classes have to be trusted or named in the same call.

    Args:
        name: `class_name` of the class.
        base: Class that the result has to be, or inherit from.
        file: File that names the class, for messages.

    Returns:
        The class.

    Raises:
        ConfigError: The class is not trusted or does not exist.
        TypeError: `name` is not a string.
    """
    if not isinstance(name, str):
        raise TypeError(f"the class is a {type(name).__name__}")
    for cls in _public_subclasses(base):
        if class_name(cls) == name:
            return cls
    if not is_trusted(name):
        raise untrusted_error(file, name)
    for cls in (base, *subclasses(base)):  # includes classes that cannot be imported, such as local ones
        if class_name(cls) == name:
            return cls
    module, _, attribute = name.rpartition(".")
    try:
        thing = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # third-party code may raise anything
        raise ConfigError(f"{file} names {name}, which cannot be imported: {type(error).__name__}: {error}") from error
    if not (isinstance(thing, type) and issubclass(thing, base)):
        raise ConfigError(f"{file} names {name}, which is not a {base.__name__.lower()}")
    return thing


def _public_subclasses(base: type[Built]) -> Iterator[type[Built]]:
    """Subclasses of `base` that this package exports, among modules that are cheap to import or already imported."""
    for path in (
        "lit_imitation.policies",
        "lit_imitation.rewards",
        "lit_imitation.rl",
        "lit_imitation.methods",
    ):
        module = sys.modules.get(path)
        if path in ("lit_imitation.policies", "lit_imitation.rewards"):
            module = importlib.import_module(path)
        for name in getattr(module, "__all__", ()):
            thing = getattr(module, name, None)
            if isinstance(thing, type) and issubclass(thing, base):
                yield thing


def class_names(given: Iterable[object]) -> list[str]:
    """Full names of classes that the caller gave explicitly, directly or through a factory."""
    found = []
    for one in given:
        while isinstance(one, partial):
            one = one.func
        if isinstance(one, type):
            found.append(class_name(one))
    return found


def encode(value: Any) -> Any:
    """Convert a value to primitives and tensors; `decode` inverts this."""
    value = plain_numbers(value)
    if value is None or type(value) in (bool, int, float, complex, str, bytes, torch.dtype, torch.device):
        return value
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufcU":
        numbers = _double(value).ravel().tolist()
        return {KIND: "array", "dtype": value.dtype.str, "shape": list(value.shape), "values": numbers}
    if type(value) in (list, tuple):
        return type(value)(encode(item) for item in value)
    if type(value) in (set, frozenset):
        return {KIND: type(value).__name__, "values": [encode(item) for item in value]}
    if isinstance(value, dict):
        if KIND not in value and all(type(key) is str for key in value):
            return {key: encode(item) for key, item in value.items()}
        return {KIND: "dict", "values": [[encode(key), encode(item)] for key, item in value.items()]}
    if isinstance(value, Path):
        return {KIND: "path", "path": str(value)}
    if isinstance(value, Space):
        try:
            return {KIND: "space", "space": space_to_dict(value)}
        except Exception:  # an unsupported space
            return _encode_unknown(value)
    return _encode_code(value)


def _encode_code(value: Any) -> dict[str, Any]:
    """Encode classes, functions, and objects that are built from arguments."""
    if isinstance(value, Describable):
        return {KIND: "object", **describe(value)}
    if isinstance(value, partial):
        function, args = value.func, value.args
        if not inspect.isclass(function) and args and inspect.isclass(args[0]):  # jsonargparse's factory
            function, args = args[0], args[1:]
        keywords = {name: encode(item) for name, item in value.keywords.items()}
        return {KIND: "partial", "of": encode(function), "args": [encode(item) for item in args], "keywords": keywords}
    if inspect.isclass(value):
        return {KIND: "class", "class": class_name(value)}
    if isinstance(value, FunctionType) and "<" not in value.__qualname__:
        return {KIND: "function", "module": value.__module__, "name": value.__qualname__}
    for module in ("torch", "torch.nn.functional"):
        name = getattr(value, "__name__", "")
        if isinstance(value, BuiltinFunctionType) and getattr(sys.modules[module], name, None) is value:
            return {KIND: "function", "module": module, "name": name}
    if is_dataclass(value) and type(value).__module__ in DATACLASSES:
        arguments = {field.name: encode(getattr(value, field.name)) for field in fields(value) if field.init}
        return {KIND: "object", "class": class_name(type(value)), "arguments": arguments}
    return _encode_unknown(value)


def _encode_unknown(value: Any) -> dict[str, Any]:
    return {KIND: "unknown", "class": class_name(type(value)), "text": repr(value)[:200]}


def decode(value: Any) -> Any:
    """Inverse of `encode`.

    Raises:
        ConfigError: The value names code that is not trusted, or could not be encoded.
    """
    if type(value) in (list, tuple):
        return type(value)(decode(item) for item in value)
    if not isinstance(value, dict):
        return value
    if KIND not in value:
        return {key: decode(item) for key, item in value.items()}
    kind = value[KIND]
    if kind == "array":
        return np.array(value["values"], dtype=np.dtype(value["dtype"])).reshape(value["shape"])
    if kind in ("set", "frozenset"):
        return {"set": set, "frozenset": frozenset}[kind](decode(item) for item in value["values"])
    if kind == "dict":
        return {decode(key): decode(item) for key, item in value["values"]}
    if kind == "path":
        return Path(value["path"])
    if kind == "space":
        return space_from_dict(value["space"])
    return _decode_code(kind, value)


def _decode_code(kind: str, value: dict[str, Any]) -> Any:
    if kind == "object":
        if (cls := _find_schedule(value["class"])) is not None:
            return cls(**decode(value["arguments"]))
        return build(value, Describable)
    if kind == "factory":
        return make_factory(value)
    if kind == "class":
        return _find_class(value["class"])
    if kind == "function":
        return _find_function(value["module"], value["name"])
    if kind == "partial":
        of = decode(value["of"])
        if not (inspect.isclass(of) and issubclass(of, Describable)):
            raise ConfigError(
                f"the checkpoint contains a call of {of}, which is not allowed: pass that argument yourself"
            )
        return partial(of, *decode(value["args"]), **decode(value["keywords"]))
    raise ConfigError(
        f"the checkpoint could not store a {value.get('class', kind)} ({value.get('text', '')}): pass it by keyword "
        "to load_from_checkpoint"
    )


def _find_class(name: str) -> type[Any]:
    for cls in subclasses(nn.Module):
        if class_name(cls) == name and name.startswith("torch.nn.modules."):
            return cls
    return find_class(name, object)


def _find_function(module: str, name: str) -> Any:
    """Find a mathematical function of torch, or another function if it is trusted."""
    if module not in ("torch", "torch.nn.functional"):
        if not is_trusted(f"{module}.{name}"):
            raise untrusted_error("the checkpoint", f"{module}.{name}")
        importlib.import_module(module)
        found: Any = sys.modules[module]
        for part in name.split("."):
            found = getattr(found, part)
        return found
    # Both modules import others such as `os`, and torch has functions that read files. Accept only names without a dot
    # that are also tensor methods, or functions written for networks.
    found = getattr(sys.modules[module], name, None)
    if module == "torch":
        mathematics = isinstance(found, BuiltinFunctionType) and callable(getattr(Tensor, name, None))
    else:
        mathematics = getattr(found, "__module__", None) in ("torch.nn.functional", "torch._C._nn")
    if not mathematics:
        raise untrusted_error("the checkpoint", f"{module}.{name}")
    return found


def describe(described: Any) -> dict[str, Any]:
    """Describe an object by class, spaces and arguments; together with its `state_dict` this is complete."""
    found = {"class": class_name(type(described)), "arguments": encode(dict(described.arguments))}
    if "observation_space" in type(described).context:
        for name in ("observation_space", "action_space"):
            if hasattr(described, name):
                found[name] = space_to_dict(getattr(described, name))
    return found


def build(
    description: Mapping[str, Any], base: type[Built], file: object = "the checkpoint", named: Iterable[object] = ()
) -> Built:
    """Build an object from its description, with fresh weights.

    Args:
        description: Result of `describe`.
        base: Class that the result has to be an instance of.
        file: Origin of the description, for messages.
        named: Classes, or factories of one, that the caller gave explicitly. Unless trusted, the file may name only
            these and the public classes of this package.

    Returns:
        The object.

    Raises:
        ConfigError: The class is not trusted, does not exist, or is not a `base`.
    """
    with trust_scope(False, class_names(named)):
        cls: Any = find_class(description["class"], base, file)
        names = [name for name in ("observation_space", "action_space") if name in description]
        spaces = [space_from_dict(description[name]) for name in names]
        built: Built = cls(*spaces, **decode(description["arguments"]))
    return built


def _find_schedule(name: str) -> type[Any] | None:
    """Find a DAgger schedule of this package; these are dataclasses, not modules."""
    module, _, attribute = name.rpartition(".")
    found = getattr(sys.modules.get(module), attribute, None)
    return found if module in DATACLASSES and inspect.isclass(found) and is_dataclass(found) else None


def make_factory(description: Mapping[str, Any]) -> Callable[..., Any]:
    """Build a factory that makes the described object for any spaces."""
    cls = find_class(description["class"], Describable)
    arguments = decode(description["arguments"])
    return partial(cls, **{name: value for name, value in arguments.items() if name not in cls.factory_context})


def differences(then: Any, now: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """Compare two descriptions; return the name, old value and new value of each setting that differs."""
    if isinstance(then, dict) and isinstance(now, dict) and then.get(KIND) == now.get(KIND):
        found = []
        for key in sorted({*then, *now} - {KIND}):
            name = path if key in ("arguments", "class") else f"{path}.{key}" if path else key
            found += differences(then.get(key), now.get(key), name)
        return found
    same = torch.equal(then, now) if isinstance(then, Tensor) and isinstance(now, Tensor) else _same(then, now)
    return [] if same else [(path, _short_name(then), _short_name(now))]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):  # a recipe's list equals a tuple
        return len(one) == len(other) and all(not differences(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return False
    return bool(one == other) or (one != one and other != other)


def _short_name(value: Any) -> Any:
    """Shorten a class to its last name and a description to its class."""
    if isinstance(value, dict) and "class" in value:
        value = value["class"]
    return value.rpartition(".")[2] if isinstance(value, str) and value.count(".") > 1 else value


def find_undescribed(description: Any, path: str = "") -> list[str]:
    """Names of the settings that could not be described."""
    if isinstance(description, list | tuple):
        return [name for item in description for name in find_undescribed(item, path)]
    if not isinstance(description, dict):
        return []
    if description.get(KIND) == "unknown":
        return [f"{path} ({description['class']})"]
    found = []
    for key, item in description.items():
        found += find_undescribed(
            item, path if key in ("arguments", "class", "keywords", "of") else f"{path}.{key}".strip(".")
        )
    return found
