"""From observations to features: what every policy stands on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import Space
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete
from numpy.typing import NDArray
from torch import Tensor, nn

from lit_imitation.errors import ConfigError

Activation = Literal["relu", "tanh", "gelu", "silu", "elu", "leaky_relu"]


EncoderKind = Literal["auto", "image", "vector"]
"""How observations are read; `auto` decides by their space."""
LEAST_STD = 1e-3
"""Least σ by which inputs are divided, as in TD3+BC (Fujimoto & Gu 2021): nearly constant ones are not blown up."""
CLIP = 10.0
"""Standardised inputs are clipped to ± this."""
UNFITTED = float(torch.finfo(torch.float32).max)


class Standardise(nn.Module):
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
        """Take μ and σ from `x: [N, size]`; a dimension that hardly varies is centred and left unscaled."""
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


SMALLEST_IMAGE, MOST_CHANNELS = 28, 64
"""Under `auto` an array with shorter sides, or more channels and frames together, is not an image."""


def image_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Channels, height and width of `[H, W]`, `[H, W, C]`, `[C, H, W]`, or a stack of frames in front of these.

    The channel axis is the first or the last of a frame, whichever is shorter; frames and channels count together.
    """
    if len(shape) == 2:
        return 1, *shape
    *stack, first, middle, last = shape
    channels, height, width = (last, first, middle) if last < first else (first, middle, last)
    return channels * math.prod(stack), height, width


