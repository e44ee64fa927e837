"""Encoders of images: a small convolutional network, and ResNet-18 with a spatial softmax."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from gymnasium.spaces import Box
from torch import Tensor, nn

from lit_imitation.errors import ConfigError
from lit_imitation.utils.ranges import check_at_least, check_between

GRAY = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in the luminance of ITU-R 601."""
MIN_RESNET_SIDE = 33
"""Shortest side of an image for `ResNetEncoder`; of shorter ones the last map has one pixel in that direction."""


def image_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Channels, height and width of `[H, W]`, `[H, W, C]`, `[C, H, W]`, or a stack of such frames.

    The channel axis is the shorter one of a frame's first and last axis. Stacked frames count as channels.
    """
    if len(shape) == 2:
        return 1, *shape
    *stack, first, middle, last = shape
    channels, height, width = (last, first, middle) if last < first else (first, middle, last)
    return channels * math.prod(stack), height, width


class Pixels(nn.Module):
    """Images of any supported layout as `[B, C, H, W]` floats, cropped, and scaled to [0, 1] by their space's bounds.

    Where gradients are taken in training mode, the place of the crop is drawn uniformly for each image, and the colors
    are jittered; otherwise the crop is the middle of the image. Images without bounds are not scaled.

    Args:
        space: Box of images. See `image_shape` for the supported axis orders.
        crop: Height and width of the crop, one number for both; None for the whole image.
        color_jitter: j of factors drawn from [1 − j, 1 + j] for each image: brightness x ↦ f x; contrast
            x ↦ f x + (1 − f) m, where m is the mean luminance; and, for images of 3 channels, saturation
            x ↦ f x + (1 − f) l, where l is the luminance of the pixel. Each result is clipped to [0, 1].
        name: Name of the encoder's options in messages.

    Raises:
        ConfigError: The crop is larger than the image, j is outside [0, 1), or j is above 0 for images without bounds.
    """

    def __init__(
        self,
        space: Box,
        crop: int | Sequence[int] | None = None,
        color_jitter: float = 0.0,
        name: str = "encoder",
    ) -> None:
        super().__init__()
        shape = space.shape
        self.frame = len(shape)
        self.channels_last = len(shape) > 2 and shape[-1] < shape[-3]
        self.channels, *size = image_shape(shape)
        sides = [crop, crop] if isinstance(crop, int) else list(size if crop is None else crop)
        if len(sides) != 2 or min(sides) < 1:
            raise ConfigError(f"{name}.crop is {crop}; it must be one side, or height and width, each at least 1")
        if any(side > whole for side, whole in zip(sides, size, strict=True)):
            raise ConfigError(f"{name}.crop is {crop}, larger than the image, whose height and width are {size}")
        self.height, self.width = sides
        self.free = [whole - side for side, whole in zip(sides, size, strict=True)]
        check_between(name, 0.0, 1.0, color_jitter=color_jitter)
        low, high = float(space.low.min()), float(space.high.max())
        scaled = low < high and high - low < 1e6
        self.low, self.range = (low, high - low) if scaled else (0.0, 1.0)
        if color_jitter and not scaled:
            raise ConfigError(f"{name}.color_jitter is {color_jitter}, but the images have no bounds: {space}")
        self.color_jitter = color_jitter

    def forward(self, x: Tensor) -> Tensor:
        """Floats `[B, C, height, width]` of images `[B, *shape]` of any dtype."""
        augments = self.training and torch.is_grad_enabled()
        if self.channels_last:
            x = x.movedim(-1, -3)
        x = x.unsqueeze(1) if self.frame == 2 else x.flatten(1, -3)
        if any(self.free):
            x = self._crop(x, augments)
        x = x.float()
        x = (x - self.low if self.low else x) / self.range
        return self._jitter(x) if augments and self.color_jitter else x

    def _crop(self, x: Tensor, random: bool) -> Tensor:
        if not random:
            row, column = (free // 2 for free in self.free)
            return x[..., row : row + self.height, column : column + self.width]
        rows = torch.arange(len(x), device=x.device)
        top, left = (torch.randint(free + 1, (len(x),), device=x.device) for free in self.free)
        # All crops as a view, of which one is copied for each image.
        return x.unfold(2, self.height, 1).unfold(3, self.width, 1)[rows, :, top, left]

    def _jitter(self, x: Tensor) -> Tensor:
        spread = self.color_jitter * (2.0 * torch.rand(3, len(x), 1, 1, 1, device=x.device, dtype=x.dtype) - 1.0)
        brightness, contrast, saturation = 1.0 + spread
        x = (brightness * x).clamp(0.0, 1.0)
        gray = self._luminance(x).mean((1, 2, 3), keepdim=True)
        x = torch.lerp(gray, x, contrast).clamp(0.0, 1.0)
        if self.channels != 3:
            return x
        return torch.lerp(self._luminance(x).expand_as(x), x, saturation).clamp(0.0, 1.0)

    def _luminance(self, x: Tensor) -> Tensor:
        """`[B, 1, H, W]`; the mean of the channels if there are not three."""
        if self.channels != 3:
            return x.mean(1, keepdim=True)
        return (x * x.new_tensor(GRAY)[:, None, None]).sum(1, keepdim=True)


class ImageEncoder(nn.Module):
    """Three strided convolutions (Mnih et al. 2015) on images, scaled to [0, 1] by the bounds of their space.

    Args:
        space: Box of images.
        features: Size of the output.
        crop: Side of a crop, or its height and width, see `Pixels`.
        color_jitter: Strength of the color jitter in training, see `Pixels`.
        name: Name of the encoder's options in messages.

    Raises:
        ConfigError: An argument is out of range.
    """

    def __init__(
        self,
        space: Box,
        features: int = 256,
        crop: int | Sequence[int] | None = None,
        color_jitter: float = 0.0,
        name: str = "encoder",
    ) -> None:
        super().__init__()
        check_at_least(name, 1, features=features)
        self.pixels = Pixels(space, crop, color_jitter, name)
        channels, height, width = self.pixels.channels, self.pixels.height, self.pixels.width
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
        encoded: Tensor = self.layers(self.pixels(x))
        return encoded


class ResNetEncoder(nn.Module):
    """ResNet-18 (He et al. 2016, arXiv:1512.03385) with the changes of Diffusion Policy (Chi et al. 2023,
    arXiv:2303.04137, section III.B): GroupNorm in place of BatchNorm, and a spatial softmax in place of the mean.

        images → ResNet-18 → 1×1 convolution to K maps → K expected coordinates → linear layer

    The weights are random: nothing is downloaded.

    Args:
        space: Box of images.
        features: Size of the output.
        keypoints: Number K of maps.
        crop: Side of a crop, or its height and width, see `Pixels`. Chi et al. crop 84 to 76 pixels.
        color_jitter: Strength of the color jitter in training, see `Pixels`.
        name: Name of the encoder's options in messages.

    Raises:
        ConfigError: An argument is out of range, or a side of the cropped image is shorter than 33 pixels.
    """

    def __init__(
        self,
        space: Box,
        features: int = 64,
        keypoints: int = 32,
        crop: int | Sequence[int] | None = None,
        color_jitter: float = 0.0,
        name: str = "encoder",
    ) -> None:
        super().__init__()
        check_at_least(name, 1, features=features, keypoints=keypoints)
        self.pixels = Pixels(space, crop, color_jitter, name)
        if min(self.pixels.height, self.pixels.width) < MIN_RESNET_SIDE:
            raise ConfigError(
                f"{name} is 'resnet18', but its images have {self.pixels.height}×{self.pixels.width} pixels; each side "
                f"must be at least {MIN_RESNET_SIDE}: choose 'image'"
            )
        self.trunk = resnet18(self.pixels.channels)
        self.maps = nn.Conv2d(512, keypoints, 1, bias=False)  # the softmax would cancel a bias
        self.softmax = SpatialSoftmax()
        self.linear = nn.Linear(2 * keypoints, features)
        self.out_features = features

    def forward(self, x: Tensor) -> Tensor:
        """Features `[B, features]` of images `[B, *shape]` of any dtype."""
        encoded: Tensor = self.linear(self.softmax(self.maps(self.trunk(self.pixels(x)))))
        return encoded


class SpatialSoftmax(nn.Module):
    """Expected coordinates of each map a under p = softmax over its pixels (Levine et al. 2016, arXiv:1504.00702; Finn
    et al. 2016, arXiv:1509.06113):

        x̄ = Σ_ij p_ij x_j,    ȳ = Σ_ij p_ij y_i,    p = softmax(a),    x and y from −1 (left, top) to 1.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """Coordinates `[B, 2K]`, x before y of each map, of maps `[B, K, H, W]`."""
        height, width = maps.shape[-2:]
        x, y = (torch.linspace(-1.0, 1.0, n, device=maps.device, dtype=maps.dtype) for n in (width, height))
        p = maps.flatten(2).softmax(-1).view(maps.shape)
        return torch.stack([(p.sum(-2) * x).sum(-1), (p.sum(-1) * y).sum(-1)], -1).flatten(1)


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalization (Wu & He 2018, arXiv:1803.08494) in groups of 16 channels, as Chi et al. use it."""
    return nn.GroupNorm(channels // 16, channels)


class ResidualBlock(nn.Module):
    """relu(x + f(x)) with two 3×3 convolutions f; a 1×1 convolution adapts x where stride or channels change.

    Args:
        channels: Channels of the input.
        filters: Channels of the output.
        stride: Stride of the first convolution.
    """

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, filters, 3, stride, padding=1, bias=False)
        self.second = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([group_norm(filters), group_norm(filters)])
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or channels != filters:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, filters, 1, stride, bias=False), group_norm(filters))

    def forward(self, x: Tensor) -> Tensor:
        """Maps `[B, filters, H / stride, W / stride]` of maps `[B, channels, H, W]`."""
        residual = self.norms[1](self.second(F.relu(self.norms[0](self.first(x)))))
        return F.relu(self.shortcut(x) + residual)


def resnet18(channels: int) -> nn.Sequential:
    """ResNet-18 without its mean and last layer: maps `[B, 512, H / 32, W / 32]` of images `[B, channels, H, W]`."""
    layers: list[nn.Module] = [
        nn.Conv2d(channels, 64, 7, 2, padding=3, bias=False),
        group_norm(64),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, padding=1),
    ]
    before = 64
    for filters in (64, 128, 256, 512):
        layers += [ResidualBlock(before, filters, 1 if filters == before else 2), ResidualBlock(filters, filters, 1)]
        before = filters
    network = nn.Sequential(*layers)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network
