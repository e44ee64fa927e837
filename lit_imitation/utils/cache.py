"""Cache of expensive results between runs: location, keys and invalidation."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.machinery
import importlib.metadata
import importlib.util
import io
import json
import os
import pickle
import pickletools
import platform
import sys
import sysconfig
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import platformdirs
import torch
from lightning_utilities.core.rank_zero import rank_zero_only

from lit_imitation.errors import LitImitationError
from lit_imitation.utils.files import atomic_write, check_local, expand_user
from lit_imitation.utils.versions import installed_version

T = TypeVar("T")

REFRESH_HINT = "renew it with --data.refresh true"

VERSIONS = ("lit-imitation", "torch", "numpy", "gymnasium", "envpool", "mujoco", "box2d", "box2d-py", "ale-py")
"""Packages whose version affects rollouts, in addition to those of the environment and the expert."""


def cache_dir() -> Path:
    """Cache directory: `$LIT_IMITATION_CACHE`, or `lit_imitation` in the platform's cache folder (`~/.cache` on Linux).

    Raises:
        ConfigError: The variable holds a URL.
    """
    if path := os.environ.get("LIT_IMITATION_CACHE"):
        check_local(path, "LIT_IMITATION_CACHE")
        return expand_user(path)
    return platformdirs.user_cache_path("lit_imitation", appauthor=False)


def print_once(text: str) -> None:
    """Print a line to standard error on rank 0 only."""
    if not getattr(rank_zero_only, "rank", 0):  # Lightning sets the rank when it is imported
        print(text, file=sys.stderr, flush=True)


class Store(NamedTuple):
    """Location and format of one kind of cached result."""

    kind: str
    """Folder under `cache_dir()`."""
    write: Callable[[Path, Any], dict[str, Any]]
    """Writes large parts to files next to the given entry and returns the content of the entry."""
    read: Callable[[Path, dict[str, Any]], Any]
    """Inverse of `write`."""


def load_or_make(store: Store, name: str, key: Key, make: Callable[[], T], *, what: str, refresh: bool = False) -> T:
    """Load the result for `key` from the cache, or make and cache it. A printed line says which.

    An entry lists the files that were read while its result was made, and is valid only while they are unchanged. An
    unreadable entry is made again. If the cache is not writable, the result is not cached.

    Args:
        store: Location and format of the results.
        name: Start of the file name, for human readers.
        key: Everything that the result depends on.
        make: Function that makes the result; it raises if the result must not be cached.
        what: Description of the result for the printed lines.
        refresh: Make the result again even if it is cached.

    Returns:
        The result.
    """
    if key.unreadable:
        print_once(f"{what}: not cached, {key.unreadable}")
        return make()
    entry = cache_dir() / store.kind / f"{name}-{key.digest()}.json"
    if entry.is_file() and not refresh:
        try:
            held = json.loads(entry.read_text())
            changed = next((path for path, content in held["files"].items() if _content(path) != content), None)
            if changed is None:
                result: T = store.read(entry, held)
                print_once(f"{what}: from the cache, {entry} ({REFRESH_HINT})")
                return result
            print_once(f"{what}: made again because {changed} has changed since {entry} was written")
        except (OSError, ValueError, TypeError, KeyError, AttributeError, LitImitationError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            print_once(f"{what}: made again because {entry} cannot be used ({reason})")
    with record_opened_files(key.opened):
        result = make()
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        files = {path: content for path in key.files_read() if (content := _content(path)) is not None}
        held = {**store.write(entry, result), "files": files, "key": key.parts}
        atomic_write(entry, json.dumps(held, indent=1, sort_keys=True) + "\n")
    except OSError as error:
        print_once(f"{what}: not cached, {entry} cannot be written ({error})")
    return result


class Key:
    """Everything that a result depends on: settings, versions, and the content of source and data files.

    Args:
        **settings: Numbers, strings, and other values that can be pickled; these count by content and by the source of
            their class.
    """

    def __init__(self, **settings: Any) -> None:
        self.unreadable = ""
        """Reason why the result must not be cached; empty if it may be."""
        self.opened: list[str] = []
        """Files that were read while the key was built."""
        self.parts: dict[str, Any] = {"versions": {"python": platform.python_version()}, "files": {}}
        self.parts["versions"] |= {name: installed_version(name) for name in VERSIONS}
        self._seen: set[str] = set()
        for name, value in settings.items():
            self.add(name, value)

    def digest(self) -> str:
        """Short hash of the key, for file names."""
        return hashlib.sha256(json.dumps(self.parts, sort_keys=True).encode()).hexdigest()[:16]

    def files_read(self) -> list[str]:
        """Files in `opened` whose content the key does not cover already."""
        here = Path(__file__).parent
        found = []
        for name in dict.fromkeys(self.opened):
            path = Path(name)
            if path.suffix == ".pyc":
                try:
                    name = importlib.util.source_from_cache(name)
                except ValueError:
                    continue
                path = Path(name)
            absolute = path.absolute()
            own_source = absolute.is_relative_to(here) and path.suffix == ".py"
            system = any(absolute.is_relative_to(root) for root in ("/proc", "/sys", "/dev"))
            cached = absolute.is_relative_to(cache_dir().absolute())
            if not (own_source or system or cached or _is_installed(absolute)) and path.is_file():
                found.append(name)
        return found

    def add(self, name: str, value: Any) -> None:
        """Add a setting."""
        if value is None or isinstance(value, bool | int | float | str):
            self.parts[name] = value
            return
        buffer = io.BytesIO()
        try:
            _Pickler(buffer, protocol=4).dump(value)
        except Exception as error:  # pickling third-party objects may raise anything
            self.refuse(f"{name} cannot be compared between runs ({type(error).__name__}: {error})")
            return
        content = buffer.getvalue()
        self.parts[name] = [type(value).__name__, hashlib.sha256(content).hexdigest()]
        for _, argument, _ in pickletools.genops(content):
            if isinstance(argument, str) and argument in sys.modules:
                self.add_module(argument)

    def add_file(self, path: str | Path) -> None:
        """Add a file by its content."""
        self.parts["files"][Path(path).name] = _content(path)

    def add_code(self, thing: Any) -> None:
        """Add the source of a class and its bases, of a function, or of an object's class."""
        if isinstance(thing, functools.partial):
            self.add("partial", (thing.args, thing.keywords))
            self.add_code(thing.func)
        elif isinstance(thing, type):
            for cls in thing.__mro__:
                self.add_module(cls.__module__)
        elif isinstance(thing, types.FunctionType):
            function: Any = thing
            while hasattr(function, "__wrapped__"):
                function = function.__wrapped__
            code = getattr(function, "__code__", None)
            if code is None or not Path(code.co_filename).is_file():
                self.refuse(f"the source of {thing.__qualname__} cannot be read")
            else:
                self.add_module(function.__module__)
        elif isinstance(thing, types.BuiltinFunctionType | types.MethodType) or type(thing).__module__ == "builtins":
            self.refuse(f"the source of {getattr(thing, '__qualname__', thing)} cannot be read")
        elif not _python_file(sys.modules.get(type(thing).__module__)):
            self.refuse(f"the source of {type(thing).__qualname__} cannot be read")
        else:
            self.add_code(type(thing))

    def add_module(self, name: str, near: Path | None = None) -> None:
        """Add the sources of a module's top-level package and of everything it imports that is not installed.

        This package counts by release and by the module's folder. The standard library counts by Python's version, and
        imported packages that are installed by theirs. Data files that a source names count by content.

        Args:
            name: Dotted name of the module.
            near: Folder to search first if the module has not been imported.
        """
        top = name.partition(".")[0]
        if top == "lit_imitation":
            if file := _python_file(sys.modules.get(name)):
                self._add_installed(f"{top}/{file.parent.name}", sorted(file.parent.glob("*.py")))
            return
        if top in self._seen or (top in sys.stdlib_module_names and top != "__main__"):
            return
        module = sys.modules.get(top)
        if module is not None:
            file, paths = _python_file(module), [Path(path) for path in getattr(module, "__path__", ())]
        else:
            spec = importlib.machinery.PathFinder.find_spec(top, [str(near or os.getcwd()), *sys.path])
            if spec is None:  # an optional import
                return
            paths = [Path(path) for path in spec.submodule_search_locations or ()]
            file = Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
        if near is not None and _is_installed((paths or [file or Path(sys.prefix)])[0]):
            self.parts["versions"][top] = _release(top)
            return
        self._seen.add(top)
        if top == "__main__":
            self.parts["argv"] = sys.argv[1:]
        sources = {source.relative_to(path): source for path in paths for source in _sources(path)}
        if file is not None and not paths:
            sources = {Path(file.name): file}
        if not sources:
            self.refuse(f"the source of {name} cannot be read")
        if sources and all(_is_installed(source) for source in sources.values()):
            self._add_installed(top, [sources[relative] for relative in sorted(sources)])
            return
        for relative, source in sorted(sources.items()):
            self._add_source(source, f"{top}/{relative.as_posix()}")

    def _add_installed(self, name: str, sources: list[Path]) -> None:
        """Add one digest for all sources of an installed package, which do not change during development."""
        contents = [(source.name, _installed_content(source)) for source in sources]
        self.parts["files"][name] = hashlib.sha256(repr(contents).encode()).hexdigest()[:32]

    def _add_source(self, source: Path, name: str) -> None:
        """Add a source file under development, with its imports and the data files it names."""
        content = _content(source)
        if content is None:
            self.refuse(f"{source} cannot be read")
            return
        self.parts["files"][name] = content
        for module in list(sys.modules.values()):
            if getattr(module, "__file__", None) == str(source):
                known, before = _loaded_sources.setdefault(str(source), (module.__spec__ or module, content))
                if known is not (module.__spec__ or module):  # reloaded
                    _loaded_sources[str(source)] = (module.__spec__ or module, content)
                elif before != content:
                    self.refuse(f"{source} was edited after it was imported; restart Python")
        imports, strings = _imports_and_strings(content, source)
        for module_name in imports:
            self.add_module(module_name, near=source.parent)
        for text in strings:
            for path in (Path(text), source.parent / text):
                try:
                    data = _content(path) if path.is_file() and path.suffix not in (".py", ".pyc") else None
                except (OSError, ValueError):  # not a path
                    continue
                if data is not None:
                    self.parts["files"][f"{name}: {'' if path == Path(text) else './'}{text}"] = data

    def refuse(self, reason: str) -> None:
        """Record why the result must not be cached; the first reason is kept."""
        self.unreadable = self.unreadable or reason


