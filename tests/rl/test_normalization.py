"""Running statistics against float64 statistics over all rows at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from lit_imitation.networks.encoders import Encoder
from lit_imitation.rl.normalization import RewardScale, RunningMoments


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_moments_of_batches_equal_moments_of_all_rows(offset):
    rng = np.random.default_rng(0)
    rows = offset + rng.normal(size=(1000, 4)) * [1.0, 0.1, 10.0, 1e-3]
    weight = rng.integers(0, 2, 1000).astype(np.float64)
    moments = RunningMoments(4)
    for start, end in ((0, 1), (1, 300), (300, 310), (310, 1000)):
        moments.update(torch.from_numpy(rows[start:end]), torch.from_numpy(weight[start:end]))
    kept = rows[weight > 0]
    assert moments.count == len(kept)
    np.testing.assert_allclose(moments.mean.numpy(), kept.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.variance.numpy(), kept.var(0), rtol=1e-4)


def test_rewards_are_divided_by_deviation_of_returns():
    rng = np.random.default_rng(1)
    gamma, rounds = 0.9, [rng.normal(1.0, 2.0, size=(2, 30, 3)) for _ in range(3)]
    scale = RewardScale(gamma)
    running, seen = np.zeros(3), []
    for reward, noise in rounds:
        done, valid = noise > 2.5, noise > -1.5
        scaled = scale(torch.from_numpy(reward), torch.from_numpy(done), torch.from_numpy(valid))
        for t in range(30):
            running = gamma * running + np.where(valid[t], reward[t], 0.0)
            seen += running[valid[t]].tolist()
            running = np.where(done[t], 0.0, running)
        np.testing.assert_allclose(scaled.numpy(), np.clip(reward / np.sqrt(np.var(seen) + 1e-8), -10, 10), rtol=1e-6)
    scale.begin()
    again = RewardScale(gamma)
    again.load_state_dict(scale.state_dict())
    one = (torch.ones(4, 3, dtype=torch.float64), torch.zeros(4, 3).bool(), torch.ones(4, 3).bool())
    assert torch.equal(scale(*one), again(*one))  # after `begin` only the saved state matters


def test_copied_statistics_standardize_alike():
    source, *others = (Encoder(Box(-np.inf, np.inf, (2,))) for _ in range(3))
    x = 5.0 + 3.0 * torch.randn(50, 2)
    source.fit(x)
    for encoder in others:
        encoder.copy_statistics(source)
        assert encoder.standardize.fitted
        assert torch.equal(encoder(x), source(x))
    source.fit(2.0 * x)
    assert not torch.equal(others[0](x), source(x))  # a copy, not the same buffers