class ImageEncoder(nn.Module):
    """Three strided convolutions (Mnih et al. 2015) on images, scaled to [0, 1] by the bounds of their space.

    Images without bounds are read as they are. See `image_shape` for how the axes may lie.
    """

    def __init__(self, space: Box, features: int = 256) -> None:
        super().__init__()
        shape = space.shape
        self.frame = len(shape)
        self.channels_last = len(shape) > 2 and shape[-1] < shape[-3]
        channels, height, width = image_shape(shape)
        low, high = float(space.low.min()), float(space.high.max())
        scaled = low < high and high - low < 1e6
        self.low, self.range = (low, high - low) if scaled else (0.0, 1.0)
        layers: list[nn.Module] = []
        for filters, kernel, stride in ((32, 8, 4), (64, 4, 2), (64, 3, 1)):
            kernel, stride = min(kernel, height, width), min(stride, height, width)  # images smaller than Atari's
            layers += [nn.Conv2d(channels, filters, kernel, stride), nn.ReLU()]
            channels, height, width = filters, (height - kernel) // stride + 1, (width - kernel) // stride + 1
        layers += [nn.Flatten(), nn.Linear(channels * height * width, features), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.out_features = features

    def forward(self, x: Tensor) -> Tensor:
        """`[B, *shape]` of whichever dtype to `[B, features]`."""
        if self.channels_last:
            x = x.movedim(-1, -3)
        x = x.unsqueeze(1) if self.frame == 2 else x.flatten(1, -3)
        x = x.float()
        encoded: Tensor = self.layers((x - self.low if self.low else x) / self.range)
        return encoded


class OneHot(nn.Module):
    """Discrete observations `[B]`, or several at once `[B, *components]`, to indicator vectors `[B, Σ n]`."""

    start: Tensor

    def __init__(self, space: Discrete | MultiDiscrete) -> None:
        super().__init__()
        counts = space.nvec if isinstance(space, MultiDiscrete) else space.n
        self.counts = [int(n) for n in np.asarray(counts).reshape(-1)]
        start = torch.as_tensor(np.asarray(space.start, np.int64).reshape(-1))
        self.register_buffer("start", start, persistent=False)
        self.out_features = sum(self.counts)

    def forward(self, x: Tensor) -> Tensor:
        """`[B]` or `[B, *components]` to `[B, Σ n]`."""
        index = x.reshape(len(x), len(self.counts)).long() - self.start
        if len(self.counts) == 1:
            return F.one_hot(index[:, 0], self.counts[0]).float()
        return torch.cat([F.one_hot(index[:, i], n) for i, n in enumerate(self.counts)], -1).float()


class Bits(nn.Module):
    """Binary observations `[B, *components]` to vectors of 0 and 1, `[B, n]`."""

    def __init__(self, space: MultiBinary) -> None:
        super().__init__()
        self.out_features = math.prod(space.shape)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, *components]` to `[B, n]`."""
        return x.reshape(len(x), self.out_features).float()


def is_image(space: Space[Any]) -> bool:
    """Whether observations look like images, by shape, dtype and bounds; see `Encoder`."""
    if not isinstance(space, Box) or not 2 <= len(space.shape) <= 4 or space.dtype is None:
        return False
    channels, height, width = image_shape(space.shape)
    if min(height, width) < SMALLEST_IMAGE or channels > MOST_CHANNELS:
        return False
    from_zero, tops = bool((space.low == 0).all()), {float(top) for top in (space.high.min(), space.high.max())}
    if space.dtype.kind == "f":
        return len(space.shape) > 2 or (from_zero and (tops == {1.0} or tops == {255.0}))
    return from_zero and tops == {255.0}


class Encoder(nn.Module):
    """Observations of any supported space to a feature vector.

    Discrete ones become indicators, binary ones 0 and 1. A Box is read by convolutions as an image, or flattened and
    standardised as a vector. Under `auto` it is an image if its sides are at least 28 and it holds integers from 0 to
    255, or floats with a channel axis or a stack of frames (or from 0 to 1 or 255): the codes of small grids, such as
    MiniGrid's 7×7×3, are vectors.

    Args:
        space: Box, Discrete, MultiDiscrete or MultiBinary.
        kind: `image` or `vector` for a Box that `auto` takes for the other.

    Raises:
        ConfigError: no such kind, or an image without two sides.
    """

    def __init__(self, space: Space[Any], kind: EncoderKind = "auto") -> None:
        super().__init__()
        if kind not in get_args(EncoderKind):
            raise ConfigError(f"encoder is {kind!r}; choose one of {', '.join(get_args(EncoderKind))}")
        if kind == "image" and not (isinstance(space, Box) and 2 <= len(space.shape) <= 4):
            raise ConfigError(
                f"encoder is 'image', but observations are {space}; an image is a Box [H, W], [H, W, C], [C, H, W], or "
                "a stack of such frames"
            )
        self.kind: EncoderKind = kind
        self.standardise: Standardise | None = None
        self.encode: nn.Module | None = None
        if isinstance(space, Discrete | MultiDiscrete):
            self.encode = OneHot(space)
        elif isinstance(space, MultiBinary):
            self.encode = Bits(space)
        elif isinstance(space, Box) and (kind == "image" or (kind == "auto" and is_image(space))):
            self.encode = ImageEncoder(space)
        if self.encode is not None:
            self.out_features: int = self.encode.out_features
        else:
            self.out_features = math.prod(space.shape or (1,))
            self.standardise = Standardise(self.out_features)

    def fit(self, observation: Tensor) -> None:
        """Take the statistics of vector observations `[N, *obs]`; nothing to do for others."""
        if self.standardise is not None:
            self.standardise.fit(observation.reshape(len(observation), -1))

    def inference(self) -> Callable[[NDArray[Any]], NDArray[Any]] | None:
        """`forward` on arrays, as in `MLP.inference`, for observations that are only standardised; else None."""
        if self.standardise is None:
            return None
        own, size = self.standardise, self.out_features
        mean, inverse_std, limit = own.mean.numpy(), own.inverse_std.numpy(), own.limit.numpy()

        def forward(observation: NDArray[Any]) -> NDArray[Any]:
            # As in `forward`: to float32 first.
            x: NDArray[Any] = observation.reshape(-1, size).astype(np.float32, copy=False) - mean
            x *= inverse_std
            np.minimum(x, limit, out=x)
            np.maximum(x, -limit, out=x)
            return x

        return forward

    def forward(self, observation: Tensor) -> Tensor:
        """`[B, *obs]` to `[B, out_features]`."""
        if self.standardise is not None:
            vectors = observation.reshape(len(observation), self.out_features).float()
            return self.standardise(vectors)  # type: ignore[no-any-return]
        assert self.encode is not None
        return self.encode(observation)  # type: ignore[no-any-return]
