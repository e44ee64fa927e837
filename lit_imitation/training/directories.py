"""Directories of runs: `runs/<method>/<environment>/<time>`."""

from __future__ import annotations

import itertools
import os
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from lit_imitation.errors import ConfigError
from lit_imitation.utils.files import FileLock, remove_leftovers


def runs_folder(settings: Any) -> Path:
    """Folder of the runs of this method on an environment or, without one, on a file: `runs/<method>/<task>`."""
    data = settings.data.init_args if settings.get("data") else {}
    task = str(data.get("env_id", "")) or _name_of(data.get("demonstrations", ""))
    return Path("runs") / method_name(settings) / task.replace("/", "_").replace(":", "_")


def _name_of(demonstrations: Any) -> str:
    """Name for the demonstrations of a run without an environment: of a file, that without folder and suffix."""
    first = str(demonstrations[0] if isinstance(demonstrations, list) and demonstrations else demonstrations or "")
    return first if first.startswith(("minari:", "hf:")) else Path(first).stem


def method_name(settings: Any) -> str:
    """Name of the method of a parsed configuration: `dagger`, the learner of `RL`, or the model."""

    def name(one: Any) -> str:
        return str(getattr(one, "class_path", "")).rpartition(".")[2].lower()

    if any(name(one) == "daggercallback" for one in as_list(settings.trainer.callbacks)):
        return "dagger"
    model = name(settings.model)
    return (name(settings.model.init_args.get("learner")) or "ppo") if model == "rl" else model


def new_directory(parent: Path, writes: bool, resources: ExitStack, prefix: str = "") -> Path:
    """Directory named after the time, created at once so that a run of the same second gets another one."""
    name = f"{prefix}{time.strftime('%Y-%m-%d_%H-%M-%S')}"
    directory = parent / name
    if not writes:
        return directory
    parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(2):
        try:
            directory.mkdir()
            break
        except FileExistsError:
            directory = parent / f"{name}_{number}"
    resources.callback(remove_if_empty, directory)
    return directory


def lock_directory(directory: Path, resources: ExitStack) -> None:
    """Lock the directory until this run ends, and remove half-written files of killed runs."""
    if not directory.is_dir():
        directory.mkdir(parents=True, exist_ok=True)
        resources.callback(remove_if_empty, directory)
    advice = "wait for that run or stop it, or choose another --trainer.default_root_dir"
    resources.callback(FileLock(directory / ".lock", str(directory), advice).release)
    for folder in (directory, *(directory / name for name in ("checkpoints", "dataset", "to_label"))):
        remove_leftovers(folder)


def newest_run(parent: Path) -> Path:
    """Directory of the run in `parent` that changed last.

    Raises:
        ConfigError: There is no run with checkpoints.
    """
    runs = [run for run in parent.glob("*") if (run / "checkpoints").is_dir()]
    if not runs:
        raise ConfigError(f"no run to continue in {parent}; add --trainer.default_root_dir DIR")
    return max(runs, key=lambda run: run.stat().st_mtime)


def run_of(checkpoint: Path) -> Path | None:
    """Directory of the run that a checkpoint belongs to, if it is writable."""
    run = checkpoint.resolve().parent.parent
    belongs = checkpoint.parent.name == "checkpoints" and (run / "config.yaml").is_file()
    return run if belongs and os.access(run, os.W_OK) else None


def remove_if_empty(directory: Path) -> None:
    """Remove the directory of a run that failed before it wrote anything."""
    with suppress(OSError):
        directory.rmdir()


def as_list(value: Any) -> list[Any]:
    """The entries of a setting that may be one object, a list, a switch or missing."""
    if value is None or isinstance(value, bool):
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
