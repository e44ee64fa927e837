"""Error messages of one line for recipes and options, from jsonargparse's messages of up to eighteen lines.

jsonargparse reports a tree: keys within keys, classes within these, and every type that it tried for each union. The
cause is the deepest leaf. This module parses the tree from the text of the message. Text of another form is only put on
one line.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from lit_imitation.errors import UsageError
from lit_imitation.utils.arguments import argument_names
from lit_imitation.utils.files import expand_user

TOP = ("config", "seed_everything", "trainer", "model", "data", "ckpt_path", "weights_only", "print_config")
"""Top-level options of `fit`, `validate`, `test` and `predict`; all others are below these."""

_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "dict": "a mapping",
    "list": "a list",
    "Sequence": "a list",
    "Iterable": "a list",
}
_NOISE = (
    "Does not validate against",
    "Errors:",
    "Given value type:",
    "Expected a path but",
    "Subclass types expect",
    "a class path (str)",
    "a dict with",
)


class Recipe(NamedTuple):
    """A file given as `--config`."""

    file: str
    lines: dict[str, int]
    """Line of each setting, by its path as in an option, like `model.learning_rate`."""


def read_recipes(arguments: Sequence[str]) -> list[Recipe]:
    """Read the recipes among the arguments of a command.

    Raises:
        UsageError: A file is not UTF-8, not YAML or not a mapping, or it sets a key twice. Names file and line.
    """
    values: list[str] = []
    for i, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name in ("--config", "-c"):
            values += [value] if equals else arguments[i + 1 : i + 2]
    return [_read_recipe(value) for value in values if value and "\n" not in value and expand_user(value).is_file()]


def _read_recipe(name: str) -> Recipe:
    try:
        root = yaml.compose(expand_user(name).read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        raise UsageError(f"{name} is not UTF-8 text: {error}") from error
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        raise UsageError(f"{name}{where}: not YAML: {getattr(error, 'problem', None) or error}") from error
    if not isinstance(root, yaml.MappingNode):
        what = {"NoneType": "empty", "SequenceNode": "a list"}.get(type(root).__name__, "a single value")
        raise UsageError(f"{name} is {what}; a recipe is a mapping with the keys model, data and trainer")
    return Recipe(name, dict(_settings(name, root, "")))


def _settings(file: str, node: yaml.Node, path: str) -> Iterator[tuple[str, int]]:
    """Path and line of every setting below a node."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _settings(file, item, path)
    elif isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            inner = path if name == "init_args" else f"{path}.{name}".strip(".")
            if name in seen and name != "<<":
                raise UsageError(f"{file}, line {line}: {inner} is already set in line {seen[name]}; leave one out")
            seen[name] = line
            if name not in ("init_args", "class_path"):
                yield inner, line
            yield from _settings(file, value, inner)


class Cause(NamedTuple):
    """A leaf of jsonargparse's tree."""

    path: tuple[str, ...]
    """Keys above the leaf, outermost first."""
    cls: str
    """Class whose argument is wrong, if any."""
    text: str
    """The message of the leaf."""
    depth: int
    """Depth of the leaf in the tree."""
    given: str
    """Refused value, if the message names it."""
    subtypes: str
    """Types of the union that the leaf belongs to."""

    @property
    def expected(self) -> str:
        """Expected type, if the message says no more than that."""
        return self.text.removeprefix("Expected a ") if self.text.startswith("Expected a ") else ""

    @property
    def rank(self) -> tuple[int, int, bool]:
        """Sort key; the leaf with the largest one is the cause."""
        is_type = bool(self.expected) and not self.expected.startswith("dot import")
        return len(self.path), self.depth, not is_type and not self.text.startswith("Not a valid subclass")


