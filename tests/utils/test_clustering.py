"""k-means against separated clusters and its own conditions of optimality."""

from __future__ import annotations

import pytest
import torch

from lit_imitation.utils import clustering
from lit_imitation.utils.clustering import k_means


def clusters(count=6, per_cluster=50, noise=0.05):
    generator = torch.Generator().manual_seed(0)
    middles = 4.0 * torch.rand(count, 3, generator=generator)
    rows = middles.repeat_interleave(per_cluster, 0)
    return middles, rows + noise * torch.randn(rows.shape, generator=generator)


@pytest.mark.parametrize("seed", range(3))
def test_separated_clusters_are_found(seed):
    middles, rows = clusters()
    centers = k_means(rows, 6, seed).float()
    distance = torch.cdist(middles, centers)
    assert (distance.amin(1) < 0.05).sum() >= 5  # k-means++ may split one cluster
    assert k_means(rows, 1, seed)[0].tolist() == pytest.approx(rows.double().mean(0).tolist())


def test_centers_are_means_of_nearest_rows():
    rows = torch.randn(300, 2, generator=torch.Generator().manual_seed(1)).double()
    centers = k_means(rows, 7, 0)
    nearest = torch.cdist(rows, centers).argmin(1)
    assert len(nearest.unique()) == 7
    for i in range(7):
        torch.testing.assert_close(centers[i], rows[nearest == i].mean(0))


def test_same_seed_gives_same_centers():
    _, rows = clusters()
    state = torch.get_rng_state()
    first = k_means(rows, 4, 7)
    assert torch.equal(first, k_means(rows, 4, 7))
    assert torch.equal(state, torch.get_rng_state())  # the global stream is left alone


def test_fewer_distinct_rows_than_centers():
    rows = torch.tensor([[0.0], [1.0], [1.0]])
    assert sorted(set(k_means(rows, 5, 0).flatten().tolist())) == [0.0, 1.0]
    assert k_means(rows[1:], 3, 0).flatten().tolist() == [1.0, 1.0, 1.0]


def test_many_rows_are_sampled(monkeypatch):
    monkeypatch.setattr(clustering, "MAX_ROWS", 100)
    middles, rows = clusters()
    centers = k_means(rows, 6, 0).float()
    assert (torch.cdist(middles, centers).amin(1) < 0.1).sum() >= 5
