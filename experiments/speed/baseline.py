"""The `imitation` library in an environment of its own, and a worker of it that is kept running between the turns."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from lit_imitation.utils.cache import cache_dir

# Box2D: the wheel of another name, for Gymnasium's own choice (box2d-py) would have to be compiled.
PACKAGES = ["torch==2.13.0", "imitation==1.0.1", "gymnasium[mujoco]", "Box2D==2.3.10", "setuptools<80"]


class Worker:
    """A script beside this one, run by another interpreter: one JSON a line goes in, one comes out.

    Args:
        python: the interpreter.
        script: its file name; it sends `{"versions": …}` in answer to the first line.
        request: the first line.
    """

    def __init__(self, python: str, script: str, request: dict[str, Any]) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 closed with the process
        self._process = subprocess.Popen(
            [python, "-W", "ignore", str(Path(__file__).with_name(script))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        )
        self.versions: dict[str, str] = self.ask(request)["versions"]

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer.

        Raises:
            RuntimeError: there is none.
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
        """End it."""
        self._process.communicate()


def baseline_python() -> str:
    """The interpreter of an environment with `imitation`, made if there is none yet.

    Raises:
        RuntimeError: it cannot be made here.
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
    for command in (
        [host, "-m", "venv", str(partial)],
        [str(partial / "bin" / "python"), "-m", "pip", "install", "--quiet", *PACKAGES],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip().splitlines()[-1]}")
    partial.rename(directory)  # whole, or not there
    return str(python)
