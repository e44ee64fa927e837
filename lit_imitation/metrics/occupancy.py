"""Distances between occupancy measures from samples; they show convergence without the true reward."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


def maximum_mean_discrepancy(x: Tensor, y: Tensor) -> Tensor:
    """MMD `[]` of `x: [N, d]` and `y: [M, d]` (Gretton et al. 2012), from the unbiased estimate of its square,

        MMD² = E[k(x, x′)] + E[k(y, y′)] − 2 E[k(x, y)].

    k is a sum of Gaussian kernels exp(−‖a − b‖² / 2σ²) whose σ² are ¼, ½, 1, 2 and 4 times the mean squared distance
    between distinct points of both samples. A negative estimate, which occurs for equal distributions, gives 0.
    """
    n, m = len(x), len(y)
    together = torch.cat([x, y])
    squared = torch.cdist(together, together).square()
    width = (squared.sum() / ((n + m) * (n + m - 1))).clamp(min=torch.finfo(squared.dtype).tiny)
    one = torch.exp(-squared / (2.0 * 4.0 * width))
    kernel = one.clone()
    for _ in range(4):  # squaring the kernel halves its width and is cheaper than exp
        one = one.square()
        kernel += one
    kernel /= 5.0
    within_x = (kernel[:n, :n].sum() - n) / (n * (n - 1))  # exclude k(x, x) = 1
    within_y = (kernel[n:, n:].sum() - m) / (m * (m - 1))
    return (within_x + within_y - 2.0 * kernel[:n, n:].mean()).clamp(min=0.0).sqrt()


def sliced_wasserstein(x: Tensor, y: Tensor, projections: int = 128, seed: int = 0) -> Tensor:
    """Sliced Wasserstein distance `[]` (Bonneel et al. 2015): mean over directions u of W₁ between uᵀx and uᵀy.

    In one dimension W₁ is the mean distance between equal quantiles, taken here at as many points as the larger sample
    has.

    Args:
        x: `[N, d]` samples.
        y: `[M, d]` samples.
        projections: Number of directions.
        seed: Seed of the directions.

    Returns:
        The distance, `[]`.
    """
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(x.shape[1], projections, generator=generator).to(x)
    directions = directions / directions.norm(dim=0)
    count = max(len(x), len(y))
    at = (torch.arange(count, device=x.device, dtype=x.dtype) + 0.5) / count
    one, other = (_quantiles((sample @ directions).sort(dim=0).values, at) for sample in (x, y))
    return (one - other).abs().mean()


def _quantiles(ordered: Tensor, at: Tensor) -> Tensor:
    """Quantiles `[len(at), K]` of the columns of `ordered: [N, K]`, from the empirical step function."""
    index = (at * len(ordered)).long().clamp(max=len(ordered) - 1)
    return ordered.index_select(0, index)


class OccupancyDivergence(Metric):
    """MMD and sliced Wasserstein distance between state–action pairs of an expert and a learner.

    `update(expert, learner)` takes `[N, d]` and `[M, d]` and may be called repeatedly. `compute` returns
    `{"mmd": [], "sliced_wasserstein": []}` over all pairs of all processes. Scale the columns first, for example by the
    expert's standard deviations.

    Args:
        projections: Number of directions of the sliced Wasserstein distance.
    """

    full_state_update = False
    expert: list[Tensor]
    learner: list[Tensor]

    def __init__(self, projections: int = 128) -> None:
        super().__init__()
        self.projections = projections
        self.add_state("expert", [], dist_reduce_fx="cat")
        self.add_state("learner", [], dist_reduce_fx="cat")

    def update(self, expert: Tensor, learner: Tensor) -> None:
        """Add pairs `[N, d]` of the expert and `[M, d]` of the learner.

        Raises:
            ValueError: The shapes do not match.
        """
        if expert.ndim != 2 or learner.ndim != 2 or expert.shape[1] != learner.shape[1]:
            raise ValueError(
                f"expert {list(expert.shape)} and learner {list(learner.shape)} must be [N, d] and [M, d] with equal d"
            )
        self.expert.append(expert)
        self.learner.append(learner)

    def compute(self) -> dict[str, Tensor]:
        """Both distances, `[]` each.

        Raises:
            ValueError: The expert or the learner has fewer than 2 pairs.
        """
        expert, learner = dim_zero_cat(self.expert), dim_zero_cat(self.learner)
        if min(len(expert), len(learner)) < 2:
            raise ValueError(
                f"{len(expert)} expert pairs and {len(learner)} learner pairs; at least 2 of each are needed"
            )
        return {
            "mmd": maximum_mean_discrepancy(expert, learner),
            "sliced_wasserstein": sliced_wasserstein(expert, learner, self.projections),
        }
