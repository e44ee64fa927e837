"""One-hot codes that can be traced."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def one_hot(index: Tensor, counts: Sequence[int]) -> Tensor:
    """Concatenated one-hot codes `[B, Σ n]` of K components, in float32.

    `torch.nn.functional.one_hot` reads the values of its argument, so a loss with it cannot be traced.

    Args:
        index: `[B, K]` values of the components, from 0 on.
        counts: Number n of values of each component.

    Raises:
        RuntimeError: A value is out of range.
    """
    codes = [
        torch.zeros(index.shape[0], count, device=index.device).scatter_(1, index[:, i : i + 1], 1.0)
        for i, count in enumerate(counts)
    ]
    return codes[0] if len(codes) == 1 else torch.cat(codes, -1)
