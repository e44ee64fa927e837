"""A request to stop that long work looks for between its steps."""

from __future__ import annotations

from collections.abc import Callable

request: Callable[[bool], None] | None = None
"""Raises where the work has to stop; set by what runs it. True where all processes of the run agreed to."""

told: Callable[[], bool] | None = None
"""Whether this process was told to stop, where all processes of a run have to agree before one does."""


def check(agreed: bool = False) -> None:
    """Stop here if that was asked for, of this process or, `agreed`, of another one of the run."""
    if request is not None:
        request(agreed)


def was_told() -> bool:
    """Whether this process was told to stop; the others may not know yet."""
    return told is not None and told()
