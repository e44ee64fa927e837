"""Spectral normalization bounds the slope of a network, in half precision too."""

from __future__ import annotations

import torch

from lit_imitation.networks.spectral import SpectralMLP


def test_spectral_network_is_1_lipschitz():
    torch.manual_seed(0)
    network = SpectralMLP([5, 32, 32, 1], "tanh")
    for layer in network.layers:
        layer.weight.data *= 50
    network.power_iteration(100)
    for i, layer in enumerate(network.layers):
        largest = torch.linalg.matrix_norm(layer.weight, 2)
        torch.testing.assert_close(network._weight(i), layer.weight / largest, rtol=1e-3, atol=1e-5)
    x, y = torch.randn(500, 5), torch.randn(500, 5)
    assert ((network(x) - network(y)).abs().squeeze() <= 1.001 * (x - y).norm(dim=1)).all()


def test_spectral_normalization_in_half_precision():
    network, x = SpectralMLP([5, 32, 1], "tanh"), torch.randn(50, 5)
    with torch.autocast("cpu", torch.bfloat16):
        half = network(x)
    torch.testing.assert_close(half.float(), network(x), rtol=0.0, atol=0.05)
