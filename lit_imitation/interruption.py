"""A request to stop that long work looks for between its steps."""

from __future__ import annotations

from collections.abc import Callable

request: Callable[[], None] | None = None
"""Raises where the work has to stop; set by what runs it."""


def check() -> None:
    """Stop here if that was asked for."""
    if request is not None:
        request()
