"""Policies against their mathematical definitions, and through every public interface."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.special
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from gymnasium.spaces.utils import flatten
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.distributions import Categorical, Independent, Normal, kl_divergence
from torch.func import functional_call

from lit_imitation.errors import ConfigError, UnsupportedSpaceError
from lit_imitation.networks.mlp import Standardize
from lit_imitation.policies import (
    CategoricalPolicy,
    DeterministicPolicy,
    EnsemblePolicy,
    GaussianPolicy,
    MultiCategoricalPolicy,
    SquashedGaussianPolicy,
    default_policy,
)
from lit_imitation.policies.continuous import LOG_STD_MAX, LOG_STD_MIN, soft_bound, soft_tanh
from lit_imitation.utils.spaces import FlatBox, PackedBox
from lit_imitation.utils.units import action_units

VECTOR = Box(-np.inf, np.inf, (4,), np.float32)
OBSERVATIONS = {
    "vector": VECTOR,
    "float64": Box(-np.inf, np.inf, (4,), np.float64),
    "matrix": Box(-1, 1, (2, 3), np.float32),
    "scalar": Box(-1, 1, (), np.float32),
    "bytes": Box(0, 255, (5,), np.uint8),
    "discrete": Discrete(6),
    "discrete-start": Discrete(6, start=-2),
    "multi-discrete": MultiDiscrete([2, 3, 2], start=[0, -1, 4]),
    "multi-binary": MultiBinary([2, 3]),
    "image-last": Box(0, 255, (32, 30, 3), np.uint8),
    "image-first": Box(0, 255, (3, 32, 30), np.uint8),
}
ASYMMETRIC = Box(np.float32([-0.5, 2.0, -7.0]), np.float32([3.0, 2.5, -1.0]))
UNBOUNDED = Box(-np.inf, np.inf, (2,), np.float32)
HALF = Box(np.float32([0, -np.inf, -1]), np.float32([np.inf, 2, 1]))
POLICIES = {
    "categorical": (CategoricalPolicy, Discrete(3), {}),
    "categorical-start": (CategoricalPolicy, Discrete(5, start=3), {}),
    "multi-categorical": (MultiCategoricalPolicy, MultiDiscrete([3, 1, 4]), {}),
    "multi-categorical-start": (MultiCategoricalPolicy, MultiDiscrete([2, 3], start=[1, -2]), {}),
    "gaussian-free": (GaussianPolicy, ASYMMETRIC, {"std": "free"}),
    "gaussian-state": (GaussianPolicy, ASYMMETRIC, {"std": "state"}),
    "gaussian-matrix": (GaussianPolicy, Box(-2, 1, (2, 3), np.float32), {"std": "state"}),
    "gaussian-unbounded": (GaussianPolicy, UNBOUNDED, {}),
    "gaussian-half-bounded": (GaussianPolicy, HALF, {}),
    "squashed": (SquashedGaussianPolicy, ASYMMETRIC, {}),
    "squashed-matrix": (SquashedGaussianPolicy, Box(-2, 1, (2, 3), np.float32), {}),
    "mse": (DeterministicPolicy, ASYMMETRIC, {}),
    "huber": (DeterministicPolicy, ASYMMETRIC, {"regression": "huber", "huber_delta": 0.3}),
    "log-cosh": (DeterministicPolicy, ASYMMETRIC, {"regression": "log_cosh"}),
    "deterministic-matrix": (DeterministicPolicy, Box(-2, 1, (2, 3), np.float32), {}),
    "deterministic-unbounded": (DeterministicPolicy, UNBOUNDED, {}),
    "deterministic-scalar": (DeterministicPolicy, Box(-2, 1, (), np.float32), {}),
}
ACTIVATIONS = ["relu", "tanh", "gelu", "silu", "elu", "leaky_relu"]


def build(name, observation_space=VECTOR, seed=0, gain=1.0, **more):
    cls, action_space, arguments = POLICIES[name]
    torch.manual_seed(seed)
    policy = cls(observation_space, action_space, **({"hidden_sizes": (16, 8)} | arguments | more))
    with torch.no_grad():
        for parameter in policy.parameters():  # breaks the symmetry of a fresh network
            parameter.mul_(gain).add_(0.1 * torch.randn_like(parameter))
    return policy


def observations(space, n=7, seed=0):
    space.seed(seed)
    return np.stack([space.sample() for _ in range(n)])


def actions(space, n=7, seed=0):
    space.seed(seed)
    return torch.from_numpy(np.stack([space.sample() for _ in range(n)]))


# Gaussian.


@pytest.mark.parametrize("std", ["free", "state"])
@pytest.mark.parametrize("box", [(-0.5, 3.0), (-np.inf, np.inf)], ids=["bounded", "unbounded"])
def test_gaussian_density_integrates_to_one(std, box):
    torch.manual_seed(1)
    policy = GaussianPolicy(VECTOR, Box(*box, (1,), np.float32), std=std, hidden_sizes=(8,)).double()
    for observation in torch.randn(4, 1, 4):
        grid = torch.linspace(-60, 60, 60_001, dtype=torch.float64)
        density = policy.log_prob(observation.expand(len(grid), -1), grid[:, None]).exp()
        assert torch.trapezoid(density, grid).item() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("box", [(-0.5, 3.0), (-0.5, np.inf), (-np.inf, np.inf)], ids=["bounded", "below", "unbounded"])
@pytest.mark.parametrize("log_std", [-1.0, 1.5])
def test_executed_log_prob_is_censored_gaussian(box, log_std):
    torch.manual_seed(2)
    policy = GaussianPolicy(VECTOR, Box(*box, (1,), np.float32), hidden_sizes=(8,)).double()
    policy.log_std.data.fill_(log_std)
    head = policy.head(torch.randn(1, 4, dtype=torch.float64))
    low, high = float(policy.low), float(policy.high)
    scale = float(policy.scale)
    grid = torch.linspace(max(low, -100.0), min(high, 100.0), 100_001, dtype=torch.float64)[1:-1]
    inside = policy.executed_log_prob(head.expand(len(grid), -1), grid[:, None])
    torch.testing.assert_close(
        inside, policy.head_log_prob(head.expand(len(grid), -1), grid[:, None]) + math.log(scale)
    )
    total = float(torch.trapezoid(inside.exp(), grid)) / scale
    draws = policy.sample(head.expand(20_000, -1)).squeeze(-1)
    for bound, beyond in ((low, draws <= low), (high, draws >= high)):
        if np.isfinite(bound):
            at, further = (
                float(policy.executed_log_prob(head, torch.full((1, 1), value, dtype=torch.float64)).exp())
                for value in (bound, bound * 2.0)
            )
            assert at == further == pytest.approx(float(beyond.double().mean()), abs=0.01)
            total += at
    assert total == pytest.approx(1.0, abs=1e-3)


def test_censored_gaussian_loss_is_tobit():
    space = Box(np.float32([-2, -np.inf, 0]), np.float32([2, 1, 3]))
    policy = GaussianPolicy(VECTOR, space, std="state", censored=True, hidden_sizes=(8,)).double()
    observation = torch.randn(5, 4, dtype=torch.float64)
    action = torch.tensor([[-2.0, 0.5, 1], [2, 1, 0], [5, -9, 3], [-3, 2, -1], [0, 0, 4]], dtype=torch.float64)
    mean, log_std = (one.detach().numpy() for one in policy.mean_and_log_std(policy.head(observation)))
    center, scale = policy.center.numpy(), policy.scale.numpy()
    normal = scipy.stats.norm(mean, np.exp(log_std))
    u, low, high = ((x - center) / scale for x in (action.numpy(), space.low, space.high))
    wanted = np.where(u <= low, normal.logcdf(low), np.where(u >= high, normal.logsf(high), normal.logpdf(u)))
    np.testing.assert_allclose(policy.loss(observation, action).detach(), -wanted.sum(-1), rtol=1e-6)


def test_censored_gaussian_mean_goes_beyond_bound():
    """Half of the clipped actions are at the bound; the mean of what was clipped lies there, that of the rest below."""
    torch.manual_seed(0)
    recorded = torch.clamp(1.0 + 0.5 * torch.randn(4000, 1), max=1.0)
    fitted = {}
    for censored in (False, True):
        policy = GaussianPolicy(VECTOR, Box(-1, 1, (1,), np.float32), censored=censored, hidden_sizes=())
        optimizer = torch.optim.Adam(policy.parameters(), 0.05)
        for _ in range(200):
            optimizer.zero_grad()
            policy.mean_loss(torch.zeros(4000, 4), recorded).backward()
            optimizer.step()
        fitted[censored] = float(policy.head(torch.zeros(1, 4)).detach()), float(policy.free_log_std().exp())
    assert fitted[True] == pytest.approx((1.0, 0.5), abs=0.04)
    assert fitted[False][0] == pytest.approx(float(recorded.mean()), abs=0.04)


@pytest.mark.parametrize("name", [name for name in POLICIES if name.startswith("gaussian")])
def test_gaussian_matches_torch_distributions(name):
    policy = build(name).double()
    space = policy.action_space
    observation, action = torch.from_numpy(observations(VECTOR)), actions(space).double()
    head = policy.head(observation)
    if policy.log_std is None:
        mean, raw = head[:, : policy.act_dim], head[:, policy.act_dim :]
        assert raw.abs().max() < 2.0  # beyond, soft_tanh differs from tanh
        log_std = (torch.tanh(raw) + 1) / 2 * (LOG_STD_MAX - LOG_STD_MIN) + LOG_STD_MIN
    else:
        mean, log_std = head, policy.log_std.expand_as(head)
    low, high = (torch.from_numpy(bound.astype(np.float64).ravel()) for bound in (space.low, space.high))
    bounded = low.isfinite() & high.isfinite()
    inside = torch.zeros_like(low).clamp(low + 1, high - 1)  # one unit inside the finite bounds
    center = torch.where(bounded, (low + high) / 2, inside)
    scale = torch.where(bounded, (high - low) / 2, 1.0)
    reference = Independent(Normal(center + scale * mean, scale * log_std.exp()), 1)
    torch.testing.assert_close(policy.log_prob(observation, action), reference.log_prob(action.flatten(1)))
    torch.testing.assert_close(policy.loss(observation, action), -reference.log_prob(action.flatten(1)))
    torch.testing.assert_close(policy.entropy(observation), reference.entropy())
    mode = torch.clamp(reference.mean, low, high).reshape(-1, *space.shape)
    torch.testing.assert_close(policy.act(observation), mode)


@pytest.mark.parametrize("std", ["free", "state"])
def test_gaussian_samples_match_density(std):
    policy = build("gaussian-unbounded", std=std)
    observation = torch.from_numpy(observations(VECTOR, 1)).expand(40_000, -1)
    draws = policy.act(observation, deterministic=False).detach().double()
    mean, log_std = policy.mean_and_log_std(policy.head(observation[:1]))
    mean, sigma = mean[0].double().detach(), log_std.exp().double().detach().reshape(-1, 2)[0]
    error = sigma / math.sqrt(len(draws))
    assert ((draws.mean(0) - mean).abs() < 4.5 * error).all()
    assert ((draws.std(0) - sigma).abs() < 4.5 * error).all()


def test_gaussian_std_stays_in_range():
    free, state = build("gaussian-free"), build("gaussian-state", gain=50.0)
    observation = torch.from_numpy(observations(VECTOR)) * 100
    for value, wanted in ((-50.0, LOG_STD_MIN), (50.0, LOG_STD_MAX)):
        nn.init.constant_(free.log_std, value)
        log_std = free.mean_and_log_std(free.head(observation))[1]
        assert ((log_std - wanted).abs() < 0.025).all()
        assert ((log_std > LOG_STD_MIN) & (log_std < LOG_STD_MAX)).all()
    for value in (-3.9, 0.0, 0.9):  # the usual range is unchanged
        nn.init.constant_(free.log_std, value)
        assert torch.equal(free.mean_and_log_std(observation)[1], free.log_std)
    log_std = state.mean_and_log_std(state.head(observation))[1]
    assert log_std.min() >= LOG_STD_MIN
    assert log_std.max() <= LOG_STD_MAX
    assert log_std.max() - log_std.min() > 6  # both ends are reached


@pytest.mark.parametrize("raw", [-300.0, -50.0, -9.0, -5.0, -4.0, 0.0, 1.0, 2.0, 3.0, 60.0])
@pytest.mark.parametrize("name", ["gaussian-free", "gaussian-state", "squashed"])
def test_std_gradient_never_vanishes(name, raw):
    policy = build(name).double()

    def log_std(value):
        value = torch.as_tensor(value, dtype=torch.float64)
        if getattr(policy, "log_std", None) is not None:
            policy.log_std.data.fill_(value)
            return policy.mean_and_log_std(torch.zeros(1, policy.act_dim))[1].flatten()[0]
        head = torch.cat([torch.zeros(1, policy.act_dim), value.expand(1, policy.act_dim)], 1)
        return policy.mean_and_log_std(head)[1].flatten()[0]

    h = 1e-5 * max(1.0, abs(raw))
    slope = float((log_std(raw + h) - log_std(raw - h)).detach() / (2 * h))
    assert slope > 1e-7
    x = torch.tensor(raw, dtype=torch.float64, requires_grad=True)
    if getattr(policy, "log_std", None) is None:
        (gradient,) = torch.autograd.grad(log_std(x), x)
    else:
        policy.log_std.data.fill_(raw)
        (gradients,) = torch.autograd.grad(policy.mean_and_log_std(torch.zeros(1))[1][0], policy.log_std)
        gradient = gradients[0]
    assert float(gradient) == pytest.approx(slope, rel=1e-4)
    # In float32 too, where tanh has no gradient beyond 9.
    single = torch.tensor(raw, requires_grad=True)
    bound = (
        soft_tanh(single) if getattr(policy, "log_std", None) is None else soft_bound(single, LOG_STD_MIN, LOG_STD_MAX)
    )
    (gradient,) = torch.autograd.grad(bound, single)
    assert float(gradient) > 1e-7


@pytest.mark.slow
def test_saturated_std_recovers():
    """Demonstrations without noise drive σ to its bound; noisy ones have to move it back."""
    torch.manual_seed(0)
    policy = GaussianPolicy(VECTOR, Box(-1, 1, (1,), np.float32), hidden_sizes=(8,))
    optimizer = torch.optim.Adam(policy.parameters(), 0.02)

    def clone(noise, steps):
        for _ in range(steps):
            x = torch.randn(64, 4)
            action = 0.3 + noise * torch.randn(64, 1)
            optimizer.zero_grad()
            policy.mean_loss(x, action).backward()
            optimizer.step()
        return float(policy.free_log_std().exp().detach())

    assert clone(0.0, 1000) < 0.02
    assert float(policy.log_std) < -5.0
    assert clone(0.5, 2000) == pytest.approx(0.5, rel=0.2)


@pytest.mark.parametrize("std", [0.0068, 0.01, 0.2, 1.0, 3.0, 7.38])
def test_std_can_be_set(std):
    policy = build("gaussian-free")
    policy.set_std(std)
    np.testing.assert_allclose(policy.free_log_std().exp().detach(), std, rtol=1e-4)


@pytest.mark.parametrize("std", [0.0, 0.0067, 7.4, math.inf, math.nan])
def test_out_of_range_std_raises(std):
    with pytest.raises(ConfigError, match=r"standard deviation .* is outside its range"):
        build("gaussian-free").set_std(std)
    with pytest.raises(ConfigError, match="std: state"):
        build("gaussian-state").set_std(1.0)


# Action units.


def test_ordinary_bounds_define_units():
    space = Box(np.float32([-2.0, 0.0, -1.0, 5.0]), np.float32([2.0, 10.0, 1.0, 5.0]))
    used = np.float32([[-0.3, 2.0, 0.0, 5.0], [0.3, 9.0, 0.0, 5.0]])  # narrow, wide, constant, single-valued
    for units in (action_units(space), action_units(space, used)):
        np.testing.assert_array_equal(units.center, [0.0, 5.0, 0.0, 5.0])
        np.testing.assert_array_equal(units.scale, [2.0, 5.0, 1.0, 1.0])
        assert units.bounded.all()


def test_huge_bounds_have_unit_scale():
    top = np.finfo(np.float32).max
    space = Box(np.float32([-np.inf, 0.0, -np.inf, -top, 0.0, 1e8]), np.float32([np.inf, np.inf, -7.0, top, 1e10, top]))
    units = action_units(space)
    np.testing.assert_array_equal(units.center, [0.0, 1.0, -8.0, 0.0, 1.0, 1e8 + 1])
    np.testing.assert_array_equal(units.scale, np.ones(6))
    assert not units.bounded.any()


@pytest.mark.parametrize("bound", [1e4, 1e7, 1e20, float(np.finfo(np.float32).max), math.inf])
def test_demonstrations_define_units_in_wide_bounds(bound):
    space = Box(-bound, bound, (2,), np.float32)
    used = np.float32([[1.0, 7.0], [3.0, 7.0], [2.0, 7.0]])
    units = action_units(space, used)
    np.testing.assert_allclose(units.center, [2.0, 7.0])
    np.testing.assert_allclose(units.scale, [1.0, 1.0])
    assert not units.bounded.any()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gaussian-free", "mse", "ensemble", "squashed"])
def test_cloning_does_not_depend_on_wide_bounds(name):
    cls = {"ensemble": EnsemblePolicy, "mse": DeterministicPolicy, "squashed": SquashedGaussianPolicy}.get(
        name, GaussianPolicy
    )
    x = torch.randn(512, 4, generator=torch.Generator().manual_seed(0))
    action = torch.stack([x[:, 0].tanh(), 0.5 * (x[:, 1] + x[:, 2]).sin()], 1)

    def error(bound):
        torch.manual_seed(1)
        policy = cls(VECTOR, Box(-bound, bound, (2,), np.float32), hidden_sizes=(64,))
        policy.fit_normalizer(x, action)
        optimizer = torch.optim.Adam(policy.parameters(), 3e-3)
        for _ in range(300):
            optimizer.zero_grad()
            policy.mean_loss(x, action).backward()
            optimizer.step()
        assert policy(x, deterministic=False).abs().max() < 5.0
        return float((policy(x) - action).abs().mean())

    ordinary = error(1.0)
    assert ordinary < 0.1
    wide = [1e4, 4e5] if name == "squashed" else [1e4, 1e12, float(np.finfo(np.float32).max), math.inf]
    for bound in wide:
        assert error(bound) < 1.5 * ordinary + 0.02


def test_action_units_round_trip():
    space = Box(-1e6, 1e6, (2,), np.float32)
    policy = GaussianPolicy(VECTOR, space)
    policy.fit_normalizer(torch.randn(50, 4), torch.randn(50, 2))
    again = GaussianPolicy(VECTOR, space)
    again.load_state_dict(policy.state_dict())
    x = torch.randn(9, 4)
    assert torch.equal(again(x), policy(x))
    assert all(value.isfinite().all() for value in GaussianPolicy(VECTOR, UNBOUNDED).state_dict().values())


@pytest.mark.parametrize("bound", [math.inf, 1e30])
def test_squashed_gaussian_needs_bounded_box(bound):
    with pytest.raises(UnsupportedSpaceError, match=r"finite bounds.*use GaussianPolicy, or rescale"):
        SquashedGaussianPolicy(VECTOR, Box(-bound, bound, (2,), np.float32))


# Categorical.


@pytest.mark.parametrize("name", ["categorical", "categorical-start"])
def test_categorical_matches_torch_distributions(name):
    policy = build(name, gain=3.0).double()
    space = policy.action_space
    observation, action = torch.from_numpy(observations(VECTOR, 30)), actions(space, 30)
    logits = policy.head(observation).detach().numpy()
    index = action.numpy() - space.start
    assert set(index) == set(range(space.n))
    plain = [math.log(sum(math.exp(z) for z in row)) - row[i] for row, i in zip(logits, index, strict=True)]
    np.testing.assert_allclose(policy.loss(observation, action).detach().numpy(), plain, rtol=1e-10)
    np.testing.assert_allclose(policy.log_prob(observation, action).detach().numpy(), -np.array(plain), rtol=1e-10)
    entropy = Categorical(logits=torch.from_numpy(logits)).entropy()
    torch.testing.assert_close(policy.entropy(observation).detach(), entropy)
    assert policy.act(observation).tolist() == (logits.argmax(1) + space.start).tolist()


def test_categorical_samples_match_softmax():
    policy = build("categorical-start", gain=2.0)
    observation = torch.from_numpy(observations(VECTOR, 1)).expand(20_000, -1)
    probability = policy.head(observation[:1]).softmax(-1)[0].detach().numpy()
    counts = np.bincount(policy.act(observation, deterministic=False).numpy() - 3, minlength=5)
    assert len(counts) == 5
    wanted = len(observation) * probability
    assert ((counts - wanted) ** 2 / wanted).sum() < 24  # χ² with 4 degrees of freedom: 1 in 10⁴


# Regression losses.


def residuals(policy, observation, action):
    low, high = policy.action_space.low.astype(np.float64), policy.action_space.high.astype(np.float64)
    z = policy.head(observation).detach().numpy()
    if not np.isfinite(low).all():
        return action.numpy() - z
    return (action.numpy() - (low + high) / 2) / ((high - low) / 2) - np.tanh(z)


@pytest.mark.parametrize("space", [ASYMMETRIC, UNBOUNDED], ids=["bounded", "unbounded"])
def test_regression_losses_match_formulas(space):
    observation = torch.from_numpy(observations(VECTOR, 40))
    for regression in ("mse", "huber", "log_cosh"):
        torch.manual_seed(0)
        policy = DeterministicPolicy(VECTOR, space, regression=regression, huber_delta=0.3, hidden_sizes=(8,)).double()
        action = actions(space, 40).double()
        r = residuals(policy, observation, action)
        assert (np.abs(r) < 0.3).any()
        assert (np.abs(r) > 0.3).any()
        plain = {
            "mse": r**2,
            "huber": np.where(np.abs(r) <= 0.3, r**2 / 2, 0.3 * (np.abs(r) - 0.15)),
            "log_cosh": np.log(np.cosh(r)),
        }[regression]
        got = policy.loss(observation, action).detach().numpy()
        np.testing.assert_allclose(got, plain.sum(1), rtol=1e-9)
        if regression == "huber":
            np.testing.assert_allclose(got, scipy.special.huber(0.3, r).sum(1), rtol=1e-9)


@pytest.mark.parametrize("name", ["multi-categorical", "multi-categorical-start"])
def test_multi_categorical_is_product_of_categoricals(name):
    policy, other = build(name, gain=4.0).double(), build(name, seed=1, gain=4.0).double()
    space = policy.action_space
    x = torch.randn(30, 4, dtype=torch.float64)
    head, sizes = policy.head(x), space.nvec.tolist()
    parts = [Categorical(logits=logits) for logits in head.split(sizes, -1)]
    other_parts = [Categorical(logits=logits) for logits in other.head(x).split(sizes, -1)]
    action = torch.from_numpy(np.stack([space.sample() for _ in range(30)]))
    index = action - torch.from_numpy(space.start)
    log_prob = sum(part.log_prob(index[:, i]) for i, part in enumerate(parts))
    torch.testing.assert_close(policy.log_prob(x, action), log_prob)
    torch.testing.assert_close(policy.loss(x, action), -log_prob)
    torch.testing.assert_close(policy.entropy(x), sum(part.entropy() for part in parts))
    divergence = sum(kl_divergence(p, q) for p, q in zip(parts, other_parts, strict=True))
    torch.testing.assert_close(policy.head_kl(head, other, other.head(x)), divergence)
    # The probabilities of all actions sum to one.
    every = torch.cartesian_prod(*(torch.arange(n) for n in sizes)) + torch.from_numpy(space.start)
    total = policy.head_log_prob(head[:1].expand(len(every), -1), every).exp().sum()
    assert float(total.detach()) == pytest.approx(1.0)
    mode = policy.act(x)
    assert all(space.contains(action) for action in mode.numpy())
    assert (policy.log_prob(x, mode) >= policy.log_prob(x, action)).all()
    samples = policy.sample(head[:1].expand(20_000, -1))
    assert all(space.contains(action) for action in samples[:50].numpy())
    for i, part in enumerate(parts):
        share = torch.bincount(samples[:, i] - int(space.start[i]), minlength=sizes[i]) / len(samples)
        np.testing.assert_allclose(share, part.probs[0].detach(), atol=0.015)


DENSITIES = [name for name, (cls, *_) in POLICIES.items() if cls is not DeterministicPolicy]


@pytest.mark.parametrize("name", DENSITIES)
def test_head_methods_match_policy_methods(name):
    policy = build(name, gain=2.0)
    x = torch.randn(40, 4)
    head = policy.head(x)
    action = policy.sample(head)
    assert action.shape[1:] == policy.action_space.shape
    torch.testing.assert_close(policy.head_log_prob(head, action), policy.log_prob(x, action))
    torch.testing.assert_close(-policy.head_log_prob(head, action), policy.loss(x, action))
    torch.testing.assert_close(policy.loss(x, action).mean(), policy.mean_loss(x, action))
    torch.testing.assert_close(policy.head_entropy(head), policy.entropy(x))
    torch.testing.assert_close(policy.head_kl(head, policy, head), torch.zeros(40), atol=1e-6, rtol=0)
    assert (policy.head_kl(head, policy, head.roll(1, 0)) >= -1e-6).all()
    torch.manual_seed(3)
    samples = policy.sample(head)
    torch.manual_seed(3)
    torch.testing.assert_close(policy.clip(samples), policy.act(x, deterministic=False))
    assert all(
        policy.action_space.contains(one)
        for one in policy.clip(samples).detach().numpy().astype(policy.action_space.dtype)
    )
    torch.manual_seed(3)
    np.testing.assert_allclose(policy.explorer().act(x.numpy()), policy.clip(samples).detach(), rtol=1e-5, atol=1e-5)


def test_log_cosh_limits():
    policy = DeterministicPolicy(VECTOR, UNBOUNDED, regression="log_cosh", hidden_sizes=())
    for parameter in policy.parameters():
        nn.init.zeros_(parameter)
    action = torch.tensor([[0.0, 0.0], [1e-2, 0.0], [1e5, 0.0], [-1e30, 1e30]])
    loss = policy.loss(torch.zeros(4, 4), action)
    assert loss[0].item() == pytest.approx(0, abs=1e-7)
    assert loss[1].item() == pytest.approx(0.5e-4, abs=2e-7)  # tolerance for subtracting log 2 in float32
    assert loss[2].item() == pytest.approx(1e5 - math.log(2))
    assert loss[3].item() == pytest.approx(2e30)
    loss.sum().backward()
    assert policy.network.layers[-1].bias.grad.isfinite().all()


def test_deterministic_policy_has_no_distribution():
    with pytest.raises(TypeError, match="DeterministicPolicy has no distribution"):
        build("mse").entropy(torch.zeros(1, 4))


class MethodModule(nn.Module):
    """Module whose forward calls a method of a policy, for `functional_call`."""

    def __init__(self, policy, method):
        super().__init__()
        self.policy, self.method = policy, method

    def forward(self, *inputs):
        return getattr(self.policy, self.method)(*inputs)


@pytest.mark.integration
@pytest.mark.parametrize("name", POLICIES)
def test_gradients_match_finite_differences(name):
    policy = build(name, hidden_sizes=(5,), activation="tanh").double()
    policy.fit_normalizer(torch.from_numpy(observations(VECTOR)))
    observation, action = torch.from_numpy(observations(VECTOR, 4, seed=1)), actions(policy.action_space, 4, seed=1)
    names, parameters = zip(*policy.named_parameters(), strict=True)
    parameters = tuple(parameter.detach().clone().requires_grad_() for parameter in parameters)

    def of(method, *inputs):
        module = MethodModule(policy, method)

        def function(*values):
            state = {f"policy.{name}": value for name, value in zip(names, values, strict=True)}
            return functional_call(module, state, inputs)

        return function

    action = action.double() if action.is_floating_point() else action
    assert torch.autograd.gradcheck(of("loss", observation, action), parameters)
    if not isinstance(policy, DeterministicPolicy):
        assert torch.autograd.gradcheck(of("entropy", observation), parameters)


# Actions.


@pytest.mark.parametrize("cls", [GaussianPolicy, DeterministicPolicy])
def test_box_maps_to_unit_cube(cls):
    policy = cls(VECTOR, ASYMMETRIC)
    u = torch.tensor([[-1.0, -1, -1], [1, 1, 1], [0, 0, 0], [-5, 5, 0.5]])
    action = policy.to_action(u)
    torch.testing.assert_close(action[0], torch.from_numpy(ASYMMETRIC.low))
    torch.testing.assert_close(action[1], torch.from_numpy(ASYMMETRIC.high))
    torch.testing.assert_close(action[2], torch.tensor([1.25, 2.25, -4.0]))
    torch.testing.assert_close(action[3], torch.tensor([-0.5, 2.5, -2.5]))  # clipped, clipped, inside
    torch.testing.assert_close(policy.from_action(action), u.clamp(-1, 1), atol=1e-5, rtol=0)


def test_matrix_actions_keep_their_order():
    space = Box(np.float32([[0, 10, 20], [30, 40, 50]]), np.float32([[1, 11, 21], [31, 41, 51]]))
    policy = GaussianPolicy(VECTOR, space)
    torch.testing.assert_close(policy.to_action(torch.zeros(2, 6))[1], torch.from_numpy(space.low + 0.5))
    u = torch.linspace(-1, 1, 12).reshape(2, 6)
    torch.testing.assert_close(policy.from_action(policy.to_action(u)), u, atol=1e-4, rtol=0)


# Float64 bounds with float32 numbers between them.
bounds = st.tuples(
    st.just(-np.inf) | st.floats(-1e4, 1e4, allow_subnormal=False), st.just(np.inf) | st.floats(0.01, 1e4)
)


@pytest.mark.parametrize("cls", [GaussianPolicy, DeterministicPolicy])
@settings(max_examples=8, deadline=None)
@given(
    limits=st.lists(bounds, min_size=1, max_size=3),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 99),
)
def test_actions_lie_in_box(cls, limits, dtype, seed):
    low = np.array([low for low, _ in limits], dtype)
    high = np.where(np.isinf(low), 0, low) + np.array([width for _, width in limits], dtype)
    space = Box(low, high, dtype=dtype)
    torch.manual_seed(seed)
    policy = cls(VECTOR, space, hidden_sizes=(4,))
    for parameter in policy.parameters():
        nn.init.normal_(parameter, std=5.0)
    observation = np.random.default_rng(seed).normal(size=(20, 4)).astype(np.float32) * 10
    for deterministic in (True, False):
        for action in (policy(observation, deterministic), policy.actor(deterministic).act(observation)):
            assert action.shape == (20, len(limits))
            assert all(space.contains(row) for row in action)
    loss = policy.loss(torch.from_numpy(observation), torch.from_numpy(action))
    assert loss.isfinite().all()


def test_float64_bounds_are_respected_in_float32():
    """float32(0.1) > 0.1: a float64 box would reject an action clipped to it."""
    space = Box(-0.1, 0.1, (2,), np.float64)
    policy = GaussianPolicy(VECTOR, space)
    nn.init.constant_(policy.log_std, 2.0)
    samples = policy(np.zeros((200, 4), np.float32), deterministic=False)
    assert all(space.contains(action) for action in samples)
    assert np.abs(samples).max() == pytest.approx(0.1, rel=1e-6)


def test_single_valued_dimension_is_harmless():
    policy = GaussianPolicy(VECTOR, Box(np.float32([0, 1]), np.float32([1, 1])))
    action = policy(np.zeros((9, 4), np.float32), deterministic=False)
    assert (action[:, 1] == 1).all()
    loss = policy.loss(torch.zeros(9, 4), torch.from_numpy(action))
    loss.sum().backward()
    assert loss.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in policy.parameters())


@pytest.mark.parametrize("name", ["categorical", "categorical-start"])
def test_discrete_actions_lie_in_space(name):
    policy = build(name, gain=5.0)
    for deterministic in (True, False):
        samples = policy(observations(VECTOR, 300), deterministic)
        assert samples.dtype == np.int64
        assert all(policy.action_space.contains(action) for action in samples)
        assert len(set(samples.tolist())) > 1


def test_wrong_action_space_raises():
    with pytest.raises(UnsupportedSpaceError, match=r"CategoricalPolicy needs a Discrete action space.*Box"):
        CategoricalPolicy(VECTOR, ASYMMETRIC)
    for space in (Discrete(3), MultiDiscrete([[2, 3]])):
        with pytest.raises(
            UnsupportedSpaceError, match=r"MultiCategoricalPolicy needs a flat MultiDiscrete action space"
        ):
            MultiCategoricalPolicy(VECTOR, space)
    for cls in (GaussianPolicy, DeterministicPolicy):
        with pytest.raises(UnsupportedSpaceError, match=rf"{cls.__name__} needs a Box action space.*Discrete\(3\)"):
            cls(VECTOR, Discrete(3))


def test_invalid_networks_raise():
    for sizes in ([0], [8, -3]):
        with pytest.raises(ConfigError, match=r"CategoricalPolicy: hidden_sizes is \["):
            CategoricalPolicy(VECTOR, Discrete(3), hidden_sizes=sizes)
    for dropout in (-0.1, 1.0, float("nan")):
        with pytest.raises(ConfigError, match=r"GaussianPolicy: dropout is .*; it must (lie in \[0, 1\)|be a number)"):
            GaussianPolicy(VECTOR, ASYMMETRIC, dropout=dropout)


def test_default_policy_follows_action_space():
    assert type(default_policy(VECTOR, Discrete(2))) is CategoricalPolicy
    assert type(default_policy(VECTOR, MultiDiscrete([2, 3]))) is MultiCategoricalPolicy
    assert type(default_policy(VECTOR, ASYMMETRIC)) is GaussianPolicy


# Interfaces: policy(observation), act, actor.


@pytest.mark.grid
@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("space_name", OBSERVATIONS)
def test_call_accepts_numpy_and_torch_single_and_batched(name, space_name):
    space = OBSERVATIONS[space_name]
    policy = build(name, space)
    batch = observations(space)
    shape = policy.action_space.shape
    acted = policy(batch)
    assert isinstance(acted, np.ndarray)
    assert acted.shape == (7, *shape)
    assert acted.dtype == (np.int64 if isinstance(policy.action_space, Discrete | MultiDiscrete) else np.float32)

    tensor = policy(torch.from_numpy(batch))
    assert isinstance(tensor, torch.Tensor)
    np.testing.assert_array_equal(tensor.numpy(), acted)
    single = policy(batch[2])
    assert type(single) is (int if isinstance(policy.action_space, Discrete) else np.ndarray)
    assert np.shape(single) == shape
    np.testing.assert_allclose(single, acted[2], rtol=1e-4, atol=1e-5)
    single = policy(torch.from_numpy(batch)[2])
    assert single.shape == shape
    np.testing.assert_allclose(single.numpy(), acted[2], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(policy(batch.tolist()), acted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(policy(batch[2].tolist()), acted[2], rtol=1e-4, atol=1e-5)
    assert policy(batch[:0]).shape == (0, *shape)


def test_call_accepts_views_and_other_dtypes():
    policy = build("mse")
    batch = observations(VECTOR)
    acted = policy(batch)
    np.testing.assert_allclose(policy(batch[::-1]), acted[::-1], rtol=1e-5)
    np.testing.assert_allclose(policy(np.asfortranarray(batch)), acted, rtol=1e-5)
    np.testing.assert_allclose(policy(batch.astype(np.float64)), acted, rtol=1e-5)


def test_result_of_call_can_enter_a_loss():
    teacher, pupil = build("categorical"), build("categorical", seed=1)
    observation = torch.from_numpy(observations(VECTOR))
    target = teacher(observation)
    assert not target.requires_grad
    pupil.loss(observation, target).sum().backward()


@pytest.mark.parametrize(
    ("space_name", "shape"),
    [
        ("vector", (3,)),
        ("vector", (2, 5)),
        ("vector", (2, 2, 4)),
        ("vector", ()),
        ("matrix", (3, 2)),
        ("matrix", (6,)),
        ("discrete", (2, 2)),
        ("image-last", (3, 32, 30)),
    ],
)
def test_wrong_shape_raises(space_name, shape):
    policy = build("mse", OBSERVATIONS[space_name])
    dtype = OBSERVATIONS[space_name].dtype
    for observation in (np.zeros(shape, dtype), torch.from_numpy(np.zeros(shape, dtype))):
        with pytest.raises(ValueError, match="expected") as caught:
            policy(observation)
        assert str(list(shape)) in str(caught.value)
        assert str(list(policy.observation_space.shape)) in str(caught.value)


@pytest.mark.parametrize("name", ["categorical", "gaussian-free", "mse"])
def test_dropout_is_active_only_in_training(name):
    policy = build(name, dropout=0.5).train()
    observation, action = torch.from_numpy(observations(VECTOR)), actions(policy.action_space)
    losses = [policy.loss(observation, action) for _ in range(2)]
    assert not torch.equal(*losses)
    first, again = policy(observation), policy(observation)
    assert policy.training
    assert torch.equal(first, again)
    from_actor = policy.actor().act(observation.numpy())
    policy.eval()
    assert torch.equal(first, policy.act(observation))
    np.testing.assert_allclose(from_actor, first.numpy(), rtol=1e-5, atol=1e-6)
    policy(observation)
    assert not policy.training
    assert torch.equal(policy.loss(observation, action), policy.loss(observation, action))


def assert_actor_matches_act(policy, actor, deterministic):
    batch = observations(policy.observation_space, 5)
    torch.manual_seed(3)
    with torch.no_grad():
        wanted = policy.act(torch.from_numpy(batch), deterministic).numpy()
    torch.manual_seed(3)
    got = actor.act(batch)
    assert got.dtype == wanted.dtype
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.grid
@pytest.mark.parametrize("deterministic", [True, False], ids=["mode", "draw"])
@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("space_name", OBSERVATIONS)
def test_actor_matches_act(space_name, name, deterministic):
    space = OBSERVATIONS[space_name]
    policy = build(name, space).eval()
    policy.fit_normalizer(torch.from_numpy(observations(space, 50, seed=9)))
    assert_actor_matches_act(policy, policy.actor(deterministic), deterministic)


@pytest.mark.grid
@pytest.mark.parametrize("hidden_sizes", [(), (7,), (9, 8, 7)], ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_actor_matches_act_for_every_activation(activation, hidden_sizes):
    for name in ("categorical", "gaussian-state", "mse"):
        policy = build(name, gain=2.0, activation=activation, hidden_sizes=hidden_sizes)
        policy.fit_normalizer(torch.from_numpy(observations(VECTOR, 50, seed=9)) * 3 + 1)
        assert_actor_matches_act(policy, policy.actor(), True)


def test_activations_match_their_names():
    modules = [nn.ReLU(), nn.Tanh(), nn.GELU(), nn.SiLU(), nn.ELU(), nn.LeakyReLU()]
    x = torch.from_numpy(observations(VECTOR))
    for activation, module in zip(ACTIVATIONS, modules, strict=True):
        policy = build("mse", activation=activation, hidden_sizes=(6, 5), gain=2.0)
        layers = policy.network.layers
        plain = nn.Sequential(layers[0], module, layers[1], module, layers[2])
        torch.testing.assert_close(policy.head(x), plain(x))


def test_actor_sees_later_training():
    policy = build("gaussian-free")
    actor = policy.actor()
    batch = observations(VECTOR, 5)
    before = actor.act(batch)
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)
    policy.loss(torch.from_numpy(batch), actions(ASYMMETRIC, 5)).sum().backward()
    optimizer.step()
    policy.fit_normalizer(torch.randn(30, 4) * 4 + 2)
    assert not np.allclose(actor.act(batch), before)
    assert_actor_matches_act(policy, actor, True)


def test_actor_does_not_change_its_input():
    batch = observations(VECTOR, 5)
    copy = batch.copy()
    for name in POLICIES:
        policy = build(name)
        policy.actor(deterministic=False).act(batch)
        policy(batch)
        np.testing.assert_array_equal(batch, copy)


# Input standardization.


def test_standardize_fits_mean_and_std():
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(500, 4)) * [1, 0.01, 300, 2] + [0, 5, -40, 0.1]).astype(np.float32)
    policy = build("mse")
    policy.fit_normalizer(torch.from_numpy(x))
    mean, std = x.astype(np.float64).mean(0), x.astype(np.float64).std(0)
    standardize = policy.encoder.standardize
    np.testing.assert_allclose(standardize.mean.numpy(), mean, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(standardize.inverse_std.numpy(), 1 / std, rtol=1e-6)
    np.testing.assert_allclose(policy.encoder(torch.from_numpy(x)).numpy(), (x - mean) / std, rtol=1e-4, atol=1e-4)


def test_constant_features_are_only_centered():
    x = torch.randn(100, 4)
    x[:, 1] = 0.1
    x[:, 2] = -3e8
    x[:, 3] = 0
    standardize = Standardize(4)
    standardize.fit(x)
    out = standardize(x)
    assert out[:, 0].std(unbiased=False).item() == pytest.approx(1, abs=1e-5)
    assert out[:, 1:].abs().max() < 1e-6
    assert (standardize.inverse_std[1:] == 1).all()
    # Variation from float32 rounding of a large number is not a signal either.
    nearly = torch.full((100, 1), 1e7).add_(torch.randint(0, 2, (100, 1)))
    standardize = Standardize(1)
    standardize.fit(nearly)
    assert standardize.inverse_std.item() == 1


def test_small_deviation_around_large_mean():
    """The float32 sum of squares would lose it: 1e6² + 25 = 1e6²."""
    x = (1e6 + 5 * np.random.default_rng(0).normal(size=(1000, 1))).astype(np.float32)
    standardize = Standardize(1)
    standardize.fit(torch.from_numpy(x))
    std = x.astype(np.float64).std()
    assert standardize.inverse_std.item() == pytest.approx(1 / std, rel=1e-6)
    out = standardize(torch.from_numpy(x)).double()
    assert out.mean().item() == pytest.approx(0, abs=0.0625 / std)  # float32 spacing at 1e6
    assert out.std(unbiased=False).item() == pytest.approx(1, rel=1e-5)


def test_small_scales_are_scaled_up():
    x = torch.randn(1000, 1) * 2e-3
    standardize = Standardize(1)
    standardize.fit(x)
    assert standardize(x).std(unbiased=False).item() == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("std", [1e-3, 9e-4, 1e-5, 2e-6, 1e-7, 0.0])
def test_nearly_constant_inputs_are_not_blown_up(std):
    x = 0.5 + std * torch.randn(1000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    standardize = Standardize(1)
    standardize.fit(x)
    assert standardize.inverse_std.item() <= 1001.0
    assert standardize(torch.tensor([[1.0], [-1e9], [1e30]])).abs().max() <= 10.0


def test_standardized_inputs_are_always_clipped():
    policy = build("mse")
    far = 1e4 * np.float32([[1, -1, 1, -1]])
    plain = policy.encoder(torch.from_numpy(far))
    assert torch.equal(plain, torch.from_numpy(far))  # not clipped before statistics are fitted
    policy.fit_normalizer(torch.randn(100, 4))
    assert policy.encoder(torch.from_numpy(far)).tolist() == [[10, -10, 10, -10]]
    np.testing.assert_array_equal(policy.encoder.inference()(far), [[10, -10, 10, -10]])
    near = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    standardize = policy.encoder.standardize
    plain = (near - standardize.mean.numpy()) * standardize.inverse_std.numpy()
    np.testing.assert_array_equal(policy.encoder(torch.from_numpy(near)).numpy(), plain)


@pytest.mark.parametrize("name", ["discrete", "discrete-start", "image-last", "image-first"])
def test_images_and_discrete_inputs_are_not_standardized(name):
    space = OBSERVATIONS[name]
    policy = build("mse", space)
    before = {key: value.clone() for key, value in policy.state_dict().items()}
    policy.fit_normalizer(torch.from_numpy(observations(space, 20)))
    assert all(torch.equal(value, before[key]) for key, value in policy.state_dict().items())


def test_discrete_observations_are_one_hot():
    policy = build("mse", Discrete(4, start=-1))
    features = policy.encoder(torch.tensor([-1, 0, 1, 2]))
    assert torch.equal(features, torch.eye(4))


def test_matrices_are_flattened_before_standardization():
    space = OBSERVATIONS["matrix"]
    x = torch.from_numpy(observations(space, 40))
    policy = build("mse", space)
    policy.fit_normalizer(x)
    np.testing.assert_allclose(policy.encoder.standardize.mean, x.double().mean(0).flatten(), rtol=1e-5, atol=1e-7)


def test_image_encoder_reads_both_channel_orders():
    last, first = build("mse", OBSERVATIONS["image-last"]), build("mse", OBSERVATIONS["image-first"])
    first.load_state_dict(last.state_dict())
    images = observations(OBSERVATIONS["image-last"])
    np.testing.assert_allclose(last(images), first(images.transpose(0, 3, 1, 2)), rtol=1e-5, atol=1e-6)
    assert np.ptp(last(images), axis=0).min() > 0  # and depends on them


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 9, 9), (9, 9, 1), (5, 4, 3), (84, 84, 4), (210, 160, 3)], ids=str)
def test_image_encoder_accepts_any_size(shape):
    policy = build("categorical", Box(0, 255, shape, np.uint8), encoder="image")
    assert policy(np.zeros((2, *shape), np.uint8)).shape == (2,)


@pytest.mark.parametrize(
    ("low", "high", "dtype"), [(0, 255, np.uint8), (0, 1, np.float32), (0, 255, np.float64), (-1, 1, np.float32)]
)
def test_images_are_scaled_to_unit_range(low, high, dtype):
    policy = build("mse", Box(low, high, (3, 32, 30), dtype))
    for value, wanted in ((high, 1.0), (low, 0.0)):
        image = torch.from_numpy(np.full((1, 3, 32, 30), value, dtype))
        layers = policy.encoder.encode.layers
        torch.testing.assert_close(policy.encoder(image), layers(torch.full((1, 3, 32, 30), wanted)))


IMAGES = {
    "atari": Box(0, 255, (84, 84, 4), np.uint8),
    "gray": Box(0, 255, (84, 84), np.uint8),
    "float channels last": Box(0, 1, (64, 64, 3), np.float32),
    "float channels first": Box(-np.inf, np.inf, (3, 40, 60), np.float64),
    "stack of gray": Box(0, 255, (4, 84, 84), np.uint8),
    "stack of float gray": Box(0, 1, (4, 84, 84), np.float32),
    "stack of colors": Box(0, 255, (4, 64, 48, 3), np.uint8),
    "stack of colors first": Box(0, 1, (4, 3, 64, 48), np.float32),
    "int32": Box(0, 255, (64, 64, 3), np.int32),
}
VECTORS = {
    "minigrid": Box(0, 255, (7, 7, 3), np.uint8),
    "minigrid as a whole": Box(0, 255, (25, 25, 3), np.uint8),
    "codes": Box(0, 10, (32, 32, 3), np.uint8),
    "ram": Box(0, 255, (128,), np.uint8),
    "joint by frame": Box(-np.inf, np.inf, (50, 40), np.float32),
    "few sensors": Box(-1, 1, (5, 6, 3), np.float32),
}


@pytest.mark.parametrize("name", IMAGES)
def test_images_and_stacks_use_convolutions(name):
    space = IMAGES[name]
    policy = build("categorical", space)
    assert policy.encoder.standardize is None
    assert sum(parameter.numel() for parameter in policy.parameters()) < 2_500_000
    batch = observations(space, 3)
    assert policy(batch).shape == (3,)
    assert policy(batch[0]) == policy(batch)[0]
    vector = build("categorical", space, encoder="vector")
    assert vector.encoder.out_features == math.prod(space.shape)
    assert vector(batch).shape == (3,)


@pytest.mark.parametrize("name", VECTORS)
def test_grid_codes_and_tables_are_vectors(name):
    space = VECTORS[name]
    policy = build("categorical", space)
    x = torch.from_numpy(observations(space, 50))
    policy.fit_normalizer(x)
    features = policy.encoder(x)
    assert features.shape == (50, math.prod(space.shape))
    torch.testing.assert_close(features.std(0, unbiased=False), torch.ones(features.shape[1]), atol=1e-3, rtol=0)
    if len(space.shape) > 1:
        assert build("categorical", space, encoder="image")(x.numpy()).shape == (50,)


def test_color_stack_reads_both_channel_orders():
    first = build("mse", Box(0, 255, (2, 3, 32, 30), np.uint8))
    last = build("mse", Box(0, 255, (2, 32, 30, 3), np.uint8))
    first.load_state_dict(last.state_dict())
    images = observations(last.observation_space)
    np.testing.assert_allclose(last(images), first(images.transpose(0, 1, 4, 2, 3)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("space", "kind", "text"),
    [
        (VECTOR, "image", r"encoder is 'image', but the observation space is Box.*\(4,\)"),
        (Discrete(3), "image", r"encoder is 'image', but the observation space is Discrete\(3\)"),
        (VECTOR, "cnn", "encoder is 'cnn'; it must be one of auto, image, resnet18, vector, mlp or a mapping"),
    ],
)
def test_invalid_encoder_raises(space, kind, text):
    with pytest.raises(ConfigError, match=text):
        build("mse", space, encoder=kind)


def test_multi_discrete_observations_are_one_hot():
    policy = build("mse", MultiDiscrete([2, 3], start=[0, -1]))
    features = policy.encoder(torch.tensor([[0, -1], [1, 1]]))
    assert features.tolist() == [[1, 0, 1, 0, 0], [0, 1, 0, 0, 1]]


def test_binary_observations_are_0_and_1():
    policy = build("mse", MultiBinary([2, 2]))
    assert policy.encoder(torch.tensor([[[0, 1], [1, 0]]])).tolist() == [[0, 1, 1, 0]]


# Dict and Tuple observations.

PARTS = Dict(
    place=Box(-1, 1, (2, 2), np.float32),
    inner=Tuple([Discrete(3, start=1), MultiDiscrete([2, 2])]),
    bits=MultiBinary(2),
    angle=Box(-1, 1, (), np.float64),
)


def stack_samples(space, samples):
    if isinstance(space, Dict):
        return {key: stack_samples(inner, [one[key] for one in samples]) for key, inner in space.spaces.items()}
    if isinstance(space, Tuple):
        return tuple(stack_samples(inner, [one[i] for one in samples]) for i, inner in enumerate(space.spaces))
    return np.stack([np.asarray(one) for one in samples])


@pytest.mark.parametrize("original", [PARTS, Tuple([PARTS, Discrete(2)])], ids=["dict", "tuple"])
def test_raw_observations_are_flattened_like_make(original):
    policy = build("gaussian-free", FlatBox(original))
    original.seed(0)
    samples = [original.sample() for _ in range(5)]
    flat = np.stack([flatten(original, one) for one in samples])
    wanted = policy(flat)
    np.testing.assert_allclose(policy(stack_samples(original, samples)), wanted, rtol=1e-5)
    for one, action in zip(samples, wanted, strict=True):
        np.testing.assert_allclose(policy(one), action, rtol=1e-4, atol=1e-6)


CAMERA = Dict([("camera", Box(0, 255, (30, 30, 3), np.uint8)), ("parts", PARTS)])


@pytest.mark.parametrize("name", ["gaussian-free", "mse"])
def test_images_among_raw_observations_are_packed(name):
    policy = build(name, PackedBox(CAMERA), encoder={"camera": {"kind": "image", "features": 8, "crop": 28}})
    CAMERA.seed(0)
    samples = [CAMERA.sample() for _ in range(3)]
    rows = np.stack([policy.observation_space.flatten(one) for one in samples])
    wanted = policy(rows)
    seen = stack_samples(CAMERA, samples)
    np.testing.assert_array_equal(policy(seen), wanted)
    np.testing.assert_array_equal(policy.actor().act(seen), wanted)
    np.testing.assert_array_equal(policy.actor().act(rows), wanted)
    for one, action in zip(samples, wanted, strict=True):
        np.testing.assert_allclose(policy(one), action, rtol=1e-4, atol=1e-6)


def test_actors_flatten_dictionaries():
    policy = build("gaussian-free", FlatBox(PARTS))
    seen = stack_samples(PARTS, [PARTS.sample() for _ in range(3)])
    np.testing.assert_allclose(policy.actor().act(seen), policy(seen), rtol=1e-4, atol=1e-6)


def test_invalid_raw_observations_raise():
    policy = build("gaussian-free", FlatBox(Dict(a=Box(-1, 1, (2,)), b=Discrete(3))))
    for observation, text in (
        ({"a": np.zeros(2)}, "has no 'b'"),
        ({"a": np.zeros(3), "b": 0}, r"observation\['a'\] has shape \[3\]; expected \[2\]"),
        ({"a": np.zeros((4, 2)), "b": 0}, "rows"),
    ):
        with pytest.raises(ValueError, match=text):
            policy(observation)
    with pytest.raises(ValueError, match="is a dictionary"):
        build("gaussian-free")({"a": np.zeros(2)})
