"""Where results that cost time are kept between runs."""

from __future__ import annotations

import os
from pathlib import Path

from lit_imitation.files import expanded


def cache_dir() -> Path:
    """`$LIT_IMITATION_CACHE`, or `lit_imitation` under `$XDG_CACHE_HOME` or `~/.cache`."""
    if path := os.environ.get("LIT_IMITATION_CACHE"):
        return expanded(path)
    return expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "lit_imitation"
