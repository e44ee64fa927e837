"""Where results that cost time are kept between runs."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """`$LIT_IMITATION_CACHE`, or `lit_imitation` under `$XDG_CACHE_HOME` or `~/.cache`."""
    if path := os.environ.get("LIT_IMITATION_CACHE"):
        return Path(path)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lit_imitation"
