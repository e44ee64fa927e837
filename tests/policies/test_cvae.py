"""Conditional variational autoencoders against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from heads import ARM, VECTOR, make_chunks, make_head
from torch import nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal, kl_divergence

from lit_imitation.policies import CVAEPolicy
from lit_imitation.policies.cvae import MixturePrior

PLANE = Box(-np.inf, np.inf, (2,), np.float32)


def make_prior(components=4):
    torch.manual_seed(0)
    prior = MixturePrior(2, 3, components, hidden_sizes=[8], activation="relu", dropout=0.0).double()
    return prior, torch.randn(20, 2, dtype=torch.float64)


def test_prior_matches_torch_distributions():
    prior, condition = make_prior()
    log_weight, mean, log_std = prior(condition)
    parts = Independent(Normal(mean, log_std.exp()), 1)
    mixture = MixtureSameFamily(Categorical(logits=log_weight), parts)
    z = torch.randn(20, 3, dtype=torch.float64)
    torch.testing.assert_close(prior.log_prob(condition, z), mixture.log_prob(z))


def test_prior_samples_have_its_mean():
    prior, condition = make_prior()
    log_weight, mean, _ = prior(condition[:1])
    wanted = (log_weight.exp()[..., None] * mean).sum(1)[0]
    drawn = prior.draw(condition[:1].expand(40_000, 2), deterministic=False)
    torch.testing.assert_close(drawn.mean(0), wanted, atol=0.03, rtol=0.0)


def test_likeliest_mean_is_no_average():
    prior, condition = make_prior()
    log_weight, mean, _ = prior(condition)
    chosen = prior.draw(condition, deterministic=True)
    for i in range(20):
        torch.testing.assert_close(chosen[i], mean[i, log_weight[i].argmax()])


def test_components_start_apart():
    prior, condition = make_prior(16)
    _, mean, _ = prior(condition)
    assert mean.std(1).mean() > 0.7


class LinearGaussian(nn.Module):
    """Linear decoder W z, prior N(0, I), and a posterior of which mean and log σ are given."""

    def __init__(self, weight, mean, log_std):
        super().__init__()
        self.weight, self.mean, self.log_std = weight, mean, log_std
        self.prior = self

    def log_prob(self, condition, z):
        return Normal(torch.zeros_like(z), torch.ones_like(z)).log_prob(z).sum(-1)

    def encode(self, condition, u, mask):
        return self.mean.expand(len(u), -1), self.log_std.expand(len(u), -1)

    def decode(self, condition, z):
        return (z @ self.weight.T)[:, None]


def bound_and_density(mean, log_std, weight, std, a):
    """Evidence lower bound by the policy, averaged over draws of z, and exact log-density of a = W z + σ ε."""
    policy = CVAEPolicy(VECTOR, PLANE, latent_size=2, hidden_sizes=[8]).double()
    policy.network = LinearGaussian(weight, mean, log_std)
    policy.log_std.data.fill_(float(np.log(std)))
    torch.manual_seed(0)
    rows = a.expand(100_000, 2)
    bound = -policy.loss(torch.zeros(len(rows), 4), rows).mean()
    covariance = weight @ weight.T + std**2 * torch.eye(2, dtype=torch.float64)
    return float(bound.detach()), float(MultivariateNormal(torch.zeros(2, dtype=torch.float64), covariance).log_prob(a))


def linear_case():
    generator = torch.Generator().manual_seed(0)
    weight = torch.diag(torch.tensor([0.7, 0.3], dtype=torch.float64))
    return weight, 0.2, torch.randn(2, generator=generator, dtype=torch.float64) * 0.5


def test_bound_is_tight_for_exact_posterior():
    """For a diagonal W the posterior is diagonal: variance 1 / (1 + w²/σ²), mean variance · w a / σ²."""
    weight, std, a = linear_case()
    variance = 1 / (1 + weight.diagonal().square() / std**2)
    mean = variance * weight.diagonal() * a / std**2
    bound, density = bound_and_density(mean, 0.5 * variance.log(), weight, std, a)
    assert bound == pytest.approx(density, abs=0.01)


@pytest.mark.parametrize(("shift", "log_shift"), [(0.3, 0.0), (0.0, 0.7), (-0.2, -0.7)])
def test_bound_is_below_density_by_divergence(shift, log_shift):
    weight, std, a = linear_case()
    variance = 1 / (1 + weight.diagonal().square() / std**2)
    mean = variance * weight.diagonal() * a / std**2
    bound, density = bound_and_density(mean + shift, 0.5 * variance.log() + log_shift, weight, std, a)
    exact, other = Normal(mean, variance.sqrt()), Normal(mean + shift, variance.sqrt() * np.exp(log_shift))
    assert density - bound == pytest.approx(float(kl_divergence(other, exact).sum()), rel=0.02, abs=0.02)
    assert bound < density


@pytest.mark.parametrize("name", ["cvae", "cvae-gaussian"])
def test_loss_matches_parts(name):
    policy = make_head(name, ARM, horizon=3, kl_weight=0.7).double()
    observation, action = make_chunks(policy, 10)
    policy.fit_normalizer(observation, action)
    mask = (torch.rand(10, 3) < 0.6).double()
    u, condition = policy.units(action.double()), policy.condition(observation).double()
    torch.manual_seed(1)
    losses = policy.chunk_loss(condition, u, mask)
    mean, log_std = policy.network.encode(condition, u, mask)
    torch.manual_seed(1)
    z = mean + log_std.exp() * torch.randn_like(mean)
    decoded = policy.network.decode(condition, z)
    if policy.log_std is None:
        errors = (u - decoded).abs()
    else:
        std = policy.scale * policy.log_std.exp()
        errors = -Normal(policy.scale * decoded, std).log_prob(policy.scale * u)
    log_posterior = Normal(mean, log_std.exp()).log_prob(z).sum(-1)
    divergence = log_posterior - policy.network.prior.log_prob(condition, z)
    wanted = (errors * mask[..., None]).sum((1, 2)) + 0.7 * divergence
    torch.testing.assert_close(losses, wanted)


@pytest.mark.parametrize("deterministic", [True, False])
def test_plan_decodes_prior(deterministic):
    policy = make_head("cvae", ARM, horizon=3)
    observation, _ = make_chunks(policy)
    condition = policy.condition(observation)
    torch.manual_seed(2)
    drawn = policy.draw(condition, deterministic)
    torch.manual_seed(2)
    z = policy.network.prior.draw(condition, deterministic)
    torch.testing.assert_close(drawn, policy.network.decode(condition, z))


def test_encoder_reads_chunk_and_decoder_does_not():
    policy = make_head("cvae", ARM, horizon=3)
    observation, action = make_chunks(policy)
    condition, mask = policy.condition(observation), torch.ones(40, 3)
    mean, _ = policy.network.encode(condition, policy.units(action), mask)
    other, _ = policy.network.encode(condition, policy.units(action.flip(0)), mask)
    assert not torch.allclose(mean, other)
    assert policy.network.decode(condition, mean).shape == (40, 3, 3)
