"""Encoders from observations to feature vectors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import torch
from gymnasium import Space
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete
from numpy.typing import NDArray
from torch import Tensor, nn

from lit_imitation.errors import ConfigError
from lit_imitation.networks.image_encoders import ImageEncoder, ResNetEncoder, image_shape
from lit_imitation.networks.mlp import MLP, Activation, Standardize, activation_function, moments
from lit_imitation.networks.one_hot import one_hot
from lit_imitation.utils.arguments import argument_names, check_arguments
from lit_imitation.utils.ranges import check_finite, check_positive
from lit_imitation.utils.spaces import FlatBox, PackedBox, Part

Kind = Literal["auto", "image", "resnet18", "vector", "mlp"]
"""Kinds of encoders; `auto` chooses by the observation space."""
EncoderKind: TypeAlias = Kind | dict[str, str | bool | int | float | list | dict]  # type: ignore[type-arg]
"""A kind; a kind with options, `{kind: resnet18, crop: 76}`; or, for a Dict or Tuple, one of these for each path."""
MIN_IMAGE_SIDE, MAX_IMAGE_CHANNELS = 28, 64
"""Limits for `auto`: an array with a shorter side, or more channels times frames, is not an image."""


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


class VectorEncoder(nn.Module):
    """Standardization of vectors, followed by an MLP.

    Args:
        space: Box, whose arrays are flattened.
        features: Size of the output.
        hidden_sizes: Sizes of the hidden layers.
        activation: Activation after each layer, the last one included.
        name: Name of the encoder's options in messages.

    Raises:
        ConfigError: A size is less than 1.
    """

    def __init__(
        self,
        space: Box,
        features: int = 64,
        hidden_sizes: Sequence[int] = (64,),
        activation: Activation = "relu",
        name: str = "encoder",
    ) -> None:
        super().__init__()
        sizes = [math.prod(space.shape), *hidden_sizes, features]
        if min(sizes[1:]) < 1:
            raise ConfigError(f"{name} has the sizes {sizes[1:]}; each must be at least 1")
        self.standardize = Standardize(sizes[0])
        self.network = MLP(sizes, activation)
        self._activate = activation_function(activation)
        self.out_features = features

    def forward(self, x: Tensor) -> Tensor:
        """Features `[B, features]` of vectors `[B, *shape]`."""
        vectors = x.reshape(x.shape[0], -1).float()
        return self._activate(self.network(self.standardize(vectors)))


CLASSES: dict[str, type[ImageEncoder | ResNetEncoder | VectorEncoder]] = {
    "image": ImageEncoder,
    "resnet18": ResNetEncoder,
    "mlp": VectorEncoder,
}
"""Encoders with options, which are the arguments of their constructors."""
OPTIONS: dict[str, list[str]] = {
    kind: [name for name in argument_names(cls) if name not in ("space", "size", "name")]
    for kind, cls in (CLASSES | {"vector": Standardize}).items()
}
"""Names of the options by kind."""


class Inputs(NamedTuple):
    """Standardized numbers of an observation."""

    standardize: Standardize
    where: slice | MLP
    """Columns of the encoder's features that they are, or the network that reads them."""


