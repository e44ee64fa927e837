"""Protection of sensitive computations from autocast."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import torch

Method = TypeVar("Method", bound=Callable[..., Any])


def without_autocast(method: Method) -> Method:
    """Make a module's method compute in the precision of its parameters, even inside autocast.

    Advantages and probability ratios are small differences of large values. In bfloat16, with three significant
    digits, little of them would be left.
    """

    @wraps(method)
    def full(self: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        device = next(self.parameters()).device.type
        if not torch.is_autocast_enabled(device):  # so that an exported graph has no autocast in it
            return method(self, *args, **kwargs)
        with torch.autocast(device, enabled=False):
            return method(self, *args, **kwargs)

    return cast("Method", full)