class _Pickler(pickle.Pickler):
    """Pickler that stores tensors by content; torch would store memory addresses."""

    def reducer_override(self, thing: Any) -> Any:
        if isinstance(thing, torch.Tensor):
            flat = thing.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            return tuple, ((str(thing.dtype), tuple(thing.shape), flat.numpy().tobytes()),)
        return NotImplemented


_loaded_sources: dict[str, tuple[Any, str]] = {}
"""Loaded module and content hash of each source file, as first seen."""

_recorders: list[list[str]] = []
_hooked: list[bool] = []


@contextmanager
def record_opened_files(found: list[str]) -> Iterator[None]:
    """Append to `found` the files that Python's `open` opens for reading inside the block."""
    if not _hooked:
        sys.addaudithook(_record_open)
        _hooked.append(True)
    _recorders.append(found)
    try:
        yield
    finally:
        _recorders.remove(found)


def _record_open(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "open" or not _recorders:
        return
    path, mode, flags = arguments
    writes = set(mode) & set("wax+") if isinstance(mode, str) else flags & (os.O_WRONLY | os.O_RDWR)
    if isinstance(path, str) and not writes:
        for found in _recorders:
            found.append(path)


def _content(path: str | Path) -> str | None:
    """Hash of a file's content; None if it cannot be read."""
    watched = _recorders[:]
    _recorders.clear()  # hashing a file does not make the result depend on it
    try:
        with open(path, "rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()[:32]
    except OSError:
        return None
    finally:
        _recorders.extend(watched)


def _installed_content(path: Path) -> str | None:
    """Hash of an installed file's content, remembered while its time and size are unchanged."""
    try:
        status = path.stat()
    except OSError:
        return None
    return _remembered_content(str(path), status.st_mtime_ns, status.st_size)


@functools.cache
def _remembered_content(path: str, modified: int, size: int) -> str | None:
    return _content(path)


def _python_file(module: types.ModuleType | None) -> Path | None:
    """Path of a module's source, if it has a readable one."""
    file = getattr(module, "__file__", None)
    return Path(file) if file and file.endswith(".py") and Path(file).is_file() else None


def _sources(folder: Path) -> Iterator[Path]:
    """Python files below `folder`, except in folders that are not packages."""
    for directory, folders, files in os.walk(folder):
        inside = [one for one in folders if one.isidentifier() and one != "__pycache__"]
        folders[:] = [one for one in inside if not (Path(directory) / one / "pyvenv.cfg").exists()]
        yield from (Path(directory) / file for file in files if file.endswith(".py"))


@functools.cache
def _installation() -> tuple[Path, ...]:
    return tuple({Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def _is_installed(path: Path) -> bool:
    """Whether a file belongs to the standard library or an installed package."""
    parts = path.parts
    if "site-packages" in parts or "dist-packages" in parts:
        return True
    return any(path.resolve().is_relative_to(root) for root in _installation())


@functools.cache
def _distributions() -> dict[str, list[str]]:
    return dict(importlib.metadata.packages_distributions())


def _release(top: str) -> str:
    """Versions of the installed distributions that provide the top-level import name `top`."""
    return ", ".join(sorted({f"{name} {installed_version(name)}" for name in _distributions().get(top, [])}))


@functools.lru_cache(maxsize=4096)
def _imports_and_strings(content: str, source: Path) -> tuple[list[str], list[str]]:
    """Top-level names that a source imports, and its strings that may name a file."""
    try:
        tree = ast.parse(source.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return [], []
    imports: dict[str, None] = {}
    strings: dict[str, None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports |= dict.fromkeys(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imports[node.module.partition(".")[0]] = None
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
            if 1 < len(text) < 256 and "\n" not in text and "\0" not in text:
                strings[text] = None
    return list(imports), list(strings)