def explain(message: str, arguments: Sequence[str] = (), recipes: Sequence[Recipe] = ()) -> str:
    """Explain an error of the parser on one line: path of the setting, cause, and close matches.

    Args:
        message: Message of jsonargparse.
        arguments: Arguments of the command line, which override recipes.
        recipes: Result of `read_recipes`.

    Returns:
        The explanation, without a line break.
    """
    if message.endswith("expected one argument") and arguments and arguments[-1].endswith(".help"):
        return f"{arguments[-1]} needs a class: {arguments[-1]} CLASS"
    if message.startswith("unrecognized arguments: "):
        return _unrecognized(message.removeprefix("unrecognized arguments: ").split())
    if found := re.fullmatch(r"(?:Subcommand '\w+'|Group '.*'|.*) ?does not accept option '([^']+)'", message):
        return _unknown(found[1]) + _where(found[1], arguments, recipes)
    if found := re.fullmatch(r"the following arguments are required: (.*)", message):
        names = [name.rpartition(".")[2] for name in found[1].split(", ")]
        return "; ".join(f"{name} is missing: add --{name} CLASS, {list_classes(name)}" for name in names)
    if message.startswith("Unexpected config:"):
        value = _clean_value(message.partition(":")[2].strip())
        return f"--config {value!r} is neither a file nor a mapping in YAML"
    causes = _leaves(message)
    if not any(cause.path for cause in causes):
        return " ".join(message.split())
    best = max(causes, key=lambda cause: cause.rank)
    path = ".".join(best.path)
    text = _describe(best, [cause for cause in causes if cause.rank == best.rank])
    named = text.partition(":")[0]  # for an unknown option, this is its full path
    return f"{text}{_where(named if named.startswith(f'{path}.') and ' ' not in named else path, arguments, recipes)}"


def _leaves(message: str) -> list[Cause]:
    """Leaves of the tree, in order."""
    leaves: list[Cause] = []
    stack: list[tuple[int, tuple[str, ...], str]] = []  # indentation, path and class of open nodes
    subtypes: dict[int, str] = {}
    for line in message.splitlines():
        body = line.lstrip()
        indent = len(line) - len(body)
        if body.startswith("- "):
            body, indent = body[2:], indent + 2
        if not body or body.startswith(_NOISE):
            continue
        while stack and stack[-1][0] >= indent and not body.startswith(("Given value:", "Subtypes:")):
            stack.pop()
        path, cls = stack[-1][1:] if stack else ((), "")
        if body.startswith("Subtypes:"):
            subtypes = {depth: text for depth, text in subtypes.items() if depth < len(stack)} | {len(stack): body}
            continue
        if body.startswith("Given value: "):
            while stack and stack[-1][0] > indent:
                stack.pop()
            path = stack[-1][1] if stack else ()
            value = body.removeprefix("Given value: ")
            leaves = [one._replace(given=value) if one.path == path and not one.given else one for one in leaves]
            continue
        body = re.sub(r"^Type .* expects a function or a callable class: ", "", body)
        if found := re.match(r'Parser key "([^"]*)":?\s*(.*)', body):
            path = (*path, *found[1].split("."))
            stack.append((indent, path, cls))
            body = found[2]
        elif found := re.match(r"Problem with given class_path '([^']*)':", body):
            stack.append((indent, path, found[1]))
            continue
        if body and not body.startswith(_NOISE):
            text, _, given = body.partition(". Got value: ")
            given, _, inner = given.partition(". Got value: ")
            if found := re.search(r"class_path='([^']*)'", inner or given):
                cls = found[1]
            leaves.append(
                Cause(path, cls, text, len(stack), given, subtypes.get(len(stack)) or subtypes.get(len(stack) - 1, ""))
            )
    return leaves


