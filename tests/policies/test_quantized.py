"""Quantized policies against plain loops and their own codes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from heads import MATRIX, VECTOR, make_chunks, make_head

from lit_imitation.policies import QuantizedPolicy

LINE = Box(-1, 1, (1,), np.float32)


def constant(log_probs, offsets, centers, space=LINE):
    """One-step policy that does not depend on the observation: tensors `[L, K]`, `[L, K, act_dim]` twice."""
    levels, codes = log_probs.shape
    policy = QuantizedPolicy(VECTOR, space, codes=codes, levels=levels, hidden_sizes=[])
    with torch.no_grad():
        policy.network.layers[0].weight.zero_()
        policy.network.layers[0].bias.copy_(torch.cat([log_probs.flatten(), offsets.flatten()]))
    policy.centers.copy_(centers)
    return policy


def nearest(centers, u, mask):
    distances = [sum(m * (x - c) ** 2 for m, x, c in zip(mask, u, row, strict=True)) for row in centers]
    return int(np.argmin(distances))


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_loss_matches_plain_loop(gamma):
    policy = make_head("quantized-residual", MATRIX, horizon=2, focal_gamma=gamma, offset_weight=3.0).double()
    observation, action = make_chunks(policy, 12)
    policy.fit_normalizer(observation, action)
    mask = torch.ones(12, 2)
    mask[6:, 1] = 0.0
    losses = policy.loss(observation, action.double(), mask).tolist()
    head = policy.network(policy.condition(observation)).detach().numpy()
    levels, codes = 3, 4
    for i in range(12):
        logits = head[i, : levels * codes].reshape(levels, codes)
        offsets = head[i, levels * codes :].reshape(levels, codes, 12)
        left = policy.units(action.double())[i].flatten().numpy()
        counted = mask[i].repeat_interleave(6).numpy()
        total, offset = 0.0, np.zeros(12)
        for level in range(levels):
            centers = policy.centers[level].numpy()
            code = nearest(centers, left, counted)
            p = math.exp(logits[level, code]) / sum(math.exp(z) for z in logits[level])
            total -= (1 - p) ** gamma * math.log(p)
            left = left - centers[code]
            offset += offsets[level, code]
        total += 3.0 / 2 * sum(counted * np.abs(left - offset))
        assert losses[i] == pytest.approx(total, rel=1e-6)


def test_residual_levels_reduce_what_is_left():
    chunks = torch.rand(500, 4, 1, generator=torch.Generator().manual_seed(0)) * 2 - 1
    left = []
    for levels in (1, 2, 3):
        policy = QuantizedPolicy(VECTOR, LINE, codes=8, levels=levels, horizon=4, hidden_sizes=[8])
        policy.fit_actions(chunks)
        codes, residual = policy.quantize(chunks, torch.ones(500, 4))
        assert codes.shape == (500, levels)
        rebuilt = sum(policy.centers[level, codes[:, level]] for level in range(levels))
        torch.testing.assert_close(rebuilt + residual.flatten(1), chunks.flatten(1), atol=1e-5, rtol=0)
        left.append(float(residual.square().mean()))
    assert left[1] < 0.6 * left[0]
    assert left[2] < 0.7 * left[1]


def test_codes_of_separated_clusters_are_their_middles():
    middles = torch.tensor([-0.8, -0.1, 0.5])
    action = (middles.repeat(100) + 0.01 * torch.randn(300, generator=torch.Generator().manual_seed(0)))[:, None]
    policy = QuantizedPolicy(VECTOR, LINE, codes=3, hidden_sizes=[8])
    policy.fit_normalizer(torch.randn(300, 4), action)
    torch.testing.assert_close(policy.centers[0, :, 0].sort().values, middles, atol=0.01, rtol=0)


def test_fit_is_deterministic_and_stored():
    _, action = make_chunks(make_head("quantized-residual", horizon=3))
    policies = [make_head("quantized-residual", horizon=3, seed=seed) for seed in (0, 1)]
    for policy in policies:
        policy.fit_actions(action)
    assert torch.equal(policies[0].centers, policies[1].centers)
    again = make_head("quantized-residual", horizon=3, seed=2)
    again.load_state_dict(policies[0].state_dict())
    assert torch.equal(again.centers, policies[0].centers)


def test_samples_have_probabilities_of_codes():
    probability = torch.tensor([[0.5, 0.3, 0.2], [0.6, 0.4, 0.0]])
    centers = torch.tensor([[-0.8, 0.0, 0.4], [0.1, -0.1, 0.0]])[..., None]
    offsets = torch.tensor([[0.01, 0.02, 0.03], [0.001, 0.002, 0.003]])[..., None]
    policy = constant((probability + 1e-9).log(), offsets, centers)
    torch.manual_seed(0)
    draws = policy.act(torch.zeros(20_000, 4), deterministic=False).detach().flatten()
    found = 0
    for i in range(3):
        for j in range(2):
            chunk = float(centers[0, i] + offsets[0, i] + centers[1, j] + offsets[1, j])
            count = int(((draws - chunk).abs() < 1e-5).sum())
            assert count / 20_000 == pytest.approx(float(probability[0, i] * probability[1, j]), abs=0.015)
            found += count
    assert found == 20_000
    assert policy.act(torch.zeros(1, 4)).item() == pytest.approx(-0.8 + 0.01 + 0.1 + 0.001)


def test_padding_does_not_choose_the_code():
    policy = QuantizedPolicy(VECTOR, LINE, codes=2, horizon=2, hidden_sizes=[8])
    policy.centers.copy_(torch.tensor([[[0.5, 0.0], [-0.5, 0.9]]]))
    chunk = torch.tensor([[[0.4], [0.9]]])
    assert policy.quantize(chunk, torch.tensor([[1.0, 0.0]]))[0].item() == 0
    chunk = torch.tensor([[[-0.05], [0.9]]])
    assert policy.quantize(chunk, torch.ones(1, 2))[0].item() == 1


def test_fewer_chunks_than_codes():
    policy = QuantizedPolicy(VECTOR, LINE, codes=24, levels=2, hidden_sizes=[8])
    policy.fit_normalizer(torch.zeros(2, 4), torch.tensor([[0.3], [-0.3]]))
    loss = policy.loss(torch.zeros(2, 4), torch.tensor([[0.3], [-0.3]]))
    assert loss.isfinite().all()
    assert policy(np.zeros((5, 4), np.float32), deterministic=False).shape == (5, 1)


def test_single_actions_do_not_fit_codes_of_chunks():
    with pytest.raises(ValueError, match=r"expected \[B, 3, 1\]"):
        QuantizedPolicy(VECTOR, LINE, horizon=3).fit_actions(torch.zeros(10, 1))
