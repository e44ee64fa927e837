"""Environments in worker processes that end with their parent process."""

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
"""Seconds that workers have to close their environments before they are killed."""


class WorkerVectorEnv(AsyncVectorEnv):
    """Gymnasium's `AsyncVectorEnv` whose workers inherit no signal handlers and never outlive their parent.

    Args:
        factory: Function that makes one environment.
        num_envs: Number of worker processes.

    Raises:
        ConfigError: A worker cannot make its environment.
    """

    def __init__(self, factory: Callable[[], Env[Any, Any]], num_envs: int) -> None:
        # Gymnasium warns three times about an error, each time with the whole traceback, and then raises it.
        warnings.filterwarnings("ignore", r".*ERROR: (Received the|Raising the|Traceback)", UserWarning)
        complaints: Any = multiprocessing.SimpleQueue()
        self.processes: list[Any] = []
        self.parent_pipes: list[Any] = []
        try:
            factories = [partial(_make_in_worker, factory, os.getpid(), complaints)] * num_envs
            super().__init__(factories, autoreset_mode=AutoresetMode.SAME_STEP)
        except (EOFError, ConnectionError) as error:
            self.close()
            cause = "a process ended" if complaints.empty() else complaints.get()
            raise ConfigError(f"backend async: {cause}") from error
        except BaseException:
            self.close()
            raise

    def close_extras(self, timeout: float | None = None, terminate: bool = False) -> None:
        """Ask the workers to close, and kill those still alive after the timeout.

        Args:
            timeout: Seconds to wait, by default `GRACE`.
            terminate: Kill immediately.
        """
        for pipe in self.parent_pipes:
            if pipe is not None and not terminate:
                with suppress(OSError, ValueError):
                    pipe.send(("close", None))
        deadline = time.monotonic() + (0.0 if terminate else GRACE if timeout is None else timeout)
        while any(process.is_alive() for process in self.processes) and time.monotonic() < deadline:
            for pipe in self.parent_pipes:  # a worker may be blocked on sending an answer that was never read
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


def _make_in_worker(factory: Callable[[], Env[Any, Any]], parent: int, complaints: Any) -> Env[Any, Any]:
    """Make the environment; in a worker, first prepare the process.

    Args:
        factory: Function that makes the environment.
        parent: PID of the parent process.
        complaints: Queue for the text of an error.
    """
    if os.getpid() == parent:  # Gymnasium makes one here to read the spaces
        return factory()
    # A forked worker inherits the trainer's handlers and would only record SIGTERM. Ctrl-C reaches every process of the
    # terminal, and the trainer ends the workers.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    exit_with_parent(parent)
    try:
        return _ReportErrors(factory())
    except BaseException as error:
        complaints.put(str(error))
        os._exit(1)


class _ReportErrors(Wrapper[Any, Any, Any, Any]):
    """Wrapper that converts every error of the environment to an `EnvironmentFailure`, which can always be sent."""

    def step(self, action: Any) -> Any:
        """Take one step."""
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
