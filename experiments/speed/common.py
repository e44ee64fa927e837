"""What every benchmark needs: where it ran, and where its results go."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from lit_imitation.utils.files import atomic_write
from lit_imitation.utils.versions import versions

RESULTS = Path(__file__).parents[1] / "results"


def machine() -> dict[str, Any]:
    """Versions, CPU and date of a measurement."""
    return {"versions": versions(), "cpu": _cpu(), "date": datetime.now(UTC).isoformat(timespec="seconds")}


def ratios(numerator: list[float], denominator: list[float]) -> dict[str, Any]:
    """The ratio within each repeat, where both ran one after the other, and the median of these."""
    pairs = [a / b for a, b in zip(numerator, denominator, strict=True)]
    return {"median": median(pairs), "pairs": pairs}


def turns(contenders: dict[str, Any], repeats: int) -> Iterator[tuple[str, Any]]:
    """Every contender once a repeat, each repeat beginning with another one."""
    names = list(contenders)
    for i in range(repeats):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            yield name, contenders[name]


def save(name: str, result: dict[str, Any]) -> Path:
    """Write `results/<name>.json`, the previous one whole until this one is."""
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    atomic_write(path, json.dumps(result, indent=1) + "\n")
    return path


def table(rows: list[list[str]]) -> str:
    """Markdown, the first row the header, columns after the first aligned to the right."""
    rows = [rows[0], ["---", *["---:"] * (len(rows[0]) - 1)], *rows[1:]]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} × {names[0]}" if names else platform.machine()
