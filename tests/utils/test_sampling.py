"""Weighted row sampling, on one process and several."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lit_imitation.utils import sampling
from lit_imitation.utils.sampling import rank_generator, sample_rank_rows, sample_rows, shuffle_minibatches

CPU = torch.device("cpu")


def test_rows_are_sampled_by_weight():
    torch.manual_seed(0)
    weight = torch.tensor([0.0, 1.0, 0.0, 5.0, 2.0, 0.0])
    share = np.bincount(sample_rows(6, 40_000, CPU, weight), minlength=6) / 40_000
    np.testing.assert_allclose(share, weight / weight.sum(), atol=0.01)
    assert not share[[0, 2, 5]].any()  # zero weights stay zero under rounding
    uniform = np.bincount(sample_rows(4, 40_000, CPU), minlength=4) / 40_000
    np.testing.assert_allclose(uniform, 0.25, atol=0.01)


@pytest.mark.parametrize("weight", [None, torch.arange(9.0)])
def test_rows_are_sampled_from_given_generator(weight):
    before = torch.get_rng_state()
    first, second = (sample_rows(9, 50, CPU, weight, torch.Generator().manual_seed(seed)).tolist() for seed in (0, 1))
    assert first != second
    assert first == sample_rows(9, 50, CPU, weight, torch.Generator().manual_seed(0)).tolist()
    assert torch.equal(torch.get_rng_state(), before)


def test_small_weights_are_not_lost():
    weight = torch.ones(1_000_000)
    weight[500_000:] = 1e-3
    torch.manual_seed(0)
    share = float((sample_rows(1_000_000, 1_000_000, CPU, weight) >= 500_000).float().mean())
    assert share == pytest.approx(1e-3 / (1 + 1e-3), rel=0.1)


@pytest.mark.parametrize("weight", [None, torch.arange(1000.0)])
def test_processes_together_sample_like_one(monkeypatch, weight):
    torch.manual_seed(0)
    alone = sample_rows(1000, 60, CPU, weight)
    parts = []
    for rank in range(3):
        monkeypatch.setattr(sampling, "world_size", lambda: 3)
        monkeypatch.setattr(sampling, "rank", lambda rank=rank: rank)
        torch.manual_seed(0)
        parts.append(sample_rank_rows(1000, 20, CPU, weight))
    assert torch.equal(torch.stack(parts, 1).flatten(), alone)
    assert not torch.equal(parts[0], parts[1])


def test_rank_generators_differ_and_keep_shared_stream(monkeypatch):
    torch.manual_seed(0)
    assert rank_generator(CPU) is None
    after, samples = [], []
    for rank in range(2):
        monkeypatch.setattr(sampling, "world_size", lambda: 2)
        monkeypatch.setattr(sampling, "rank", lambda rank=rank: rank)
        torch.manual_seed(0)
        samples.append([torch.randn(5, generator=rank_generator(CPU)) for _ in range(2)])
        after.append(torch.get_rng_state())
    assert torch.equal(*after)
    assert not torch.equal(samples[0][0], samples[1][0])
    assert not torch.equal(samples[0][0], samples[0][1])


def test_minibatches_are_a_shared_order_of_the_rows():
    torch.manual_seed(0)
    rows = torch.arange(10)
    a, b = shuffle_minibatches([rows, torch.stack([rows, -rows], 1)], 4)
    assert a.shape == (2, 4)
    assert b.shape == (2, 4, 2)
    assert torch.equal(b, torch.stack([a, -a], -1))
    assert len(set(a.flatten().tolist())) == 8  # two rows are left out, none is repeated
    assert not torch.equal(a, shuffle_minibatches([rows], 4)[0])


def test_few_rows_are_one_minibatch():
    (found,) = shuffle_minibatches([torch.arange(3)], 64)
    assert sorted(found.flatten().tolist()) == [0, 1, 2]
    assert found.shape == (1, 3)
