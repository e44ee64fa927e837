"""The `imitation` library in a virtual environment of its own, and worker processes that run in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from lit_imitation.utils.cache import cache_dir

# Box2D by the name that has a wheel: Gymnasium's own choice (box2d-py) would have to be compiled.
PACKAGES = ["torch==2.13.0", "imitation==1.0.1", "gymnasium[mujoco]", "Box2D==2.3.10", "setuptools<80"]


class Worker:
    """A script of this folder in a process with `imitation`: it reads one JSON per line and answers with one.

    Args:
        script: File name of the script; it answers the first line with `{"versions": …}`.
        request: The first line.

    Raises:
        RuntimeError: The virtual environment cannot be made here.
    """

    def __init__(self, script: str, request: dict[str, Any]) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 closed with the process
        self._process = subprocess.Popen(
            command(script),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment(),
        )
        self.versions: dict[str, str] = self.ask(request)["versions"]

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to one request.

        Raises:
            RuntimeError: The worker ended without an answer.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._errors.seek(0)
            raise RuntimeError(f"the worker ended with exit code {code}: {self._errors.read()[-2000:]}")
        return dict(json.loads(line))

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def start_or_skip(script: str, request: dict[str, Any]) -> Worker | None:
    """A worker, or None with a message where the library cannot be installed."""
    try:
        return Worker(script, request)
    except (RuntimeError, OSError) as error:
        print(f"the imitation library is skipped: {error}")
        return None


def command(script: str, *arguments: str) -> list[str]:
    """The command line of a script of this folder with the library's interpreter."""
    return [peer_python(), "-W", "ignore", str(Path(__file__).with_name(script)), *arguments]


def environment() -> dict[str, str]:
    """The environment variables of such a process: ours without `PYTHONPATH`."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


def peer_python() -> str:
    """The interpreter of the virtual environment, which is made on the first call.

    `LIT_IMITATION_BASELINE_PYTHON` names the interpreter of an existing one.

    Raises:
        RuntimeError: The virtual environment cannot be made here.
    """
    given = os.environ.get("LIT_IMITATION_BASELINE_PYTHON")
    if given:
        return given
    directory = cache_dir() / "speed" / "imitation-1.0.1-box2d"
    python = directory / "bin" / "python"
    if python.exists():
        return str(python)
    host = shutil.which("python3.11")
    if host is None:
        raise RuntimeError("it needs Python 3.11, and there is no python3.11 on the PATH")
    print(f"installing imitation 1.0.1 into {directory}, once")
    partial = directory.with_name(f"{directory.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for line in (
        [host, "-m", "venv", str(partial)],
        [str(partial / "bin" / "python"), "-m", "pip", "install", "--quiet", *PACKAGES],
    ):
        done = subprocess.run(line, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(line)}: {done.stderr.strip().splitlines()[-1]}")
    partial.rename(directory)  # complete, or absent
    return str(python)
