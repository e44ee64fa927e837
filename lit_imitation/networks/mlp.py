"""Multilayer perceptrons, single and in ensembles, and input standardization."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from lit_imitation.errors import ConfigError

Activation = Literal["relu", "tanh", "gelu", "silu", "elu", "leaky_relu"]


MIN_STD = 1e-3
"""Smallest σ used as divisor, as in TD3+BC (Fujimoto & Gu 2021): nearly constant inputs are not blown up."""
CLIP = 10.0
"""Bound on standardized inputs."""
UNFITTED = float(torch.finfo(torch.float32).max)


def activation_function(name: Activation) -> Callable[[Tensor], Tensor]:
    """Activation function by its name."""
    # torch's own function saves a Python call over torch.nn.functional's, which matters in small networks.
    function: Callable[[Tensor], Tensor] = getattr(torch, name, None) or getattr(F, name)
    return function


def moments(parts: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation `[size]` over the rows of all parts `[n, size]`, which are read once.

    The number n, mean m and variance v of two parts are joined by

        n = n₁ + n₂,   δ = m₂ − m₁,   m = m₁ + δ n₂ / n,   v = (v₁ n₁ + v₂ n₂) / n + δ² n₁ n₂ / n².
    """
    count, mean, variance = 0, torch.zeros(()), torch.zeros(())
    for part in parts:
        x = part.double()
        part_mean, part_variance = x.mean(0), x.var(0, unbiased=False)
        if count:
            share, shift = len(part) / (count + len(part)), part_mean - mean
            part_variance = torch.lerp(variance, part_variance, share) + share * (1 - share) * shift.square()
            part_mean = mean + share * shift
        count, mean, variance = count + len(part), part_mean, part_variance
    return mean, variance.sqrt()


class Standardize(nn.Module):
    """Standardization x ↦ clip((x − μ) / (k max(σ, `MIN_STD`)), ±`CLIP`) with μ and σ of the training data.

    Before `fit` it is the identity. The statistics are buffers, so checkpoints contain them.

    Args:
        size: Number of dimensions.
        deviations: k.
    """

    mean: Tensor
    inverse_std: Tensor
    limit: Tensor

    def __init__(self, size: int, deviations: float = 1.0) -> None:
        super().__init__()
        self.deviations = deviations
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("inverse_std", torch.ones(size))
        self.register_buffer("limit", torch.full((1,), UNFITTED))

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Compute μ and σ from `x: [N, size]`; a nearly constant dimension is centered but not scaled."""
        self.set_statistics(*moments([x]))

    @torch.no_grad()
    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Set μ and σ, `[size]` each; as in `fit`, nearly constant dimensions are not scaled."""
        varies = std > 1e-6 * mean.abs().clamp(min=1.0)
        std = torch.where(varies, std.clamp(min=MIN_STD), torch.ones_like(std))
        self.mean.copy_(mean)
        self.inverse_std.copy_(1.0 / (self.deviations * std))
        self.limit.fill_(CLIP)

    @property
    def fitted(self) -> bool:
        """Whether μ and σ have been set."""
        return bool(self.limit < UNFITTED)

    def forward(self, x: Tensor) -> Tensor:
        """Standardized values `[B, size]` of `x: [B, size]`."""
        return ((x - self.mean) * self.inverse_std).clamp(-self.limit, self.limit)