class Encoder(nn.Module):
    """Encoder of observations from any supported space to a feature vector.

    Discrete observations become one-hot vectors, and binary ones 0 and 1. A Box is either an image for convolutions, or
    flattened and standardized as a vector. `auto` takes a Box with sides of at least 28 for an image in three cases: it
    holds integers from 0 to 255; floats with a channel axis or stacked frames; or floats from 0 to 1 or 0 to 255. Small
    grids of codes, such as MiniGrid's 7×7×3, are therefore vectors.

    | `kind` | reads | options |
    |---|---|---|
    | `vector` | any Box, flattened and standardized | `deviations`, see `Standardize` |
    | `mlp` | the same, through an MLP | those of `VectorEncoder` |
    | `image` | images, by three convolutions | those of `ImageEncoder` |
    | `resnet18` | images, by ResNet-18 and a spatial softmax | those of `ResNetEncoder` |

    A Dict or Tuple with images has one encoder for each of its parts, whose features are concatenated in its order.
    `kind` then names some or all of them by path, `{camera: {kind: resnet18, crop: 76}, robot/state: vector}`; the
    others are `auto`, and one kind alone counts for all. A Dict of vectors is one vector unless `kind` names its parts.

    Args:
        space: Box, Discrete, MultiDiscrete or MultiBinary observation space, or a Dict or Tuple of these made flat.
        kind: Encoder of a Box, or encoders by path.
        name: Name of the option in messages.

    Raises:
        ConfigError: A kind, option or path is unknown, an option is out of range, or an encoder of images is given for
            a space that does not hold images.
    """

    def __init__(self, space: Space[Any], kind: EncoderKind = "auto", name: str = "encoder") -> None:
        super().__init__()
        self.kind: EncoderKind = kind
        self.standardize: Standardize | None = None
        self.encode: nn.Module | None = None
        by_path = isinstance(space, FlatBox) and isinstance(kind, Mapping)
        options: dict[str, Any] = {}
        if isinstance(space, FlatBox) and (by_path or isinstance(space, PackedBox)):
            self.encode = SplitEncoder(space, kind, name)
        else:
            one, options = _kind_and_options(kind, name)
            self.encode = _encoder_of(space, one, options, name)
        if self.encode is not None:
            self.out_features: int = self.encode.out_features  # type: ignore[assignment]
        else:
            self.out_features = math.prod(space.shape or (1,))
            check_positive(name, **options)
            check_finite(name, **options)
            self.standardize = Standardize(self.out_features, **options)

    @property
    def inputs(self) -> list[Inputs]:
        """The standardized numbers, in the order of `vectors`."""
        if self.standardize is not None:
            return [Inputs(self.standardize, slice(0, self.out_features))]
        if isinstance(self.encode, VectorEncoder):
            return [Inputs(self.encode.standardize, self.encode.network)]
        return self.encode.inputs if isinstance(self.encode, SplitEncoder) else []

    @property
    def vector_size(self) -> int:
        """Number of standardized numbers; 0 if there are none."""
        return sum(len(one.standardize.mean) for one in self.inputs)

    @property
    def fitted(self) -> bool:
        """Whether there are standardized numbers, and their statistics have been set."""
        inputs = self.inputs
        return bool(inputs) and all(one.standardize.fitted for one in inputs)

    def vectors(self, observation: Tensor) -> Tensor:
        """Numbers `[N, vector_size]` of observations `[N, *obs]` before they are standardized."""
        if isinstance(self.encode, SplitEncoder):
            return self.encode.vectors(observation)
        if not self.inputs:
            return torch.empty(len(observation), 0, device=observation.device)
        return observation.reshape(len(observation), -1).float()

    def fit(self, observation: Tensor | Iterable[Tensor]) -> None:
        """Fit the standardization of vector observations `[N, *obs]`, whole or in parts; others need none."""
        if not isinstance(observation, Tensor):
            if self.inputs:
                self.set_statistics(*moments(map(self.vectors, observation)))
        elif isinstance(self.encode, SplitEncoder):
            self.encode.fit(observation)
        elif self.inputs:
            self.inputs[0].standardize.fit(observation.reshape(len(observation), -1))

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Standardize by this mean and standard deviation of `vectors`, `[vector_size]` each."""
        sizes = [len(one.standardize.mean) for one in self.inputs]
        for one, own_mean, own_std in zip(self.inputs, torch.split(mean, sizes), torch.split(std, sizes), strict=True):
            one.standardize.set_statistics(own_mean, own_std)

    def copy_statistics(self, source: Encoder) -> None:
        """Standardize as an encoder of the same observations does."""
        for own, other in zip(self.inputs, source.inputs, strict=True):
            own.standardize.load_state_dict(other.standardize.state_dict())

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


class SplitEncoder(nn.Module):
    """One encoder for each part of a Dict or Tuple observation; their features are concatenated in its order.

    `split` reads the flat rows, and `encode_parts` knows only parts, so that the latter can be used, or exported, with
    named inputs.

    Args:
        space: Flat space that remembers its parts.
        kind: Encoders by path, or one kind for all.
        name: Name of the option in messages.

    Raises:
        ConfigError: As `Encoder`, or a path does not exist.
    """

    def __init__(self, space: FlatBox, kind: EncoderKind, name: str = "encoder") -> None:
        super().__init__()
        self.parts, self.packed = space.parts, isinstance(space, PackedBox)
        self.paths = [part.path for part in self.parts]
        given: Mapping[str, Any] = kind if isinstance(kind, Mapping) else dict.fromkeys(self.paths, kind)
        if unknown := [path for path in given if path not in self.paths]:
            near = get_close_matches(str(unknown[0]), self.paths, 1)
            raise ConfigError(
                f"{name} names '{unknown[0]}', which is no observation: there are {', '.join(self.paths)}"
                + (f"; did you mean {near[0]}?" if near else "")
            )
        self.encoders = nn.ModuleList(
            Encoder(self.space_of(part), given.get(part.path, "auto"), f"{name}.{part.path}") for part in self.parts
        )
        self.out_features = sum(encoder.out_features for encoder in self.each())

    def space_of(self, part: Part) -> Space[Any]:
        """Space of a part as `split` gives it: discrete numbers are one-hot in a flat vector."""
        if self.packed or isinstance(part.space, Box):
            return part.space
        return Box(0.0, 1.0, (part.stop - part.start,))

    def each(self) -> list[Encoder]:
        """Encoders of the parts."""
        return list(self.encoders)  # type: ignore[arg-type]

    def split(self, observation: Tensor) -> dict[str, Tensor]:
        """Parts `[B, *shape]` by path of flat rows `[B, bytes]` or `[B, d]`, as views."""
        found = {}
        for part in self.parts:
            values = observation[:, part.start : part.stop]
            if self.packed and part.dtype != np.uint8:
                values = values.view(torch.int64 if part.dtype.kind == "i" else torch.float32)
            shape = self.space_of(part).shape or ()
            found[part.path] = values.view(len(values), *shape)
        return found

    def encode_parts(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Features `[B, out_features]` of parts `[B, *shape]` by path."""
        return torch.cat([encode(parts[path]) for path, encode in zip(self.paths, self.encoders, strict=True)], -1)

    def forward(self, observation: Tensor) -> Tensor:
        """Features `[B, out_features]` of flat rows `[B, bytes]` or `[B, d]`."""
        return self.encode_parts(self.split(observation))

    @property
    def inputs(self) -> list[Inputs]:
        """The standardized numbers of all parts."""
        found, start = [], 0
        for encoder in self.each():
            for standardize, where in encoder.inputs:
                placed = slice(start + where.start, start + where.stop) if isinstance(where, slice) else where
                found.append(Inputs(standardize, placed))
            start += encoder.out_features
        return found

    def vectors(self, observation: Tensor) -> Tensor:
        """Numbers `[N, vector_size]` of all parts before they are standardized."""
        parts = self.split(observation)
        each = zip(self.paths, self.each(), strict=True)
        return torch.cat([encoder.vectors(parts[path]) for path, encoder in each], -1)

    def fit(self, observation: Tensor) -> None:
        """Fit the standardization of all parts to observations `[N, *obs]`."""
        parts = self.split(observation)
        for path, encoder in zip(self.paths, self.each(), strict=True):
            encoder.fit(parts[path])


