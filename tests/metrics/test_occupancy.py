"""Distances between samples, against closed forms and other implementations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance

from lit_imitation import OccupancyDivergence
from lit_imitation.metrics.occupancy import maximum_mean_discrepancy, sliced_wasserstein


def normal(n, d, mean=0.0, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + mean


def test_mmd_matches_definition():
    x, y = normal(7, 3), normal(5, 3, 1.5, seed=1)
    both = np.concatenate([x.numpy(), y.numpy()])
    squared = ((both[:, None] - both[None]) ** 2).sum(-1)
    width = squared[~np.eye(12, dtype=bool)].mean()

    def k(a, b):
        return np.mean([np.exp(-((a - b) ** 2).sum() / (2 * s * width)) for s in (0.25, 0.5, 1, 2, 4)])

    x, y = x.numpy(), y.numpy()
    xx = np.mean([k(x[i], x[j]) for i in range(7) for j in range(7) if i != j])
    yy = np.mean([k(y[i], y[j]) for i in range(5) for j in range(5) if i != j])
    xy = np.mean([k(a, b) for a in x for b in y])
    found = maximum_mean_discrepancy(torch.from_numpy(x), torch.from_numpy(y))
    np.testing.assert_allclose(float(found), np.sqrt(max(xx + yy - 2 * xy, 0)), rtol=1e-9)
    assert xx + yy - 2 * xy > 0


def test_coinciding_points_have_zero_mmd():
    x = torch.ones(30, 3)
    assert maximum_mean_discrepancy(x, x) == 0.0


def test_sliced_wasserstein_in_one_dimension_is_exact():
    x, y = normal(40, 1), normal(40, 1, 2.0, seed=3)
    np.testing.assert_allclose(
        float(sliced_wasserstein(x, y)), wasserstein_distance(x[:, 0].numpy(), y[:, 0].numpy()), rtol=1e-9
    )
    # Includes sample sizes that divide each other.
    np.testing.assert_allclose(
        float(sliced_wasserstein(x[:20], y)), wasserstein_distance(x[:20, 0].numpy(), y[:, 0].numpy()), rtol=1e-9
    )


@pytest.mark.integration
def test_sliced_wasserstein_of_a_shift():
    """W₁ of a shift by m along u is |uᵀm|; its mean over directions in the plane is 2‖m‖/π."""
    x = normal(500, 2)
    shifted = x + torch.tensor([3.0, 4.0])
    assert float(sliced_wasserstein(x, shifted, projections=4096)) == pytest.approx(5 * 2 / np.pi, rel=0.02)


@pytest.mark.parametrize("distance", [maximum_mean_discrepancy, sliced_wasserstein])
def test_distances_increase_with_the_shift(distance):
    x = normal(400, 4)
    same, near, far = (float(distance(x, normal(400, 4, mean, seed=9))) for mean in (0.0, 0.3, 1.0))
    assert same < near / 2 < far / 4


def test_metric_covers_all_updates():
    x, y = normal(60, 3), normal(90, 3, 1.0, seed=1)
    metric = OccupancyDivergence()
    for i in range(3):
        metric.update(x[20 * i : 20 * i + 20], y[30 * i : 30 * i + 30])
    found = metric.compute()
    torch.testing.assert_close(found["mmd"], maximum_mean_discrepancy(x, y))
    torch.testing.assert_close(found["sliced_wasserstein"], sliced_wasserstein(x, y))
    with pytest.raises(ValueError, match=r"with equal d"):
        metric.update(x, y[:, :2])
    metric.reset()
    metric.update(x[:1], y)
    with pytest.raises(ValueError, match=r"1 expert pairs"):
        metric.compute()
