"""Squashed Gaussian against numerical integration and torch's transformed distribution."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch.distributions import AffineTransform, Independent, Normal, TanhTransform, TransformedDistribution
from torch.distributions import kl_divergence as kl

from lit_imitation.errors import UnsupportedSpaceError
from lit_imitation.policies import SquashedGaussianPolicy
from lit_imitation.policies.continuous import LOG_STD_MAX, LOG_STD_MIN

OBSERVATION = Box(-np.inf, np.inf, (3,), np.float32)
BOX = Box(np.float32([-1, 2]), np.float32([3, 2.5]))
MATRIX = Box(np.float32([[-1, 2], [0, -9]]), np.float32([[3, 2.5], [1, -1]]))


def build(space=BOX):
    torch.manual_seed(0)
    return SquashedGaussianPolicy(OBSERVATION, space, hidden_sizes=[8]).double()


def reference_distribution(policy, head):
    mean, log_std = policy.mean_and_log_std(head)
    transforms = [TanhTransform(), AffineTransform(policy.center, policy.scale)]
    return Independent(TransformedDistribution(Normal(mean, log_std.exp()), transforms), 1)


@pytest.mark.parametrize("mean", [-1.5, 0.0, 0.4])
@pytest.mark.parametrize("log_std", [-1.5, -0.5, 0.3])
def test_squashed_density_is_normalized_and_matches_samples(mean, log_std):
    policy = build(Box(np.float32([-1]), np.float32([3])))
    head = torch.tensor([[mean, log_std]], dtype=torch.float64)
    edges = torch.linspace(-12, 12, 40_001, dtype=torch.float64).tanh() * 2 + 1  # dense where the density is steep
    middle = 0.5 * (edges[1:] + edges[:-1])
    mass = policy.head_log_prob(head.expand(len(middle), -1), middle[:, None]).exp() * edges.diff()
    inside = (middle - 1).abs() < 2 * (1 - 2e-6)  # beyond, it is constant
    assert float(mass[inside].sum()) == pytest.approx(1.0, abs=1e-4)
    draws = policy.sample(head.expand(20_000, -1)).squeeze(-1)
    for level in (0.1, 0.5, 0.9):
        quantile = middle[(mass.cumsum(0) >= level).nonzero()[0]]
        assert float((draws <= quantile).double().mean()) == pytest.approx(level, abs=0.015)


@pytest.mark.parametrize("space", [BOX, MATRIX], ids=["vector", "matrix"])
def test_squashed_gaussian_matches_torch_distributions(space):
    policy = build(space)
    flat = policy.act_dim
    head = 0.5 * torch.randn(50, 2 * flat, dtype=torch.float64)
    action, log_prob = policy.rsample_with_log_prob(head)
    assert action.shape == (50, *space.shape)
    expected = reference_distribution(policy, head).log_prob(action.flatten(1))
    torch.testing.assert_close(log_prob, expected)
    torch.testing.assert_close(policy.head_log_prob(head, action), expected)
    units = AffineTransform(-policy.center / policy.scale, 1 / policy.scale)
    halves = TransformedDistribution(reference_distribution(policy, head).base_dist, [units])
    torch.testing.assert_close(
        policy.executed_log_prob(head, action), halves.log_prob(policy.from_action(action)).sum(-1)
    )
    mode = policy.to_box(policy.mean_and_log_std(head)[0].tanh())
    torch.testing.assert_close(policy.decode(head, True).flatten(1), mode)


def test_rsample_uses_given_noise():
    policy = build()
    head = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    noise = torch.randn(6, 2, dtype=torch.float64)
    mean, log_std = policy.mean_and_log_std(head)
    action, _ = policy.rsample_with_log_prob(head, noise)
    u = mean + log_std.exp() * noise
    torch.testing.assert_close(action, torch.tensor([1.0, 2.25]) + torch.tensor([2.0, 0.25]) * u.tanh())
    assert torch.autograd.gradcheck(lambda h: policy.rsample_with_log_prob(h, noise), head)


def test_log_prob_is_finite_where_tanh_rounds_to_one():
    policy = build().float()
    head = torch.tensor([[30.0, -40.0, 0.0, 0.0]], requires_grad=True)
    action, log_prob = policy.rsample_with_log_prob(head, torch.zeros(1, 2))
    assert BOX.contains(policy.clip(action)[0].detach().numpy())
    # −½ log 2π − log σ − log 4 + 2|u| − log scale, for each dimension.
    log_std = policy.mean_and_log_std(head)[1].sum()
    expected = -math.log(2 * math.pi) - log_std - 2 * math.log(4) + 2 * 70 - math.log(2 * 0.25)
    torch.testing.assert_close(log_prob[0], expected)
    at_bounds = policy.head_log_prob(head, torch.tensor([[3.0, 2.0]]))
    assert at_bounds.isfinite().all()
    (gradient,) = torch.autograd.grad(log_prob.sum() + at_bounds.sum(), head)
    assert gradient.isfinite().all()


def test_entropy_matches_samples_and_integration():
    policy = build(Box(np.float32([-1]), np.float32([3])))
    mean, log_std = torch.meshgrid(torch.tensor([-3.0, 0.0, 1.0]), torch.linspace(-5, 9, 8), indexing="ij")
    head = torch.stack([mean.flatten(), log_std.flatten()], -1).double()
    found = policy.head_entropy(head)
    z = torch.linspace(-9, 9, 60_001, dtype=torch.float64)
    for row, value in zip(head, found, strict=True):
        _, log_prob = policy.rsample_with_log_prob(row.expand(len(z), -1), z[:, None])
        weight = torch.softmax(-0.5 * z.square(), 0)
        assert float(value) == pytest.approx(float(-(weight * log_prob).sum()), abs=1e-5)
    _, log_prob = policy.rsample_with_log_prob(head[3].expand(100_000, -1))
    assert float(found[3]) == pytest.approx(-float(log_prob.mean()), abs=0.02)


def test_kl_matches_gaussians_and_samples():
    policy, other = build(), build()
    heads = 0.5 * torch.randn(2, 4, 4, dtype=torch.float64)
    found = policy.head_kl(heads[0], other, heads[1])
    gaussians = [Independent(Normal(m, s.exp()), 1) for m, s in map(policy.mean_and_log_std, heads)]
    torch.testing.assert_close(found, kl(*gaussians))
    p, q = (reference_distribution(policy, head[:1].expand(100_000, -1)) for head in heads)
    draws = p.sample()
    assert float(found[0]) == pytest.approx(float((p.log_prob(draws) - q.log_prob(draws)).mean()), rel=0.05)


def test_log_std_is_bounded_with_gradient_everywhere():
    policy = build()
    raw = torch.tensor([-9.0, -1.5, 0.0, 9.0], dtype=torch.float64)
    log_std = policy.mean_and_log_std(torch.cat([torch.zeros(4).double(), raw])[None])[1][0]
    assert LOG_STD_MIN < log_std[0] < log_std[1] == pytest.approx(-1.5)
    assert log_std[2] == pytest.approx(0.0, abs=0.1)
    assert LOG_STD_MAX - 0.1 < log_std[3] < LOG_STD_MAX
    head = torch.tensor([[0.0, 0.0, -9.0, 9.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(policy.mean_and_log_std(head)[1].sum(), head)
    assert (gradient[0, 2:] > 0).all()


@pytest.mark.integration
def test_cloning_moves_mode_to_demonstrated_action():
    policy = build().float()
    optimizer = torch.optim.Adam(policy.parameters(), 0.01)
    observation, action = torch.randn(64, 3), torch.tensor([2.0, 2.1]).expand(64, -1)
    for _ in range(300):
        optimizer.zero_grad()
        policy.mean_loss(observation, action).backward()
        optimizer.step()
    torch.testing.assert_close(policy.act(observation), action, atol=0.05, rtol=0)


def test_unbounded_box_is_rejected():
    with pytest.raises(UnsupportedSpaceError, match="finite bounds"):
        SquashedGaussianPolicy(OBSERVATION, Box(np.float32([0, -np.inf]), np.float32([1, 1])))