class MLP(nn.Module):
    """Linear layers with an activation, and optional dropout, after each but the last.

    Args:
        sizes: Input, hidden and output sizes.
        activation: Name of the activation in `torch.nn.functional`.
        dropout: Probability of zeroing a hidden unit during training.

    Raises:
        ConfigError: A hidden size is less than 1.
    """

    def __init__(self, sizes: Sequence[int], activation: Activation = "relu", dropout: float = 0.0) -> None:
        super().__init__()
        if any(size < 1 for size in sizes[1:-1]):
            raise ConfigError(f"hidden_sizes is {list(sizes[1:-1])}; each must be at least 1")
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.activation = activation
        self.dropout = dropout
        self._activate = activation_function(activation)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs `[B, sizes[-1]]` of inputs `[B, sizes[0]]`."""
        *hidden, last = self.layers
        for layer in hidden:
            x = self._activate(F.linear(x, layer.weight, layer.bias))  # type: ignore[arg-type]
            if self.dropout:
                x = F.dropout(x, self.dropout, self.training)
        return F.linear(x, last.weight, last.bias)  # type: ignore[arg-type]

    @property
    def first_layer(self) -> tuple[nn.Parameter, nn.Parameter]:
        """Weight `[out, in]` and bias `[out]` of the first layer."""
        return self.layers[0].weight, self.layers[0].bias  # type: ignore[return-value]

    @torch.no_grad()
    def init_orthogonal(self, last_gain: float) -> None:
        """Initialize orthogonal weights with gain √2, in the last layer `last_gain`, and zero biases.

        Recommended for on-policy learning by Andrychowicz et al. (2021, arXiv:2006.05990).
        """
        for layer in self.layers:
            gain = last_gain if layer is self.layers[-1] else 2.0**0.5
            nn.init.orthogonal_(layer.weight, gain)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def inference(self) -> Callable[[NDArray[Any]], NDArray[Any]]:
        """NumPy version of `forward`, without dropout or gradients, for batches so small that call overhead dominates.

        NumPy's matrix products and torch's activations are the fastest combination. The function allocates only the
        result, and sees parameters that are updated in place.
        """
        *hidden, (last_weight, last) = [
            (layer.weight.detach().numpy().T, layer.bias.detach())  # type: ignore[operator]
            for layer in self.layers
        ]
        last_bias, dot = last.numpy(), np.dot
        activate = getattr(torch, f"{self.activation}_", None) or (lambda x: x.copy_(self._activate(x)))
        rows = -1
        steps: list[tuple[NDArray[Any], Tensor, Tensor, NDArray[Any]]] = []

        def forward(x: NDArray[Any]) -> NDArray[Any]:
            nonlocal rows, steps
            if len(x) != rows:
                rows = len(x)
                memory = [torch.empty(rows, len(bias)) for _, bias in hidden]
                steps = [(weight, bias, out, out.numpy()) for (weight, bias), out in zip(hidden, memory, strict=True)]
            for weight, bias, out, array in steps:
                dot(x, weight, array)
                activate(out.add_(bias))
                x = array
            head: NDArray[Any] = dot(x, last_weight)
            head += last_bias
            return head

        return forward


class EnsembleMLP(nn.Module):
    """M MLPs of equal shape, evaluated in one batched pass; parameters are `[M, out, in]` and `[M, out]`.

    Args:
        members: Number M of networks.
        sizes: Input, hidden and output sizes of each network.
        activation: Name of the activation in `torch.nn.functional`.
        dropout: Probability of zeroing a hidden unit during training, sampled separately for each member.
    """

    def __init__(
        self, members: int, sizes: Sequence[int], activation: Activation = "relu", dropout: float = 0.0
    ) -> None:
        super().__init__()
        networks = [MLP(sizes, activation, dropout) for _ in range(members)]  # same initialization as separate MLPs
        layers = [nn.ModuleList(layers) for layers in zip(*(network.layers for network in networks), strict=True)]
        self.weights, self.biases = (
            nn.ParameterList(torch.stack([getattr(layer, name).detach() for layer in of_all]) for of_all in layers)
            for name in ("weight", "bias")
        )
        self.members, self.activation, self.dropout = members, activation, dropout
        self._activate = networks[0]._activate

    @property
    def first_layer(self) -> tuple[nn.Parameter, nn.Parameter]:
        """Weight `[M, out, in]` and bias `[M, out]` of the first layer."""
        return self.weights[0], self.biases[0]

    def forward(self, x: Tensor) -> Tensor:
        """Outputs `[M, B, sizes[-1]]` of inputs `[B, sizes[0]]`."""
        x = x.expand(self.members, -1, -1)
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias[:, None], x, weight.mT)
            if i < last:
                x = self._activate(x)
                if self.dropout:
                    x = F.dropout(x, self.dropout, self.training)
        return x

    def inference(self) -> Callable[[NDArray[Any]], NDArray[Any]]:
        """NumPy version of `forward`, without dropout or gradients; it sees parameters that are updated in place."""
        *hidden, (last_weight, last_bias) = [
            (weight.detach().mT, bias.detach()[:, None]) for weight, bias in zip(self.weights, self.biases, strict=True)
        ]
        members, activate = self.members, self._activate

        def forward(x: NDArray[Any]) -> NDArray[Any]:
            h = torch.from_numpy(x).expand(members, -1, -1)
            for weight, bias in hidden:
                h = activate(torch.baddbmm(bias, h, weight))
            head: NDArray[Any] = torch.baddbmm(last_bias, h, last_weight).numpy()
            return head

        return forward
