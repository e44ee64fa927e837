"""Where autocast does not reach."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import torch

Method = TypeVar("Method", bound=Callable[..., Any])


def without_autocast(method: Method) -> Method:
    """A method of a module that computes in the precision of the module's parameters, inside autocast too.

    An advantage is a small difference of large values, and a probability ratio one of log-probabilities: in bfloat16,
    with its three digits, little is left of either.
    """

    @wraps(method)
    def full(self: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        with torch.autocast(next(self.parameters()).device.type, enabled=False):
            return method(self, *args, **kwargs)

    return cast("Method", full)
