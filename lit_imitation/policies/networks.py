"""From observations to features: what every policy stands on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import Space
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray
from torch import Tensor, nn

from lit_imitation.errors import ConfigError

Activation = Literal["relu", "tanh", "gelu", "silu", "elu", "leaky_relu"]


class Standardise(nn.Module):
    """x ↦ (x − μ) / σ with μ, σ from the training data; buffers, so that a checkpoint carries them."""

    mean: Tensor
    inverse_std: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("inverse_std", torch.ones(size))

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Take μ and σ from `x: [N, size]`; a dimension that hardly varies is centred and left unscaled."""
        x = x.double()
        self.use(x.mean(0), x.std(0, unbiased=False))

    @torch.no_grad()
    def use(self, mean: Tensor, std: Tensor) -> None:
        """Take μ and σ, `[size]` each, as they are; but see `fit` for what hardly varies."""
        std = torch.where(std > 1e-6 * mean.abs().clamp(min=1.0), std, torch.ones_like(std))
        self.mean.copy_(mean)
        self.inverse_std.copy_(1.0 / std)

    @property
    def fitted(self) -> bool:
        """Whether somebody has set μ and σ."""
        return bool(self.mean.any() or (self.inverse_std != 1.0).any())

    def forward(self, x: Tensor) -> Tensor:
        """`[B, size]` to `[B, size]`."""
        return (x - self.mean) * self.inverse_std


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


class ImageEncoder(nn.Module):
    """Three strided convolutions (Mnih et al. 2015) on uint8 images scaled to [0, 1].

    The channel axis is the first or the last of the observation, whichever is shorter.
    """

    def __init__(self, shape: tuple[int, int, int], features: int = 256) -> None:
        super().__init__()
        self.channels_last = shape[2] < shape[0]
        channels, height, width = (shape[2], *shape[:2]) if self.channels_last else shape
        layers: list[nn.Module] = []
        for filters, kernel, stride in ((32, 8, 4), (64, 4, 2), (64, 3, 1)):
            kernel, stride = min(kernel, height, width), min(stride, height, width)  # images smaller than Atari's
            layers += [nn.Conv2d(channels, filters, kernel, stride), nn.ReLU()]
            channels, height, width = filters, (height - kernel) // stride + 1, (width - kernel) // stride + 1
        layers += [nn.Flatten(), nn.Linear(channels * height * width, features), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.out_features = features

    def forward(self, x: Tensor) -> Tensor:
        """`[B, H, W, C]` or `[B, C, H, W]` uint8 to `[B, features]`."""
        if self.channels_last:
            x = x.permute(0, 3, 1, 2)
        encoded: Tensor = self.layers(x.float() / 255.0)
        return encoded


class OneHot(nn.Module):
    """Discrete observations `[B]` to indicator vectors `[B, n]`."""

    def __init__(self, space: Discrete) -> None:
        super().__init__()
        self.n, self.start = int(space.n), int(space.start)

    def forward(self, x: Tensor) -> Tensor:
        """`[B]` to `[B, n]`."""
        return F.one_hot(x.long() - self.start, self.n).float()


def is_image(space: Space[Any]) -> bool:
    """Whether observations are uint8 arrays with three axes."""
    return isinstance(space, Box) and space.dtype == "uint8" and len(space.shape) == 3


class Encoder(nn.Module):
    """Observations of any supported space to a feature vector: images by convolutions, others as they are."""

    def __init__(self, space: Space[Any]) -> None:
        super().__init__()
        self.standardise: Standardise | None = None
        self.encode: nn.Module | None = None
        if isinstance(space, Discrete):
            self.encode, self.out_features = OneHot(space), int(space.n)
        elif is_image(space):
            self.encode = ImageEncoder(space.shape)  # type: ignore[arg-type]
            self.out_features = self.encode.out_features
        else:
            self.out_features = int(torch.Size(space.shape or (1,)).numel())
            self.standardise = Standardise(self.out_features)
        self.matrix = len(space.shape or ()) != 1

    def fit(self, observation: Tensor) -> None:
        """Take the statistics of vector observations `[N, *obs]`; nothing to do for others."""
        if self.standardise is not None:
            self.standardise.fit(observation.reshape(len(observation), -1))

    def inference(self) -> Callable[[NDArray[Any]], NDArray[Any]] | None:
        """`forward` on arrays, as in `MLP.inference`, for observations that are only standardised; else None."""
        if self.standardise is None:
            return None
        mean, inverse_std, size = self.standardise.mean.numpy(), self.standardise.inverse_std.numpy(), self.out_features

        def forward(observation: NDArray[Any]) -> NDArray[Any]:
            # As in `forward`: to float32 first.
            x: NDArray[Any] = observation.reshape(-1, size).astype(np.float32, copy=False) - mean
            x *= inverse_std
            return x

        return forward

    def forward(self, observation: Tensor) -> Tensor:
        """`[B, *obs]` to `[B, out_features]`."""
        if self.standardise is not None:
            vectors = observation.reshape(len(observation), self.out_features).float()
            return self.standardise(vectors)  # type: ignore[no-any-return]
        assert self.encode is not None
        return self.encode(observation)  # type: ignore[no-any-return]
