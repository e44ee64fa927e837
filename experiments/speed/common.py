"""Helpers that the comparisons share: taking turns, timing `fit`, and writing results."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from lit_imitation.training.command import run
from lit_imitation.training.lightning_cli import CLI
from lit_imitation.utils.files import atomic_write
from lit_imitation.utils.versions import versions

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results"


def machine() -> dict[str, Any]:
    """Versions, CPU and date of a measurement."""
    return {"versions": versions(), "cpu": _cpu(), "date": datetime.now(UTC).isoformat(timespec="seconds")}


def ratios(numerator: list[float], denominator: list[float]) -> dict[str, Any]:
    """The ratio within each repeat, in which both ran one after the other, and the median of these."""
    pairs = [a / b for a, b in zip(numerator, denominator, strict=True)]
    return {"median": median(pairs), "pairs": pairs}


def turns(contenders: Mapping[str, Any], repeats: int) -> Iterator[tuple[str, Any]]:
    """Every contender once per repeat; each repeat starts with another one."""
    names = list(contenders)
    for i in range(repeats):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            yield name, contenders[name]


def measured(contenders: Mapping[str, Callable[[], Any]], repeats: int, title: str = "") -> dict[str, list[Any]]:
    """The results of each contender, one per repeat."""
    runs: dict[str, list[Any]] = {name: [] for name in contenders}
    for name, contender in turns(contenders, repeats):
        runs[name].append(contender())
        print(*filter(None, (title, name)), runs[name][-1], flush=True)
    return runs


def run_fit(config: dict[str, Any], cli: type[CLI]) -> None:
    """The command `fit` with this `CLI`, without output and in a temporary folder."""
    with (
        tempfile.TemporaryDirectory() as directory,
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),  # the progress bar is still drawn
        contextlib.redirect_stderr(nowhere),
    ):
        config["trainer"]["default_root_dir"] = directory
        run("fit", ["--config", yaml.safe_dump(config)], cli)


def save(name: str, result: dict[str, Any]) -> Path:
    """Write `results/<name>.json` atomically."""
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    atomic_write(path, json.dumps(result, indent=1) + "\n")
    return path


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} × {names[0]}" if names else platform.machine()