def _describe(best: Cause, equals: list[Cause]) -> str:
    """Describe a cause; `equals` holds all leaves of the same rank."""
    path, cls, short = ".".join(best.path), _load(best.cls), best.cls.rpartition(".")[2]
    if found := re.match(r"(?:Option|Key) ['\"]([^'\"]+)['\"] is not (?:accepted|expected)", best.text):
        option = found[1]
        if option == "class_path" or (isinstance(cls, type) and inspect.isabstract(cls)):
            return _no_class(path, option, best)
        names = _parameters(cls)
        return f"{path}.{option}: {short} has no such option" + _suggest(option, names, f"; it has {_list(names)}")
    if found := re.search(r"but got NestedArg\(key='([^']*)'", best.text):
        return _no_class(path, found[1], best)
    no_class = best.text.startswith("Not a valid subclass") and best.given.startswith("{")
    if no_class or "Dict must include a class_path" in best.text or "is abstract" in best.text:
        return _no_class(path, "", best)
    if found := re.match(r"the following arguments are required: (.*)", best.text):
        if of := re.match(r"Namespace\(class_path='([^']*)'", best.given):
            cls, short = _load(of[1]), of[1].rpartition(".")[2]
        if isinstance(cls, type) and inspect.isabstract(cls):
            return f"{path}: {short} is abstract; name a subclass" + _suggest_class("", best)
        return " and ".join(f"{path}.{name}" for name in found[1].split(", ")) + f": missing, and {short} needs it"
    if found := re.match(r"Expected a dot import path string: (.*)", best.text):
        return f"{path}: there is no class {found[1]!r}" + _suggest_class(found[1], best)
    if found := re.match(r"No module named '([^']*)'", best.text):
        return f"{path}: {best.cls} cannot be imported, there is no module {found[1]!r}" + _suggest_class(short, best)
    if found := re.match(
        r"module '([^']*)' has no attribute '(\w+)'|cannot import name '(\w+)' from '([^']*)'", best.text
    ):
        module, name = (found[1], found[2]) if found[1] else (found[4], found[3])
        return f"{path}: {module} has no {name!r}" + _suggest_class(name, best)
    if "Import path does not correspond to a subclass" in best.text or "to be a subclass of" in best.text:
        named = _clean_value(best.given) if best.given and "(" not in best.given else best.cls
        return f"{path}: {named} is not a class of the required kind" + _suggest_class("", best)
    if "Unable to load config" in best.text:
        return f"{path}: {_clean_value(best.text.rpartition(' ')[2])} is neither a mapping nor a file with one"
    choices = " ".join(cause.expected for cause in equals if cause.expected.startswith("typing.Literal["))
    options = list(dict.fromkeys(re.findall(r"[\w.+-]+", choices.replace("typing.Literal", ""))))
    expected = [
        kind for kind in dict.fromkeys(_type_name(cause.expected) for cause in equals if cause.expected) if kind
    ]
    if options or expected or best.text.startswith("Not a valid subclass"):
        wanted = " or ".join([*expected, *([f"one of {', '.join(options)}"] if options else [])]) or "another value"
        value = _clean_value(best.given)
        return f"{path} is {value}; it must be {wanted}" + _suggest(value, options, "")
    if "object has no attribute" in best.text:
        return f"{path}: init_args must be a mapping of arguments to their values"
    return f"{path}: {best.text}" if path else best.text


def _unrecognized(arguments: list[str]) -> str:
    options = [argument.partition("=")[0] for argument in arguments if argument.startswith("-")]
    if not options:
        return f"unexpected argument {arguments[0]!r}; write options as --name value"
    return _unknown(options[0].lstrip("-"))


def _unknown(path: str) -> str:
    """Message for an option that does not exist, with the closest one that does."""
    if path.partition(".")[0] in ("fit", "validate", "test", "predict"):
        return f"there is no option {path}; leave {path.partition('.')[0]} out: {path.partition('.')[2]}"
    owner, _, name = path.rpartition(".")
    below = {f"trainer.{one}" for one in _parameters(_load("lightning.Trainer"))}
    for key, base in (("model", _METHOD), ("data", _DATA)):
        below |= {f"{key}.{one}" for cls in _subclasses(_load(base)) for one in _parameters(cls)}
    same = sorted(one for one in below if one.rpartition(".")[2] == name and one != path)
    if same:
        return f"there is no option {path}; did you mean {' or '.join(same)}?"
    within = sorted(one for one in below if one.rpartition(".")[0] == owner) if owner else [*TOP]
    near = difflib.get_close_matches(path, within, 1) or difflib.get_close_matches(path, sorted(below), 1)
    return f"there is no option {path}" + (f"; did you mean {near[0]}?" if near else f"; there are {_list(TOP)}")


_METHOD = "lit_imitation.methods.method.Method"
_DATA = "lit_imitation.data.module.EnvironmentDataModule"
_BASES = ("EnvironmentDataModule", "Method", "RoundMethod")
"""Public classes to inherit from, which train nothing by themselves."""


def _no_class(path: str, option: str, cause: Cause) -> str:
    names = _names(cause)
    classes = f": {_list(names)}" if names else ""
    if option in ("", "class_path"):
        return f"{path}: class_path is missing{classes}"
    return f"{path}.{option}: {path} has no class yet; put --{path} CLASS before this option{classes}"


