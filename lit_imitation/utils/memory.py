"""Memory of this machine that is free for data."""

from __future__ import annotations

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
"""Limits of a container (control groups, version 2)."""


def available_memory() -> int:
    """Bytes that can be allocated without swapping: what the system calls available, or less inside a container."""
    return min(_system(), _container())


def _system() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:  # not Linux
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 2**33


def _container() -> int:
    """What is left of the limit of the container; the page cache counts as free."""
    try:
        limit = int((CGROUP / "memory.max").read_text())
        used = int((CGROUP / "memory.current").read_text())
        statistics = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        return max(limit - used + int(statistics.get("inactive_file", 0)), 0)
    except (OSError, ValueError):  # none, or "max"
        return 2**63


def gigabytes(count: float) -> str:
    """Bytes in messages: `10.2 GB`."""
    return f"{count / 1e9:.3g} GB"
