"""Encoders: from an observation to the features a network reads."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import Space
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete
from numpy.typing import NDArray
from torch import Tensor, nn

from lit_imitation.errors import ConfigError
from lit_imitation.networks.mlp import Standardize

EncoderKind = Literal["auto", "image", "vector"]
"""How observations are read; `auto` decides by their space."""
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
    standardized as a vector. Under `auto` it is an image if its sides are at least 28 and it holds integers from 0 to
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
        self.standardize: Standardize | None = None
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
            self.standardize = Standardize(self.out_features)

    def fit(self, observation: Tensor) -> None:
        """Take the statistics of vector observations `[N, *obs]`; nothing to do for others."""
        if self.standardize is not None:
            self.standardize.fit(observation.reshape(len(observation), -1))

    def inference(self) -> Callable[[NDArray[Any]], NDArray[Any]] | None:
        """`forward` on arrays, as in `MLP.inference`, for observations that are only standardized; else None."""
        if self.standardize is None:
            return None
        own, size = self.standardize, self.out_features
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
        if self.standardize is not None:
            vectors = observation.reshape(len(observation), self.out_features).float()
            return self.standardize(vectors)  # type: ignore[no-any-return]
        assert self.encode is not None
        return self.encode(observation)  # type: ignore[no-any-return]