def _suggest(value: str, names: Sequence[str], otherwise: str) -> str:
    by_case = {name.lower(): name for name in names}
    near = difflib.get_close_matches(value.lower(), list(by_case), 1, 0.5)
    return f"; did you mean {by_case[near[0]]}?" if near else otherwise


def _suggest_class(value: str, cause: Cause) -> str:
    names = _names(cause)
    return _suggest(value.rpartition(".")[2], names, f"; there are {_list(names)}" if names else "")


def _names(cause: Cause) -> list[str]:
    """Short names of the classes that the setting accepts."""
    bases = re.findall(r"(?:lit_imitation|lightning|torch)[\w.]*\.[A-Z]\w*", cause.subtypes)
    base = _load(bases[-1] if bases else cause.cls)
    return _public(base) if isinstance(base, type) else []


def _public(base: type) -> list[str]:
    """Short names of subclasses of `base`: this package's public ones, then Lightning's callbacks and loggers.

    If this package has none, all subclasses in imported modules are listed.
    """
    package = importlib.import_module("lit_imitation")
    every = (getattr(package, name) for name in package.__all__)
    own = [cls for cls in every if isinstance(cls, type) and issubclass(cls, base)]
    homes = ("lightning.pytorch.callbacks", "lightning.pytorch.loggers", *(() if own else ("",)))
    others = [cls for cls in _subclasses(base) if cls.__module__.startswith(homes) and cls.__name__[0] != "_"]
    others.sort(key=lambda cls: cls.__name__)
    usable = (cls for cls in [*own, *others] if not inspect.isabstract(cls) and cls.__name__ not in _BASES)
    return list(dict.fromkeys(cls.__name__ for cls in usable))


def list_classes(name: str) -> str:
    """List the classes that `model` or `data` accepts, as the end of a sentence."""
    base = _load({"model": _METHOD, "data": _DATA}.get(name, ""))
    return f"one of {_list(_public(base))}" if isinstance(base, type) else "or its key in a recipe"


def _subclasses(base: Any) -> Iterator[type]:
    found: list[type] = base.__subclasses__() if isinstance(base, type) else []
    for cls in found:
        yield cls
        yield from _subclasses(cls)


def _load(path: str) -> Any:
    """Object that a dotted path names, in this package or an imported module; `None` otherwise."""
    module, _, name = path.partition("[")[0].rpartition(".")
    try:
        ours = module.partition(".")[0] == "lit_imitation"
        return getattr(importlib.import_module(module) if ours else sys.modules.get(module), name, None)
    except ImportError:
        return None


def _parameters(cls: Any) -> list[str]:
    """Names of a constructor's arguments, with those that it forwards to its bases, without the spaces."""
    names = argument_names(cls) if isinstance(cls, type) else []
    return [name for name in names if name not in ("observation_space", "action_space")]


def _type_name(text: str) -> str:
    """Plain name of a type; empty for null, which is rarely meant, and for choices."""
    if text.startswith("typing.Literal["):
        return ""
    found = re.search(r"([\w.]+)'?>?$", text.partition("[")[0])
    name = found[1].rpartition(".")[2] if found else text
    return "" if name == "NoneType" else _TYPES.get(name, f"a {name}")


def _clean_value(given: str) -> str:
    """A refused value without quotes and wrapping, at most 60 characters long."""
    if found := re.fullmatch(r"NestedArg\(key='[^']*', val=(.*)\)", given):
        given = found[1]
    if given[:1] in "'\"" and given[-1:] == given[:1] and len(given) > 1:
        given = given[1:-1]
    return given if len(given) <= 60 else f"{given[:57]}..."


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:16]) + (", …" if len(names) > 16 else "")


def _where(path: str, arguments: Sequence[str], recipes: Sequence[Recipe]) -> str:
    """File and line of a setting in the last recipe that has it; empty if the command line sets it."""
    head = f"--{path.removeprefix('fit.')}"
    if any(argument.partition("=")[0].rstrip("+") in (head, *_parents(head)) for argument in arguments):
        return ""
    for recipe in reversed(recipes):
        for key in (path, *_parents(path)):
            if key in recipe.lines:
                return f" ({Path(recipe.file)}, line {recipe.lines[key]})"
    return ""


def _parents(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[:n]) for n in range(len(parts) - 1, 0, -1)]
