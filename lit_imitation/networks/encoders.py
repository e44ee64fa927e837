"""Encoders from observations to feature vectors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
import torch
from gymnasium import Space
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete
from numpy.typing import NDArray
from torch import Tensor, nn

from lit_imitation.errors import ConfigError
from lit_imitation.networks.mlp import Standardize
from lit_imitation.networks.one_hot import one_hot

EncoderKind = Literal["auto", "image", "vector"]
"""Kind of encoder; `auto` chooses by the observation space."""
MIN_IMAGE_SIDE, MAX_IMAGE_CHANNELS = 28, 64
"""Limits for `auto`: an array with a shorter side, or more channels times frames, is not an image."""


def image_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Channels, height and width of `[H, W]`, `[H, W, C]`, `[C, H, W]`, or a stack of such frames.

    The channel axis is the shorter one of a frame's first and last axis. Stacked frames count as channels.
    """
    if len(shape) == 2:
        return 1, *shape
    *stack, first, middle, last = shape
    channels, height, width = (last, first, middle) if last < first else (first, middle, last)
    return channels * math.prod(stack), height, width


class ImageEncoder(nn.Module):
    """Three strided convolutions (Mnih et al. 2015) on images, scaled to [0, 1] by the bounds of their space.

    Images without bounds are not scaled. See `image_shape` for the supported axis orders.

    Args:
        space: Box of images.
        features: Size of the output.
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
            kernel, stride = min(kernel, height, width), min(stride, height, width)  # smaller than Atari frames
            layers += [nn.Conv2d(channels, filters, kernel, stride), nn.ReLU()]
            channels, height, width = filters, (height - kernel) // stride + 1, (width - kernel) // stride + 1
        layers += [nn.Flatten(), nn.Linear(channels * height * width, features), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.out_features = features

    def forward(self, x: Tensor) -> Tensor:
        """Features `[B, features]` of images `[B, *shape]` of any dtype."""
        if self.channels_last:
            x = x.movedim(-1, -3)
        x = x.unsqueeze(1) if self.frame == 2 else x.flatten(1, -3)
        x = x.float()
        encoded: Tensor = self.layers((x - self.low if self.low else x) / self.range)
        return encoded


class OneHot(nn.Module):
    """One-hot encoder of Discrete `[B]` or MultiDiscrete `[B, *components]` observations.

    Args:
        space: Observation space.
    """

    start: Tensor

    def __init__(self, space: Discrete | MultiDiscrete) -> None:
        super().__init__()
        counts = space.nvec if isinstance(space, MultiDiscrete) else space.n
        self.counts = [int(n) for n in np.asarray(counts).reshape(-1)]
        start = torch.as_tensor(np.asarray(space.start, np.int64).reshape(-1))
        self.register_buffer("start", start, persistent=False)
        self.out_features = sum(self.counts)

    def forward(self, x: Tensor) -> Tensor:
        """Indicators `[B, Σ n]` of observations `[B]` or `[B, *components]`."""
        return one_hot(x.reshape(x.shape[0], len(self.counts)).long() - self.start, self.counts)


class BinaryEncoder(nn.Module):
    """Encoder of MultiBinary observations as vectors of 0 and 1.

    Args:
        space: Observation space.
    """

    def __init__(self, space: MultiBinary) -> None:
        super().__init__()
        self.out_features = math.prod(space.shape)

    def forward(self, x: Tensor) -> Tensor:
        """Vectors `[B, n]` of observations `[B, *components]`."""
        return x.reshape(x.shape[0], self.out_features).float()


def is_image(space: Space[Any]) -> bool:
    """Whether observations look like images, by shape, dtype and bounds; see `Encoder`."""
    if not isinstance(space, Box) or not 2 <= len(space.shape) <= 4 or space.dtype is None:
        return False
    channels, height, width = image_shape(space.shape)
    if min(height, width) < MIN_IMAGE_SIDE or channels > MAX_IMAGE_CHANNELS:
        return False
    from_zero, tops = bool((space.low == 0).all()), {float(top) for top in (space.high.min(), space.high.max())}
    if space.dtype.kind == "f":
        return len(space.shape) > 2 or (from_zero and (tops == {1.0} or tops == {255.0}))
    return from_zero and tops == {255.0}


class Encoder(nn.Module):
    """Encoder of observations from any supported space to a feature vector.

    Discrete observations become one-hot vectors, and binary ones 0 and 1. A Box is either an image for convolutions, or
    flattened and standardized as a vector. `auto` takes a Box with sides of at least 28 for an image in three cases: it
    holds integers from 0 to 255; floats with a channel axis or stacked frames; or floats from 0 to 1 or 0 to 255. Small
    grids of codes, such as MiniGrid's 7×7×3, are therefore vectors.

    Args:
        space: Box, Discrete, MultiDiscrete or MultiBinary observation space.
        kind: `image` or `vector` to override `auto` for a Box.

    Raises:
        ConfigError: The kind is unknown, or `image` is given for a space that does not hold images.
    """

    def __init__(self, space: Space[Any], kind: EncoderKind = "auto") -> None:
        super().__init__()
        if kind not in get_args(EncoderKind):
            raise ConfigError(f"encoder is {kind!r}; choose one of {', '.join(get_args(EncoderKind))}")
        if kind == "image" and not (isinstance(space, Box) and 2 <= len(space.shape) <= 4):
            raise ConfigError(
                f"encoder is 'image', but the observation space is {space}; an image is a Box [H, W], [H, W, C], "
                "[C, H, W], or a stack of such frames"
            )
        self.kind: EncoderKind = kind
        self.standardize: Standardize | None = None
        self.encode: nn.Module | None = None
        if isinstance(space, Discrete | MultiDiscrete):
            self.encode = OneHot(space)
        elif isinstance(space, MultiBinary):
            self.encode = BinaryEncoder(space)
        elif isinstance(space, Box) and (kind == "image" or (kind == "auto" and is_image(space))):
            self.encode = ImageEncoder(space)
        if self.encode is not None:
            self.out_features: int = self.encode.out_features
        else:
            self.out_features = math.prod(space.shape or (1,))
            self.standardize = Standardize(self.out_features)

    def fit(self, observation: Tensor) -> None:
        """Fit the standardization of vector observations `[N, *obs]`; other observations need none."""
        if self.standardize is not None:
            self.standardize.fit(observation.reshape(len(observation), -1))

    def inference(self) -> Callable[[NDArray[Any]], NDArray[Any]] | None:
        """NumPy version of `forward` for standardized vectors; None for other observations. See `MLP.inference`."""
        if self.standardize is None:
            return None
        own, size = self.standardize, self.out_features
        mean, inverse_std, limit = own.mean.numpy(), own.inverse_std.numpy(), own.limit.numpy()

        def forward(observation: NDArray[Any]) -> NDArray[Any]:
            # Cast before subtracting, as `forward` does.
            x: NDArray[Any] = observation.reshape(-1, size).astype(np.float32, copy=False) - mean
            x *= inverse_std
            np.minimum(x, limit, out=x)
            np.maximum(x, -limit, out=x)
            return x

        return forward

    def forward(self, observation: Tensor) -> Tensor:
        """Features `[B, out_features]` of observations `[B, *obs]`."""
        if self.standardize is not None:
            vectors = observation.reshape(observation.shape[0], self.out_features).float()
            return self.standardize(vectors)  # type: ignore[no-any-return]
        assert self.encode is not None
        return self.encode(observation)  # type: ignore[no-any-return]
