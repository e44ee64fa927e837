"""Flow matching against closed forms."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from heads import ARM, Recorder, make_chunks, make_head

from lit_imitation.policies.flow import integrate

MEAN, STD = 0.7, 0.4


def gaussian_velocity(x, t):
    """E[x_1 − x_0 | x_t = x] for x_1 ~ N(MEAN, STD²): the regression of one Gaussian on another."""
    variance = (1 - t) ** 2 + t**2 * STD**2
    return MEAN + (t * STD**2 - (1 - t)) / variance * (x - t * MEAN)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("midpoint", 2)])
def test_solver_converges_with_its_order(solver, order):
    """The solution of dx/dt = −2 t x² is 1 / (1/x_0 + t²)."""
    x = torch.linspace(0.5, 2, 9, dtype=torch.float64)
    errors = []
    for steps in (64, 128, 256):
        end = integrate(lambda x, t: -2 * t * x.square(), x, steps, solver)
        errors.append(float((end - 1 / (1 / x + 1)).abs().max()))
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.1)


def test_solvers_are_exact_for_constant_velocity():
    x = torch.randn(5, dtype=torch.float64)
    for solver in ("euler", "midpoint"):
        torch.testing.assert_close(integrate(lambda x, t: torch.full_like(x, 0.3), x, 3, solver), x + 0.3)


def test_optimal_velocity_carries_noise_to_data():
    x = torch.randn(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    end = integrate(gaussian_velocity, x, 40, "midpoint")
    assert float(end.mean()) == pytest.approx(MEAN, abs=0.01)
    assert float(end.std()) == pytest.approx(STD, abs=0.01)
    torch.testing.assert_close(end, MEAN + STD * x, atol=1e-3, rtol=0)  # the flow keeps quantiles


def test_loss_matches_plain_loop():
    policy = make_head("flow", horizon=4)
    observation, action = make_chunks(policy, 10)
    policy.fit_normalizer(observation, action)
    mask = torch.rand(10, 4) < 0.7
    policy.network = Recorder(0.3)
    torch.manual_seed(5)
    losses = policy.loss(observation, action, mask)
    ((seen, times),) = policy.network.calls
    lowest, highest = action.amin((0, 1)), action.amax((0, 1))
    data = (2 * action - lowest - highest) / (highest - lowest)
    assert data.amin() == pytest.approx(-1.0, abs=1e-5)
    torch.manual_seed(5)
    noise, times_drawn = torch.randn(10, 4, 3), torch.rand(10)
    assert torch.equal(times, times_drawn)
    squares = data.square().mean((0, 1)).tolist()
    for i in range(10):
        total, t = 0.0, float(times_drawn[i])
        for h in range(4):
            for d in range(3):
                a, b = float(noise[i, h, d]), float(data[i, h, d])
                x, r = (1 - t) * a + t * b, math.sqrt((1 - t) ** 2 + t**2 * squares[d])
                assert float(seen[i, h, d]) == pytest.approx(x / r, abs=1e-4)
                velocity = (t * squares[d] - (1 - t)) / r**2 * x + math.sqrt(squares[d]) / r * 0.3
                total += float(mask[i, h]) * (velocity - (b - a)) ** 2
        assert float(losses[i]) == pytest.approx(total / 4, rel=1e-4)


def test_network_has_nothing_to_learn_from_a_centered_gaussian():
    """The optimal F is 0 for N(0, s²), whose flow ends at s x_0."""
    policy = make_head("flow", steps=200, solver="midpoint")
    policy.fit_normalizer(*make_chunks(policy, 50))
    policy.network = Recorder(0.0)
    x = torch.randn(8, policy.horizon, 3)
    torch.testing.assert_close(policy.denoise(x, torch.zeros(8, 4)), policy.data_rms * x, atol=2e-3, rtol=0)


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_target_of_the_network_has_mean_square_one(t):
    policy = make_head("flow")
    policy.data_rms.fill_(STD)
    noise, data = torch.randn(2, 200_000, 1, generator=torch.Generator().manual_seed(0))
    data = STD * data
    on_x, on_network, deviation = policy.preconditioning(torch.tensor([t]))
    x = torch.lerp(noise, data, t)
    target = (data - noise - on_x[0] * x) / on_network[0]
    assert float((x / deviation[0]).square().mean()) == pytest.approx(1.0, abs=0.01)
    assert float(target.square().mean()) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(("solver", "times"), [("euler", [0, 0.25, 0.5, 0.75]), ("midpoint", np.arange(8) / 8)])
def test_plan_evaluates_network_at_expected_times(solver, times):
    policy = make_head("flow", steps=4, solver=solver)
    policy.network = Recorder()
    policy.plan(torch.zeros(2, 1, 4))
    np.testing.assert_allclose([float(t[0]) for _, t in policy.network.calls], times)


def test_deterministic_plan_begins_at_zero():
    policy = make_head("flow", ARM)
    policy.network = Recorder()
    middle = torch.from_numpy((ARM.low + ARM.high) / 2)
    torch.testing.assert_close(policy.plan(torch.randn(3, 1, 4)), middle.expand(3, 1, 3))
    assert not policy.network.calls[0][0].any()


def test_constant_action_dimension_is_harmless():
    policy = make_head("flow")
    observation, action = make_chunks(policy)
    action[..., 1] = 2.25
    policy.fit_normalizer(observation, action)
    assert policy.loss(observation, action).isfinite().all()
    assert policy.plan(observation, False).isfinite().all()
