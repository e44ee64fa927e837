"""Errors of an environment's own code, as the library reports them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv

from lit_imitation.errors import LitImitationError, TrainingError


@contextmanager
def blaming(envs: VectorEnv[Any, Any, Any], when: str) -> Iterator[None]:
    """Turn whatever an environment raises inside the block into a `TrainingError` that names the environment.

    A `SystemExit` or `StopIteration` of an environment is an error like any other: it must not end a run with success.
    """
    try:
        yield
    except BaseException as error:
        blame(envs, error, when)


def blame(envs: VectorEnv[Any, Any, Any], error: BaseException, when: str) -> NoReturn:
    """Raise the `TrainingError` that names the environment in which `error` was raised."""
    if isinstance(error, LitImitationError | KeyboardInterrupt | GeneratorExit):
        raise error
    raise TrainingError(f"{_broken(envs, error)} failed {when}: {describe_error(error)}") from error


def describe_error(error: BaseException) -> str:
    """An error in one line: its type and its text."""
    if type(error) is EnvironmentFailure:  # which says the type itself
        return str(error)
    return f"{type(error).__name__}: {error}".removesuffix(": ")


class EnvironmentFailure(Exception):
    """What an environment raised in a process of its own, as text: exceptions of others may not survive the way."""


def _broken(envs: VectorEnv[Any, Any, Any], error: BaseException) -> str:
    """Which environment an error of `envs.step` came from, as far as that can be told."""
    if isinstance(envs, AsyncVectorEnv):
        pipes: list[Any] = list(envs.parent_pipes)
        for env, (pipe, process) in enumerate(zip(pipes, envs.processes, strict=True)):
            if pipe is None:  # Gymnasium takes away that of one whose environment raised
                return f"environment {env}"
            process.join(0.1)
            if not process.is_alive():
                return f"environment {env}, whose process ended with exit code {process.exitcode},"
    trace, found = error.__traceback__, None
    while trace is not None:
        local = trace.tb_frame.f_locals
        if isinstance(envs, SyncVectorEnv) and local.get("self") is envs and "i" in local:  # its loop over them
            found = f"environment {local['i']}"
        items = local.get("items")
        if found and isinstance(items, list | tuple) and len(items) == envs.num_envs:  # the loop is over by then
            space = envs.single_observation_space
            for env, item in enumerate(map(np.asarray, items)):
                if item.shape != space.shape or not np.can_cast(item.dtype, np.dtype(space.dtype), "same_kind"):
                    found = f"environment {env}, with an observation of shape {item.shape} and type {item.dtype},"
                    return f"{found} where {space.shape} and {space.dtype} are right,"
            return one_of(envs)
        trace = trace.tb_next
    return found or one_of(envs)


def one_of(envs: VectorEnv[Any, Any, Any]) -> str:
    """Name of a vector environment in a message that cannot tell which copy failed."""
    return f"an environment of {envs}"


def environment_name(envs: VectorEnv[Any, Any, Any]) -> str:
    """The environment's id, where it is known."""
    spec = getattr(envs, "spec", None)
    return spec.id if spec is not None else str(envs)
