"""Environments in processes of their own that end with the process that started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from gymnasium import Env, Wrapper
from gymnasium.vector import AsyncVectorEnv, AutoresetMode

from lit_imitation.envs.failures import EnvironmentFailure
from lit_imitation.errors import ConfigError
from lit_imitation.utils.distributed import exit_with_parent

GRACE = 5.0
"""Seconds that the processes have to close their environments, before they are killed."""


class WorkerVectorEnv(AsyncVectorEnv):
    """Gymnasium's `AsyncVectorEnv`, whose processes take no signal handler along and never outlive this one.

    Args:
        factory: makes one environment.
        num_envs: number of processes.

    Raises:
        ConfigError: an environment cannot be made in its process.
    """

    def __init__(self, factory: Callable[[], Env[Any, Any]], num_envs: int) -> None:
        # Gymnasium warns of an environment's error with all of its traceback, three times; the error itself follows.
        warnings.filterwarnings("ignore", r".*ERROR: (Received the|Raising the|Traceback)", UserWarning)
        complaints: Any = multiprocessing.SimpleQueue()
        self.processes: list[Any] = []
        self.parent_pipes: list[Any] = []
        try:
            factories = [partial(_make, factory, os.getpid(), complaints)] * num_envs
            super().__init__(factories, autoreset_mode=AutoresetMode.SAME_STEP)
        except (EOFError, ConnectionError) as error:
            self.close()
            cause = "a process ended" if complaints.empty() else complaints.get()
            raise ConfigError(f"backend async: {cause}") from error
        except BaseException:
            self.close()
            raise

    def close_extras(self, timeout: float | None = None, terminate: bool = False) -> None:
        """End the processes: politely, and after a few seconds by force.

        Args:
            timeout: seconds to wait for them; by default `GRACE`.
            terminate: do not wait.
        """
        for pipe in self.parent_pipes:
            if pipe is not None and not terminate:
                with suppress(OSError, ValueError):
                    pipe.send(("close", None))
        deadline = time.monotonic() + (0.0 if terminate else GRACE if timeout is None else timeout)
        while any(process.is_alive() for process in self.processes) and time.monotonic() < deadline:
            for pipe in self.parent_pipes:  # an answer nobody waits for any more may be what holds a process up
                with suppress(OSError, EOFError, ValueError, AttributeError):
                    if pipe.poll(0.01):
                        pipe.recv()
        for process in self.processes:
            if process.is_alive():
                process.kill()
        for process in self.processes:
            process.join(GRACE)
        for pipe in self.parent_pipes:
            if pipe is not None:
                pipe.close()


def _make(factory: Callable[[], Env[Any, Any]], parent: int, complaints: Any) -> Env[Any, Any]:
    """The environment; in a process of its own, that process made ready first.

    Args:
        factory: makes it.
        parent: number of the process that steps it.
        complaints: takes the text of why it cannot be made.
    """
    if os.getpid() == parent:  # Gymnasium makes one here, to see its spaces
        return factory()
    # A forked process has the handlers of the one that trains: it would note SIGTERM and go on. A Ctrl-C reaches every
    # process of the terminal, and the one that trains ends the others.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    exit_with_parent(parent)
    try:
        return _Reported(factory())
    except BaseException as error:
        complaints.put(str(error))
        os._exit(1)


class _Reported(Wrapper[Any, Any, Any, Any]):
    """Raises whatever the environment raises as an `EnvironmentFailure`, which always reaches the other process."""

    def step(self, action: Any) -> Any:
        """One step."""
        try:
            return self.env.step(action)
        except BaseException as error:
            raise EnvironmentFailure(f"{type(error).__name__}: {error}".removesuffix(": ")) from error

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Start an episode."""
        try:
            return self.env.reset(seed=seed, options=options)
        except BaseException as error:
            raise EnvironmentFailure(f"{type(error).__name__}: {error}".removesuffix(": ")) from error
