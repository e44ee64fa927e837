"""Diffusion against the identities of its schedule and the exact denoisers of simple data."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from heads import Recorder, make_chunks, make_head

from lit_imitation.policies.denoising import DEVIATIONS
from lit_imitation.policies.diffusion import ddim, squared_cosine

MEAN, STD = 0.4, 0.3


def schedule(levels):
    kept = squared_cosine(levels)
    return kept.sqrt(), (1 - kept).sqrt()


@pytest.mark.parametrize("levels", [1, 10, 100, 1000])
def test_schedule_falls_from_one_to_zero(levels):
    kept = squared_cosine(levels)
    assert len(kept) == levels + 1
    assert float(kept[0]) == 1.0
    assert (kept.diff() < 0).all()
    beta = 1 - kept[1:] / kept[:-1]
    assert float(beta.max()) == pytest.approx(0.999)
    assert 0 < float(kept[-1]) < 0.0011


def test_schedule_matches_closed_form():
    """Where no β is clipped, the product telescopes to f(k) / f(0)."""
    kept = squared_cosine(100).numpy()
    f = [math.cos((k / 100 + 0.008) / 1.008 * math.pi / 2) ** 2 for k in range(101)]
    np.testing.assert_allclose(kept[:100], np.array(f[:100]) / f[0], rtol=1e-9)
    assert kept[100] == pytest.approx(0.001 * kept[99])


@pytest.mark.parametrize("levels", [[100, 0], [100, 50, 0], list(range(100, -1, -10))])
def test_ddim_reaches_single_point(levels):
    signal, noise = schedule(100)
    x = torch.randn(50, dtype=torch.float64)
    end = ddim(lambda x, k: torch.full_like(x, 0.6), x, levels, signal, noise)
    torch.testing.assert_close(end, torch.full_like(x, 0.6))


def gaussian_data(signal, noise):
    """E[x_0 | x_k = x] for x_0 ~ N(MEAN, STD²)."""

    def predict(x, k):
        gain = signal[k] * STD**2 / (signal[k] ** 2 * STD**2 + noise[k] ** 2)
        return MEAN + gain * (x - signal[k] * MEAN)

    return predict


def test_ddim_with_exact_denoiser_gives_data():
    signal, noise = schedule(1000)
    x = torch.randn(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    end = ddim(gaussian_data(signal, noise), x, list(range(1000, -1, -5)), signal, noise)
    assert float(end.mean()) == pytest.approx(MEAN, abs=0.01)
    assert float(end.std()) == pytest.approx(STD, rel=0.02)
    torch.testing.assert_close(end, MEAN + STD * x, atol=0.03, rtol=0)  # the deterministic flow keeps quantiles


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_predictions_give_back_data(prediction):
    policy = make_head("diffusion", prediction=prediction, steps=4).double()
    data, epsilon = torch.randn(2, 30, 1, 3, dtype=torch.float64).unbind(0)
    for k in (1, 40, 99):
        signal, noise = policy.signal[k], policy.noise[k]
        x = signal * data + noise * epsilon
        target = epsilon if prediction == "epsilon" else signal * epsilon - noise * data
        torch.testing.assert_close(policy.to_data(x, target, k), data, rtol=1e-3, atol=1e-3)  # a float32 schedule


def test_v_and_epsilon_predict_the_same_data():
    by_v, by_epsilon = (make_head("diffusion", prediction=kind).double() for kind in ("v", "epsilon"))
    x, epsilon = torch.randn(2, 30, 1, 3, dtype=torch.float64).unbind(0)
    for k in (1, 40, 90):
        data = by_epsilon.to_data(x, epsilon, k)
        v = by_v.signal[k] * epsilon - by_v.noise[k] * data
        torch.testing.assert_close(by_v.to_data(x, v, k), data, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_loss_matches_plain_loop(prediction):
    policy = make_head("diffusion", horizon=4, prediction=prediction)
    observation, action = make_chunks(policy, 10)
    policy.fit_normalizer(observation, action)
    mask = torch.rand(10, 4) < 0.7
    policy.network = Recorder(0.3)
    torch.manual_seed(5)
    losses = policy.loss(observation, action, mask)
    ((seen, times),) = policy.network.calls
    lowest, highest = action.amin((0, 1)), action.amax((0, 1))
    data = (2 * action - lowest - highest) / (highest - lowest)
    torch.manual_seed(5)
    epsilon, levels = torch.randn(10, 4, 3), torch.randint(1, 101, (10,))
    kept = squared_cosine(100)
    torch.testing.assert_close(times, levels / 100)
    squares = data.square().mean((0, 1)).tolist()
    for i in range(10):
        signal, noise = float(kept[levels[i]].sqrt()), float((1 - kept[levels[i]]).sqrt())
        total = 0.0
        for h in range(4):
            for d in range(3):
                e, x = float(epsilon[i, h, d]), float(data[i, h, d])
                noisy, rms = signal * x + noise * e, math.sqrt(squares[d])
                variance = signal**2 * squares[d] + noise**2
                assert float(seen[i, h, d]) == pytest.approx(noisy / math.sqrt(variance), abs=1e-4)
                if prediction == "epsilon":
                    target, on_x, on_network = e, noise / variance, signal * rms / math.sqrt(variance)
                else:
                    target, on_network = signal * e - noise * x, rms / math.sqrt(variance)
                    on_x = signal * noise * (1 - squares[d]) / variance
                total += float(mask[i, h]) * (on_x * noisy + on_network * 0.3 - target) ** 2
        assert float(losses[i]) == pytest.approx(total / 4, rel=1e-3)


@pytest.mark.parametrize("k", [1, 30, 99])
@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_network_has_nothing_to_learn_from_a_centered_gaussian(prediction, k):
    """F = 0 predicts √ᾱ s² / r² · x, the mean of N(0, s²) given x, and the target of F has mean square 1."""
    policy = make_head("diffusion", prediction=prediction)
    policy.data_rms.fill_(STD)
    epsilon, data = torch.randn(2, 200_000, 1, generator=torch.Generator().manual_seed(0))
    data, signal, noise = STD * data, policy.signal[k], policy.noise[k]
    x = signal * data + noise * epsilon
    on_x, on_network, deviation = (one[0] for one in policy.preconditioning(torch.tensor(k)))
    variance = signal**2 * STD**2 + noise**2
    torch.testing.assert_close(policy.to_data(x, on_x * x, k), signal * STD**2 / variance * x, rtol=1e-3, atol=1e-4)
    target = epsilon if prediction == "epsilon" else signal * epsilon - noise * data
    assert float((x / deviation).square().mean()) == pytest.approx(1.0, abs=0.01)
    assert float(((target - on_x * x) / on_network).square().mean()) == pytest.approx(1.0, abs=0.01)


def test_noisy_chunks_have_moments_of_forward_process():
    policy = make_head("diffusion", noise_levels=10, steps=2)
    policy.fit_normalizer(torch.randn(2, 4), torch.from_numpy(np.float32([[-0.5, 2.0, -7.0], [3.0, 2.5, -1.0]])))
    policy.network = Recorder(0.0)
    torch.manual_seed(0)
    action = torch.from_numpy(np.float32([3.0, 2.5, -1.0])).expand(30_000, 3)  # 1 in scaled units
    policy.loss(torch.zeros(30_000, 4), action)
    ((seen, times),) = policy.network.calls
    kept = squared_cosine(10)
    levels = (times * 10).round().long()
    for k in range(1, 11):
        rows = seen[levels == k]
        assert len(rows) == pytest.approx(3000, rel=0.1)  # uniform levels
        assert float(rows.mean()) == pytest.approx(float(kept[k].sqrt()), abs=0.04)
        assert float(rows.var()) == pytest.approx(float(1 - kept[k]), rel=0.06)


def test_predicted_data_are_clipped_to_demonstrated_range():
    policy = make_head("diffusion", prediction="v")
    observation, action = make_chunks(policy)
    policy.fit_normalizer(observation, action)
    policy.network = Recorder(-50.0)  # x̂_0 far above
    plan = policy.plan(observation, deterministic=False)
    torch.testing.assert_close(plan, action.amax((0, 1)).expand_as(plan))


@pytest.mark.parametrize(("steps", "levels"), [(4, [100, 75, 50, 25]), (3, [100, 67, 33]), (100, range(100, 0, -1))])
def test_plan_visits_evenly_spaced_levels(steps, levels):
    policy = make_head("diffusion", steps=steps)
    policy.network = Recorder(0.0)
    policy.plan(torch.zeros(2, 1, 4))
    np.testing.assert_allclose([100 * float(t[0]) for _, t in policy.network.calls], list(levels), rtol=1e-5)


def test_deterministic_plan_begins_at_zero():
    policy = make_head("diffusion")
    policy.network = Recorder(0.0)
    policy.plan(torch.zeros(2, 1, 4))
    assert not policy.network.calls[0][0].any()
    policy.plan(torch.zeros(2, 1, 4), deterministic=False)
    assert policy.network.calls[4][0].all()


@pytest.mark.parametrize("name", ["diffusion", "flow"])
def test_few_large_actions_do_not_set_the_scale(name):
    policy = make_head(name)
    u = torch.rand(1000, 3) * 2 - 1
    u[:10, 0] = 50.0
    policy.fit_normalizer(torch.zeros(1000, 4), policy.center + u * policy.scale)
    u = policy.from_action(policy.center + u * policy.scale)
    scaled = policy.scaled(u)
    torch.testing.assert_close(scaled[:, 0].std(correction=0), torch.tensor(1 / DEVIATIONS), rtol=1e-4, atol=0)
    torch.testing.assert_close(scaled[:, 0].mean(), torch.tensor(0.0), rtol=0, atol=1e-4)
    torch.testing.assert_close(scaled[:, 1:].amax(0), torch.ones(2), rtol=1e-4, atol=0)
    torch.testing.assert_close(policy.data_high, scaled.amax(0), rtol=1e-4, atol=0)
    torch.testing.assert_close(policy.data_low, scaled.amin(0), rtol=1e-4, atol=0)
