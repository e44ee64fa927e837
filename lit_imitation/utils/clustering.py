"""Clustering of vectors."""

from __future__ import annotations

import torch
from torch import Tensor

MAX_ROWS = 20_000
"""Number of rows, drawn at random, above which the others do not enter `k_means`."""
MAX_ITERATIONS = 100
"""Limit on Lloyd's iterations."""


@torch.no_grad()
def k_means(x: Tensor, count: int, seed: int) -> Tensor:
    """Cluster centers by Lloyd's algorithm from a k-means++ start (Arthur & Vassilvitskii 2007).

    Args:
        x: Vectors `[N, d]`, at least one.
        count: Number of centers. If `x` has fewer distinct rows, some centers are equal.
        seed: Seed of the start and of the choice among many rows.

    Returns:
        Centers `[count, d]` float64, on the CPU.
    """
    generator = torch.Generator().manual_seed(seed)
    x = x.double().cpu()
    if len(x) > MAX_ROWS:
        x = x[torch.randperm(len(x), generator=generator)[:MAX_ROWS]]
    centers = _spread(x, count, generator)
    for _ in range(MAX_ITERATIONS):
        nearest = torch.cdist(x, centers).argmin(1)
        members = torch.zeros(count, dtype=x.dtype).index_add_(0, nearest, torch.ones_like(x[:, 0]))
        sums = torch.zeros_like(centers).index_add_(0, nearest, x)
        moved = torch.where(members[:, None] > 0, sums / members[:, None].clamp(min=1.0), centers)
        if torch.equal(moved, centers):
            break
        centers = moved
    return centers


def _spread(x: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Rows of `x` drawn one after the other, each with probability ∝ its squared distance from those before."""
    weight = torch.ones_like(x[:, 0])
    chosen: list[Tensor] = []
    nearest = torch.full_like(weight, torch.inf)
    for _ in range(count):
        index = torch.multinomial(weight, 1, generator=generator)
        chosen.append(x[index])
        nearest = torch.minimum(nearest, (x - chosen[-1]).square().sum(1))
        weight = nearest if float(nearest.sum()) > 0.0 else torch.ones_like(nearest)
    return torch.cat(chosen)
