"""Conversion of errors raised by an environment into the library's errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv

from lit_imitation.errors import LitImitationError, TrainingError


@contextmanager
def report_failures(envs: VectorEnv[Any, Any, Any], when: str) -> Iterator[None]:
    """Convert any error that an environment raises inside the block into a `TrainingError` that names the environment.

    This includes `SystemExit` and `StopIteration`: an environment must not end a run as if it had succeeded.
    """
    try:
        yield
    except BaseException as error:
        raise_failure(envs, error, when)


def raise_failure(envs: VectorEnv[Any, Any, Any], error: BaseException, when: str) -> NoReturn:
    """Raise a `TrainingError` that names the environment in which `error` was raised."""
    if isinstance(error, LitImitationError | KeyboardInterrupt | GeneratorExit):
        raise error
    raise TrainingError(f"{_find_failed(envs, error)} failed {when}: {describe_error(error)}") from error


def describe_error(error: BaseException) -> str:
    """Type and text of an error in one line."""
    if type(error) is EnvironmentFailure:  # its text already names the type
        return str(error)
    return f"{type(error).__name__}: {error}".removesuffix(": ")


class EnvironmentFailure(Exception):
    """Error raised by an environment in a worker process, as text: third-party exceptions may fail to unpickle."""


def _find_failed(envs: VectorEnv[Any, Any, Any], error: BaseException) -> str:
    """Name the copy that raised an error in `envs.step`, if it can be identified."""
    if isinstance(envs, AsyncVectorEnv):
        pipes: list[Any] = list(envs.parent_pipes)
        for env, (pipe, process) in enumerate(zip(pipes, envs.processes, strict=True)):
            if pipe is None:  # Gymnasium removes the pipe of a copy that raised
                return f"environment {env}"
            process.join(0.1)
            if not process.is_alive():
                return f"environment {env}, whose process ended with exit code {process.exitcode},"
    trace, found = error.__traceback__, None
    while trace is not None:
        local = trace.tb_frame.f_locals
        if isinstance(envs, SyncVectorEnv) and local.get("self") is envs and "i" in local:  # loop over the copies
            found = f"environment {local['i']}"
        items = local.get("items")
        if found and isinstance(items, list | tuple) and len(items) == envs.num_envs:  # after the loop
            space = envs.single_observation_space
            for env, item in enumerate(map(np.asarray, items)):
                if item.shape != space.shape or not np.can_cast(item.dtype, np.dtype(space.dtype), "same_kind"):
                    found = f"environment {env}, with an observation of shape {item.shape} and type {item.dtype}"
                    return f"{found} instead of {space.shape} and {space.dtype},"
            return unknown_copy(envs)
        trace = trace.tb_next
    return found or unknown_copy(envs)


def unknown_copy(envs: VectorEnv[Any, Any, Any]) -> str:
    """Name of a vector environment in messages that cannot tell which copy failed."""
    return f"an environment of {envs}"


def environment_name(envs: VectorEnv[Any, Any, Any]) -> str:
    """Id of the environment, if known."""
    spec = getattr(envs, "spec", None)
    return spec.id if spec is not None else str(envs)
