"""Experts that the user wrote: functions `package.module:function`, and classes with arguments."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import Mapping
from typing import Any

from lit_imitation.errors import ExpertError
from lit_imitation.experts.base import Expert

FUNCTION = r"[^\W\d][\w.]*:[^\W\d]\w*"
"""Pattern of `package.module:function`."""


def imported_function(spec: str) -> Expert:
    """Import the function `package.module:function`.

    Raises:
        ExpertError: The module or the function does not exist, or importing it failed.
    """
    module, _, name = spec.partition(":")
    expert: Expert = _imported(module, name, f"expert {spec}")
    return expert


def imported_class(spec: Mapping[str, Any]) -> type:
    """Import the class that `{"class_path": …, "init_args": …}` names.

    Raises:
        ExpertError: The mapping has other keys or values, or the class cannot be imported.
    """
    if unknown := [key for key in spec if key not in ("class_path", "init_args")]:
        raise ExpertError(f"data.expert has the key {unknown[0]!r}; a class is given by class_path and init_args only")
    path, arguments = spec.get("class_path"), spec.get("init_args")
    if not isinstance(path, str) or not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", path):
        raise ExpertError(f"data.expert.class_path is {path!r}; write package.module.ClassName")
    if arguments is not None and not (
        isinstance(arguments, Mapping) and all(isinstance(one, str) for one in arguments)
    ):
        raise ExpertError(
            f"data.expert.init_args is a {type(arguments).__name__}; write the names and values of the constructor's "
            "arguments"
        )
    module, _, name = path.rpartition(".")
    found = _imported(module, name, f"data.expert.class_path {path}")
    if not inspect.isclass(found):
        hint = f"; a function is given as expert: {module}:{name}" if callable(found) else ""
        raise ExpertError(f"data.expert.class_path {path} is a {type(found).__name__}, not a class{hint}")
    return found


def built(spec: Mapping[str, Any]) -> Expert:
    """Import a class and make the expert from its `init_args`.

    Raises:
        ExpertError: The class cannot be imported or made, or its objects cannot act.
    """
    cls, arguments = imported_class(spec), dict(spec.get("init_args") or {})
    try:
        expert: Expert = cls(**arguments)
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise ExpertError(
            f"data.expert: {spec['class_path']} cannot be made with init_args {arguments}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not (callable(getattr(expert, "act", None)) or callable(expert)):
        raise ExpertError(
            f"data.expert: {spec['class_path']} has neither a method act(observation) nor __call__; one of them must "
            "turn observations [B, *obs] into actions [B, *act]"
        )
    return expert


def _imported(module: str, name: str, what: str) -> Any:
    """Import `name` of a module, which may lie in the working directory."""
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        return getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise ExpertError(f"{what} cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(here)
