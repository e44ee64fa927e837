"""Multilayer perceptrons, single and stacked, and the standardization of their inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from lit_imitation.errors import ConfigError

Activation = Literal["relu", "tanh", "gelu", "silu", "elu", "leaky_relu"]


LEAST_STD = 1e-3
"""Least σ by which inputs are divided, as in TD3+BC (Fujimoto & Gu 2021): nearly constant ones are not blown up."""
CLIP = 10.0
"""Standardized inputs are clipped to ± this."""
UNFITTED = float(torch.finfo(torch.float32).max)


class Standardize(nn.Module):
    """x ↦ clip((x − μ) / max(σ, `LEAST_STD`), ±`CLIP`) with μ, σ from the training data; until then x as it is.

    Buffers, so that a checkpoint carries them.
    """

    mean: Tensor
    inverse_std: Tensor
    limit: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("inverse_std", torch.ones(size))
        self.register_buffer("limit", torch.full((1,), UNFITTED))

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Take μ and σ from `x: [N, size]`; a dimension that hardly varies is centered and left unscaled."""
        x = x.double()
        self.use(x.mean(0), x.std(0, unbiased=False))

    @torch.no_grad()
    def use(self, mean: Tensor, std: Tensor) -> None:
        """Take μ and σ, `[size]` each, as they are; but see `fit` for what hardly varies."""
        varies = std > 1e-6 * mean.abs().clamp(min=1.0)
        std = torch.where(varies, std.clamp(min=LEAST_STD), torch.ones_like(std))
        self.mean.copy_(mean)
        self.inverse_std.copy_(1.0 / std)
        self.limit.fill_(CLIP)

    @property
    def fitted(self) -> bool:
        """Whether somebody has set μ and σ."""
        return bool(self.limit < UNFITTED)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, size]` to `[B, size]`."""
        return ((x - self.mean) * self.inverse_std).clamp(-self.limit, self.limit)


class MLP(nn.Module):
    """Linear layers with an activation (and dropout) after each but the last.

    Args:
        sizes: input, hidden and output sizes.
        activation: name of the function in `torch.nn.functional`.
        dropout: probability of zeroing a hidden unit while training.

    Raises:
        ConfigError: a hidden size below 1.
    """

    def __init__(self, sizes: Sequence[int], activation: Activation = "relu", dropout: float = 0.0) -> None:
        super().__init__()
        if any(size < 1 for size in sizes[1:-1]):
            raise ConfigError(f"hidden_sizes is {list(sizes[1:-1])}; each must be at least 1")
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.activation = activation
        self.dropout = dropout
        # The tensor's own method where there is one: one Python call fewer in a step that has fifty.
        self._activate = getattr(torch, activation, None) or getattr(F, activation)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, sizes[0]]` to `[B, sizes[-1]]`."""
        *hidden, last = self.layers
        for layer in hidden:
            x = self._activate(F.linear(x, layer.weight, layer.bias))  # type: ignore[arg-type]
            if self.dropout:
                x = F.dropout(x, self.dropout, self.training)
        return F.linear(x, last.weight, last.bias)  # type: ignore[arg-type]

    @property
    def first_layer(self) -> tuple[nn.Parameter, nn.Parameter]:
        """Weight `[out, in]` and bias `[out]` of what reads the input."""
        return self.layers[0].weight, self.layers[0].bias  # type: ignore[return-value]

    @torch.no_grad()
    def orthogonal(self, last_gain: float) -> None:
        """Draw orthogonal weights of gain √2, of `last_gain` in the last layer, and zero biases (Andrychowicz 2021)."""
        for layer in self.layers:
            gain = last_gain if layer is self.layers[-1] else 2.0**0.5
            nn.init.orthogonal_(layer.weight, gain)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def inference(self) -> Callable[[NDArray[Any]], NDArray[Any]]:
        """`forward` on arrays, without dropout or gradients, for batches so small that calls cost more than arithmetic.

        NumPy's products with torch's activations are the cheapest of both. Nothing is looked up or allocated but the
        result. Parameters updated in place are seen.
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
    """M MLPs of one shape in one batched pass: the parameters of all have a leading axis, `[M, out, in]`, `[M, out]`.

    Args:
        members: M.
        sizes: input, hidden and output sizes of each.
        activation: name of the function in `torch.nn.functional`.
        dropout: probability of zeroing a hidden unit while training, drawn for each member.
    """

    def __init__(
        self, members: int, sizes: Sequence[int], activation: Activation = "relu", dropout: float = 0.0
    ) -> None:
        super().__init__()
        networks = [MLP(sizes, activation, dropout) for _ in range(members)]  # drawn as they would be on their own
        layers = [nn.ModuleList(layers) for layers in zip(*(network.layers for network in networks), strict=True)]
        self.weights, self.biases = (
            nn.ParameterList(torch.stack([getattr(layer, name).detach() for layer in of_all]) for of_all in layers)
            for name in ("weight", "bias")
        )
        self.members, self.activation, self.dropout = members, activation, dropout
        self._activate = networks[0]._activate

    @property
    def first_layer(self) -> tuple[nn.Parameter, nn.Parameter]:
        """Weight `[M, out, in]` and bias `[M, out]` of what reads the input."""
        return self.weights[0], self.biases[0]

    def forward(self, x: Tensor) -> Tensor:
        """`[B, sizes[0]]` to `[M, B, sizes[-1]]`."""
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
        """`forward` on arrays, without dropout or gradients; parameters updated in place are seen."""
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
