"""Cooperative stop requests: long work checks between steps whether it has to stop."""

from __future__ import annotations

from collections.abc import Callable

raise_if_stopped: Callable[[bool], None] | None = None
"""Callback that raises if the work has to stop; True means that all processes of the run agreed. The runner sets it."""

is_requested: Callable[[], bool] | None = None
"""Callback that returns whether this process received a stop request. The runner sets it."""


def check(agreed: bool = False) -> None:
    """Stop here if requested; `agreed` means that all processes of the run have agreed to stop."""
    if raise_if_stopped is not None:
        raise_if_stopped(agreed)


def stop_requested() -> bool:
    """Whether this process received a stop request; the other processes may not know yet."""
    return is_requested is not None and is_requested()
