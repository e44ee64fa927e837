"""Residual vector quantization against brute force, plain loops and finite differences."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from lit_imitation.networks.residual_vq import BATCH, DEAD_SHARE, DECAY, SMOOTHING, ChunkQuantizer, ResidualVQ


def quantizer(stages=3, codes=5, size=4, seed=0):
    made = ResidualVQ(stages, codes, size)
    generator = torch.Generator().manual_seed(seed)
    made.codebooks.copy_(torch.randn(stages, codes, size, generator=generator))
    made.counts.copy_(3.0 + torch.rand(stages, codes, generator=generator))
    made.sums.copy_(made.codebooks * made.counts[..., None])
    return made


def vectors(count=50, size=4, seed=1):
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed))


def test_each_stage_takes_the_nearest_code():
    made, x = quantizer(), vectors()
    codes, residuals = made.encode(x)
    for row in range(len(x)):
        left = x[row].numpy()
        for stage in range(3):
            distances = [np.linalg.norm(left - one) for one in made.codebooks[stage].numpy()]
            assert codes[row, stage] == np.argmin(distances)
            left = left - made.codebooks[stage, codes[row, stage]].numpy()
        np.testing.assert_allclose(residuals[-1][row], left, atol=1e-5)
    torch.testing.assert_close(made.vectors(codes) + residuals[-1], x)


def test_codebooks_are_moving_averages():
    made, x = quantizer(stages=2), vectors(200)
    counts, sums = made.counts.double().numpy(), made.sums.double().numpy()
    old = made.codebooks.double().numpy().copy()
    counts[0, 3] = 0.0  # no row has chosen it for long, so it starts anew
    made.counts[0, 3] = 0.0
    made.update(x, torch.Generator().manual_seed(2))
    generator = torch.Generator().manual_seed(2)
    left = x.double().numpy()
    for stage in range(2):
        chosen = [int(np.argmin(((row - old[stage]) ** 2).sum(-1))) for row in left]
        rows = torch.randint(200, (5,), generator=generator).tolist()
        for code in range(5):
            mine = [row for row, choice in zip(left, chosen, strict=True) if choice == code]
            if counts[stage, code] < DEAD_SHARE * 200 / 5:
                counts[stage, code], sums[stage, code] = 40.0, 40.0 * left[rows[code]]
            else:
                counts[stage, code] = DECAY * counts[stage, code] + (1 - DECAY) * len(mine)
                sums[stage, code] = DECAY * sums[stage, code] + (1 - DECAY) * np.sum(mine, axis=0)
        whole = counts[stage].sum()
        smoothed = (counts[stage] + SMOOTHING) / (whole + 5 * SMOOTHING) * whole
        np.testing.assert_allclose(made.codebooks[stage], sums[stage] / smoothed[:, None], rtol=1e-4, atol=1e-5)
        left = np.stack([row - old[stage, choice] for row, choice in zip(left, chosen, strict=True)])


def test_first_update_starts_codes_at_rows():
    made, x = ResidualVQ(2, 4, 3), vectors(30, 3)
    made.update(x, torch.Generator().manual_seed(0))
    nearest = torch.cdist(made.codebooks[0], x).amin(1)
    assert nearest.max() < 1e-4
    assert len(made.codebooks[0].unique(dim=0)) > 1


def test_gradient_passes_straight_through():
    made, x = quantizer(), vectors(6).double().requires_grad_()
    made.double()
    weight = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))

    def loss(q):
        return (q @ weight).sin().sum()

    quantized, codes, _ = made(x)
    torch.testing.assert_close(quantized, made.vectors(codes))
    (gradient,) = torch.autograd.grad(loss(quantized), x)
    q, step = made.vectors(codes), 1e-6  # the slope of the loss at q(x)
    for row in range(6):
        for i in range(4):
            change = torch.zeros_like(q)
            change[row, i] = step
            slope = (loss(q + change) - loss(q - change)) / (2 * step)
            assert float(gradient[row, i]) == pytest.approx(float(slope), abs=1e-6)


def test_commitment_pulls_toward_the_codes():
    made, x = quantizer(), vectors(6).double().requires_grad_()
    made.double()
    _, _, commitment = made(x)
    _, residuals = made.encode(x.detach())
    expected = sum(left.square().mean(-1) for left in residuals[1:])
    torch.testing.assert_close(commitment.detach(), expected)
    (gradient,) = torch.autograd.grad(commitment.sum(), x)
    torch.testing.assert_close(gradient, sum(2 * left / 4 for left in residuals[1:]))
    step = 1e-7  # small enough that no code changes
    for i in range(4):
        change = torch.zeros_like(x)
        change[0, i] = step
        slope = (made(x + change)[2].sum() - made(x - change)[2].sum()).detach() / (2 * step)
        assert float(gradient[0, i]) == pytest.approx(float(slope), abs=1e-5)


def chunks(count=600):
    """Sines of random phase and amplitude, `[N, 6, 2]`."""
    generator = torch.Generator().manual_seed(0)
    phase, size = 6.28 * torch.rand(count, 1, generator=generator), torch.rand(count, 1, generator=generator)
    time = torch.linspace(0, 2, 6) + phase
    return torch.stack([3.0 * size * time.sin(), 5.0 + size * time.cos()], -1)


def test_each_stage_leaves_less():
    made, x, generator = ResidualVQ(3, 8, 4), vectors(300), torch.Generator().manual_seed(0)
    for _ in range(40):
        made.update(x, generator)
    _, residuals = made.encode(x)
    left = [float(one.square().sum(-1).mean()) for one in residuals]
    assert all(after < 0.75 * before for before, after in pairwise(left)), left


@pytest.mark.slow
def test_more_stages_reconstruct_better():
    torch.manual_seed(0)
    u, errors = chunks(), []
    for stages in (1, 2, 3):
        made = ChunkQuantizer(2, 6, latent_size=8, stages=stages, codes=6)
        made.fit(u, 400, seed=0)
        errors.append(float((u - made.reconstruct(made.codes(u))).abs().mean()))
    assert errors[0] > 1.15 * errors[1] > 1.15**2 * errors[2]
    mean = float((u - u.mean(0)).abs().mean())
    assert errors[2] < 0.4 * mean


def test_autoencoder_has_no_parameters_and_fits_the_same_again():
    u, made = chunks(100), []
    for _ in range(2):
        torch.manual_seed(0)
        made.append(ChunkQuantizer(2, 6, latent_size=4, stages=2, codes=4))
        assert not list(made[-1].parameters())
        torch.manual_seed(len(made))
        before = {name: one.clone() for name, one in made[-1].state_dict().items()}
        state = torch.get_rng_state()
        made[-1].fit(u, 5, seed=3)
        assert torch.equal(torch.get_rng_state(), state)
    for name, one in made[0].state_dict().items():
        assert torch.equal(one, made[1].state_dict()[name])
        assert not torch.equal(one, before[name]), name


@pytest.mark.parametrize("count", [3, BATCH + 1])
def test_constant_chunks_are_finite(count):
    torch.manual_seed(0)
    made, u = ChunkQuantizer(2, 3, latent_size=4, stages=2, codes=5), torch.full((count, 3, 2), 7.0)
    made.fit(u, 40, seed=0)
    assert all(one.isfinite().all() for one in made.state_dict().values())
    assert (made.reconstruct(made.codes(u)) - 7.0).abs().max() < 0.3
