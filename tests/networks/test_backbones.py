"""Networks of action chunks: shapes, causality, gradients and independence of the rows of a batch."""

from __future__ import annotations

import math

import pytest
import torch
from torch.func import functional_call

from lit_imitation.errors import ConfigError
from lit_imitation.networks.backbones import BACKBONES, make_backbone
from lit_imitation.networks.film import TIME_FEATURES, FilmBlock, sinusoidal, time_frequencies

KINDS = list(BACKBONES)
SIZES = {"mlp": [8, 6], "unet": [8, 12], "transformer": [8, 8]}


def build(kind, horizon=5, *, act_dim=2, out_features=3, hidden_sizes=None, **more):
    torch.manual_seed(0)
    arguments = {"hidden_sizes": hidden_sizes or SIZES[kind], "activation": "tanh", **more}
    return make_backbone(kind, act_dim, horizon, 4, out_features=out_features, **arguments).double()


def inputs(batch=3, horizon=5, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, horizon, 2, generator=generator, dtype=torch.float64)
    t = torch.rand(batch, generator=generator, dtype=torch.float64)
    return x, t, torch.randn(batch, 4, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("horizon", [1, 2, 5, 16])
def test_outputs_have_shape_of_chunk(kind, horizon):
    network = build(kind, horizon)
    for batch in (0, 1, 3):
        assert network(*inputs(batch, horizon)).shape == (batch, horizon, 3)
    assert build(kind, horizon, out_features=None)(*inputs(2, horizon)).shape == (2, horizon, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_every_input_matters(kind):
    network, (x, t, condition) = build(kind), inputs()
    before = network(x, t, condition)
    for i, one in enumerate((x, t, condition)):
        changed = [x, t, condition]
        changed[i] = one + 0.1
        assert ((network(*changed) - before).abs().amax((1, 2)) > 1e-6).all()


@pytest.mark.parametrize("kind", KINDS)
def test_single_row_equals_row_of_batch(kind):
    network, given = build(kind), inputs()
    rows = [network(*(one[i : i + 1] for one in given)) for i in range(3)]
    torch.testing.assert_close(torch.cat(rows), network(*given))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_match_finite_differences(kind):
    network = build(kind, 3, hidden_sizes=[4] if kind != "unet" else [4, 4])
    x, t, condition = inputs(2, 3)
    names, values = zip(*network.named_parameters(), strict=True)
    generator = torch.Generator().manual_seed(2)
    directions = [torch.randn(value.shape, generator=generator, dtype=torch.float64) for value in values]
    weights = torch.randn(2, 3, 3, generator=generator, dtype=torch.float64)

    def loss(step):
        moved = {name: v + step * d for name, v, d in zip(names, values, directions, strict=True)}
        return (functional_call(network, moved, (x + step, t, condition - step)) * weights).sum()

    step = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(loss(step), step)
    h = 1e-7
    assert float(slope.detach()) == pytest.approx(float((loss(h) - loss(-h)).detach()) / (2 * h), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_has_a_gradient(kind):
    network = build(kind)
    network(*inputs()).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_first_layer_alone_reads_condition(kind):
    network, (x, t, condition) = build(kind), inputs()
    weight, _ = network.first_layer
    with torch.no_grad():
        weight[:, :4] = 0.0
    torch.testing.assert_close(network(x, t, condition), network(x, t, condition + 1.0))


@pytest.mark.parametrize("kind", KINDS)
def test_network_without_time_refuses_one(kind):
    network, (x, t, condition) = build(kind, timed=False), inputs()
    assert network(x, None, condition).shape == (3, 5, 3)
    with pytest.raises(ValueError, match="built without a time"):
        network(x, t, condition)
    with pytest.raises(ValueError, match="built with a time"):
        build(kind)(x, None, condition)


@pytest.mark.parametrize("kind", KINDS)
def test_modulations_of_all_times_are_those_of_each_time(kind):
    network, (x, _, condition) = build(kind), inputs()
    times = [0.0, 0.3, 1.0]
    found = network.modulations(times, condition)
    for t, modulation in zip(times, found, strict=True):
        each = torch.full((3,), t, dtype=torch.float64)
        torch.testing.assert_close(network.modulated(x, modulation), network(x, each, condition))


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_is_active_only_in_training(kind):
    network, given = build(kind, dropout=0.5), inputs()
    assert not torch.equal(network(*given), network(*given))
    network.eval()
    assert torch.equal(network(*given), network(*given))


def test_transformer_is_causal():
    network, (x, t, condition) = build("transformer"), inputs()
    before = network(x, t, condition)
    for later in range(1, 5):
        changed = x.clone()
        changed[:, later:] += torch.randn(3, 5 - later, 2)
        after = network(changed, t, condition)
        assert torch.equal(after[:, :later], before[:, :later])
        assert ((after[:, later:] - before[:, later:]).abs().amax((0, 2)) > 1e-6).all()


def test_transformer_attends_to_the_past():
    network, (x, t, condition) = build("transformer"), inputs()
    changed = x.clone()
    changed[:, 0] += 1.0
    difference = network(changed, t, condition) - network(x, t, condition)
    assert (difference.abs().amax((0, 2)) > 1e-6).all()


def test_unet_mixes_all_steps():
    network, (x, t, condition) = build("unet", 16, hidden_sizes=[8, 8, 8]), inputs(3, 16)
    changed = x.clone()
    changed[:, 0] += 1.0
    difference = network(changed, t, condition) - network(x, t, condition)
    assert (difference.abs().amax((0, 2)) > 1e-9).all()


@pytest.mark.parametrize("sizes", [[8, 4], [6, 6]])
def test_transformer_refuses_odd_sizes(sizes):
    with pytest.raises(ConfigError, match=r"hidden_sizes is .* equal sizes, divisible by its 4 attention heads"):
        build("transformer", hidden_sizes=sizes)


@pytest.mark.parametrize("kind", KINDS)
def test_empty_sizes_raise(kind):
    with pytest.raises(ConfigError, match="needs at least one size"):
        make_backbone(kind, 2, 5, 4, hidden_sizes=[], activation="relu")


def test_film_block_matches_formula():
    torch.manual_seed(0)
    block = FilmBlock(4, 4, "tanh", 0.0)
    h, scale, shift = torch.randn(3, 5, 4).unbind(0)
    first, second = block.first, block.second
    inner = (1 + scale) * (h @ first.weight.T + first.bias) + shift
    torch.testing.assert_close(block(h, scale, shift), h + torch.tanh(inner) @ second.weight.T + second.bias)


def test_sinusoidal_matches_plain_loop():
    t = torch.tensor([0.0, 0.013, 0.5, 1.0], dtype=torch.float64)
    half = TIME_FEATURES // 2
    plain = []
    for time in t.tolist():
        angles = [1000 * time * 1e4 ** (-i / (half - 1)) for i in range(half)]
        plain.append([math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles])
    embedding = sinusoidal(t, time_frequencies())
    torch.testing.assert_close(embedding, torch.tensor(plain, dtype=torch.float64), rtol=1e-9, atol=1e-9)