def _kind_and_options(given: EncoderKind, name: str) -> tuple[str, dict[str, Any]]:
    """Kind of an encoder, and options of its class."""
    if not isinstance(given, Mapping):
        kind, options = given, {}
    else:
        options = dict(given)
        kind = options.pop("kind", "auto")  # type: ignore[assignment]
    if kind not in get_args(Kind):
        raise ConfigError(f"{name} is {kind!r}; choose one of {', '.join(get_args(Kind))}")
    names = OPTIONS.get(kind, [])
    if unknown := [key for key in options if key not in names]:
        takes = f"takes {', '.join(names)}" if names else "has no options: name a kind"
        raise ConfigError(f"{name} has {unknown[0]!r}; {kind!r} {takes}")
    check_arguments(CLASSES.get(kind, Standardize), (), options, name)
    return kind, options


def _encoder_of(space: Space[Any], kind: str, options: dict[str, Any], name: str) -> nn.Module | None:
    """Encoder of one observation; None if it is a vector that is only standardized."""
    pictures = isinstance(space, Box) and 2 <= len(space.shape) <= 4
    if kind in ("image", "resnet18") and not pictures:
        raise ConfigError(
            f"{name} is {kind!r}, but the observation space is {space}; an image is a Box [H, W], [H, W, C], "
            "[C, H, W], or a stack of such frames"
        )
    if (kind == "mlp" or options) and not isinstance(space, Box):
        raise ConfigError(
            f"{name} is {kind!r}, but the observation space is {space}, which is read as one-hot or 0 and 1"
        )
    if isinstance(space, Discrete | MultiDiscrete):
        return OneHot(space)
    if isinstance(space, MultiBinary):
        return BinaryEncoder(space)
    if isinstance(space, Box) and kind == "auto" and is_image(space):
        return ImageEncoder(space)
    return CLASSES[kind](space, **options, name=name) if isinstance(space, Box) and kind in CLASSES else None
