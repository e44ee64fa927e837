"""Mixture density networks against closed forms, integrals and their own samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from gymnasium.spaces import Box
from heads import ARM, UNBOUNDED, VECTOR, make_chunks, make_head
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from lit_imitation.policies import GaussianPolicy, MixturePolicy
from lit_imitation.policies.continuous import LOG_STD_MAX, LOG_STD_MIN, log_normal_cdf

LINE = Box(-1, 1, (1,), np.float32)


def constant(weights, means, log_stds, space=LINE, **more):
    """One-step mixture that does not depend on the observation, with means and log σ `[K, act_dim]` in units."""
    policy = MixturePolicy(VECTOR, space, components=len(weights), hidden_sizes=[], **more).double()
    middle, half = (LOG_STD_MAX + LOG_STD_MIN) / 2, (LOG_STD_MAX - LOG_STD_MIN) / 2
    raw = ((torch.tensor(log_stds, dtype=torch.float64) - middle) / half).atanh()  # within the identity of soft_tanh
    assert raw.abs().max() < 2.0
    means = torch.tensor(means, dtype=torch.float64)
    head = torch.cat([torch.tensor(weights, dtype=torch.float64).log(), means.flatten(), raw.flatten()])
    with torch.no_grad():
        policy.network.layers[0].weight.zero_()
        policy.network.layers[0].bias.copy_(head)
    return policy


def test_one_component_is_gaussian_policy():
    mixture = MixturePolicy(VECTOR, ARM, components=1, hidden_sizes=[8])
    gaussian = GaussianPolicy(VECTOR, ARM, std="state", hidden_sizes=[8])
    with torch.no_grad():
        for own, other in zip(mixture.network.layers, gaussian.network.layers, strict=True):
            for name in ("weight", "bias"):
                # The mixture's first output is the logit.
                getattr(other, name).copy_(getattr(own, name)[-len(getattr(other, name)) :])
    observation, action = (one.squeeze(1) for one in make_chunks(mixture))
    observation = observation.clamp(-3, 3)
    torch.testing.assert_close(mixture.log_prob(observation, action), gaussian.log_prob(observation, action))
    torch.testing.assert_close(mixture.act(observation), gaussian.act(observation))


def test_density_matches_torch_distributions():
    policy = make_head("mixture", ARM, horizon=2, n_obs_steps=1).double()
    observation, action = make_chunks(policy)
    observation, action = observation.double().clamp(-3, 3), action.double()
    log_weight, mean, log_std = policy.mixture(policy.condition(observation))
    center, scale = policy.center.repeat(2), policy.scale.repeat(2)
    parts = Independent(Normal(center + scale * mean, scale * log_std.exp()), 1)
    reference = MixtureSameFamily(Categorical(logits=log_weight), parts)
    torch.testing.assert_close(policy.log_prob(observation, action), reference.log_prob(action.flatten(1)))
    torch.testing.assert_close(log_weight.exp().sum(-1), torch.ones(40, dtype=torch.float64))


def test_mask_gives_marginal_density():
    policy = make_head("mixture", LINE, horizon=2).double()
    observation, action = make_chunks(policy, 1)
    observation, action = observation.double().clamp(-3, 3), action.double()
    grid = torch.linspace(-40, 40, 20_001, dtype=torch.float64)
    chunks = torch.stack([action[0, 0].expand(len(grid)), grid], 1)[..., None]
    joint = policy.log_prob(observation.expand(len(grid), -1, -1), chunks).exp()
    marginal = policy.log_prob(observation, action, torch.tensor([[1, 0]])).exp()
    assert float(marginal.detach()) == pytest.approx(float(torch.trapezoid(joint, grid).detach()), rel=1e-6)


@pytest.mark.parametrize("space", [LINE, Box(-0.5, 3.0, (1,), np.float32), Box(-np.inf, np.inf, (1,), np.float32)])
def test_density_integrates_to_one(space):
    policy = make_head("mixture", space, components=4).double()
    grid = torch.linspace(-60, 60, 60_001, dtype=torch.float64)
    for observation in torch.randn(3, 1, 4, dtype=torch.float64):
        density = policy.log_prob(observation.expand(len(grid), -1), grid[:, None]).exp()
        assert float(torch.trapezoid(density, grid).detach()) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("box", [(-1.0, 1.0), (-0.5, 3.0), (-0.5, np.inf), (-np.inf, np.inf)], ids=str)
def test_censored_density_and_masses_sum_to_one(box):
    space = Box(*box, (1,), np.float32)
    policy = constant([0.3, 0.7], [[-0.9], [0.6]], [[-1.0], [-0.3]], space, censored=True)
    plain = constant([0.3, 0.7], [[-0.9], [0.6]], [[-1.0], [-0.3]], space)
    low, high, center, scale = (float(one) for one in (policy.low, policy.high, policy.center, policy.scale))
    grid = torch.linspace(max(low, -50.0), min(high, 50.0), 100_001, dtype=torch.float64)[1:-1, None]
    observation = torch.zeros(len(grid), 4, dtype=torch.float64)
    inside = policy.log_prob(observation, grid)
    torch.testing.assert_close(inside, plain.log_prob(observation, grid))
    total = float(torch.trapezoid(inside.exp(), grid[:, 0]).detach())
    normals = [scipy.stats.norm(center + scale * m, scale * math.exp(s)) for m, s in ((-0.9, -1.0), (0.6, -0.3))]
    for bound, tail in ((low, "cdf"), (high, "sf")):
        if not math.isfinite(bound):
            continue
        wanted = sum(w * getattr(normal, tail)(bound) for w, normal in zip((0.3, 0.7), normals, strict=True))
        for at in (bound, bound + math.copysign(1.0, bound - center)):  # recorded beyond the bound
            got = policy.log_prob(observation[:1], torch.full((1, 1), at, dtype=torch.float64)).exp()
            assert float(got.detach()) == pytest.approx(wanted, rel=1e-6)
        total += wanted
    assert total == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("space", [ARM, UNBOUNDED, Box(np.float32([-1, 0]), np.float32([1, np.inf]))], ids=str)
def test_censored_gradients_are_finite(space):
    policy = make_head("mixture-censored", space)
    low, high = (np.where(np.isfinite(bound), bound, 5.0).astype(np.float32) for bound in (space.low, space.high))
    action = torch.from_numpy(np.stack([low, high, 100 * low, 100 * high, (low + high) / 2]))
    loss = policy.loss(torch.randn(5, 4), action)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in policy.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_normal_cdf_and_its_slope_far_out(dtype):
    z = torch.tensor([-1e6, -1e4, -1e3, -40.0, -5.0, -1.0, -1e-3, 0.0, 0.5, 3.0, 8.0, 1e6], dtype=dtype)
    z.requires_grad_()
    value = log_normal_cdf(z)
    (slope,) = torch.autograd.grad(value.sum(), z)
    wide = z.detach().double().numpy()
    wanted = scipy.special.log_ndtr(wide)
    # The slope is φ/Φ, by Mills' ratio -z + O(1/z) far below.
    inverse = np.where(wide < -100, -wide, np.exp(scipy.stats.norm.logpdf(wide) - wanted))
    tolerance = 1e-4 if dtype == torch.float32 else 1e-5
    np.testing.assert_allclose(value.detach(), wanted, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(slope, inverse, rtol=tolerance, atol=1e-6)


def test_samples_match_density():
    policy = constant([0.3, 0.7], [[-0.9], [0.6]], [[-1.0], [-0.7]], Box(-np.inf, np.inf, (1,), np.float32))
    torch.manual_seed(0)
    draws = policy.act(torch.zeros(20_000, 4, dtype=torch.float64), deterministic=False).detach().numpy().ravel()

    def cdf(x):
        return 0.3 * scipy.stats.norm.cdf(x, -0.9, math.exp(-1.0)) + 0.7 * scipy.stats.norm.cdf(x, 0.6, math.exp(-0.7))

    assert scipy.stats.kstest(draws, cdf).pvalue > 1e-3


@pytest.mark.parametrize("temperature", [0.25, 1.0, 2.0])
def test_temperature_scales_weights_and_variance(temperature):
    space = Box(-np.inf, np.inf, (1,), np.float32)
    policy = constant([0.2, 0.8], [[-3.0], [3.0]], [[-1.5], [-1.5]], space, temperature=temperature)
    torch.manual_seed(0)
    draws = policy.act(torch.zeros(20_000, 4, dtype=torch.float64), deterministic=False).detach()
    share = 0.8 ** (1 / temperature) / (0.8 ** (1 / temperature) + 0.2 ** (1 / temperature))
    right = draws[draws > 0]
    assert len(right) / len(draws) == pytest.approx(share, abs=0.015)
    assert float(right.std()) == pytest.approx(math.exp(-1.5) * math.sqrt(temperature), rel=0.03)


def test_deterministic_plan_is_most_likely_components_mean():
    policy = constant([0.2, 0.5, 0.3], [[-0.5], [0.25], [0.8]], [[-1.0]] * 3)
    assert policy.act(torch.zeros(1, 4, dtype=torch.float64)).tolist() == [[pytest.approx(0.25)]]


def test_std_stays_in_range():
    policy = make_head("mixture")
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(100.0)
    log_std = policy.mixture(policy.head(torch.randn(50, 4)))[2]
    assert LOG_STD_MIN <= float(log_std.min().detach()) < float(log_std.max().detach()) <= LOG_STD_MAX
    assert float((log_std.max() - log_std.min()).detach()) > 6
