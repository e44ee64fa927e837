"""Conditional 1-D U-Net over the steps of an action chunk."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_imitation.networks.film import Backbone, Film
from lit_imitation.networks.mlp import Activation, activation_function

KERNEL = 5
"""Kernel size of the convolutions (Chi et al. 2023, appendix)."""
GROUPS = 8
"""Largest number of groups of a group normalization."""
MIN_GROUP = 4
"""Least number of channels of a group: a single one would lose its magnitude where the chunk has shrunk to one step."""


class ConvolutionBlock(nn.Module):
    """Two convolutions, each with group normalization and activation, FiLM between them, and a residual connection.

    Args:
        before: Channels of the input.
        channels: Channels of the output.
        activation: Activation.
        dropout: Probability of zeroing a hidden unit during training.
    """

    def __init__(self, before: int, channels: int, activation: Activation, dropout: float) -> None:
        super().__init__()
        groups = math.gcd(GROUPS, max(channels // MIN_GROUP, 1))
        self.first = nn.Conv1d(before, channels, KERNEL, padding=KERNEL // 2)
        self.second = nn.Conv1d(channels, channels, KERNEL, padding=KERNEL // 2)
        self.first_norm, self.second_norm = nn.GroupNorm(groups, channels), nn.GroupNorm(groups, channels)
        self.skip = nn.Conv1d(before, channels, 1) if before != channels else nn.Identity()
        self.dropout = dropout
        self._activate = activation_function(activation)

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """Outputs `[B, channels, L]` of `x: [B, before, L]`, with γ = 1 + `scale` and β = `shift`, `[B, channels]`."""
        h = self._activate(self.first_norm(self.first(x)))
        h = torch.addcmul(h + shift[..., None], h, scale[..., None])
        if self.dropout:
            h = F.dropout(h, self.dropout, self.training)
        output: Tensor = self._activate(self.second_norm(self.second(h))) + self.skip(x)
        return output


class ConditionalUNet(Backbone):
    """Conditional 1-D U-Net of Diffusion Policy (Chi et al. 2023, section 3.1, arXiv:2303.04137; Janner et al. 2022).

    Each resolution has two blocks on the way down and two on the way up, with a connection across. A chunk is padded
    with zeros at its end to a multiple of 2^(resolutions − 1) steps.

    Args:
        act_dim: Size A of an action.
        horizon: Number H of actions in a chunk.
        condition_features: Size C of the condition.
        hidden_sizes: Channels of each resolution, from fine to coarse.
        activation: Activation.
        dropout: Probability of zeroing a hidden unit during training.
        out_features: Size A' of an output.
        timed: Whether the network depends on a time.
    """

    def __init__(
        self,
        act_dim: int,
        horizon: int,
        condition_features: int,
        *,
        hidden_sizes: Sequence[int],
        activation: Activation,
        dropout: float,
        out_features: int,
        timed: bool,
    ) -> None:
        super().__init__()
        sizes = list(hidden_sizes)
        width, coarsest = sizes[0], sizes[-1]
        # In the order in which `modulated` takes them: down, middle, and up from coarse to fine; two blocks each.
        modulated = [size for size in (*sizes, coarsest, *reversed(sizes)) for _ in range(2)]
        self.film = Film(condition_features, width, modulated, activation, timed)

        def blocks(before: int, channels: int) -> nn.ModuleList:
            pairs = ((before, channels), (channels, channels))
            return nn.ModuleList(ConvolutionBlock(a, b, activation, dropout) for a, b in pairs)

        self.down = nn.ModuleList(blocks(a, b) for a, b in pairwise([act_dim, *sizes]))
        self.coarsen = nn.ModuleList(nn.Conv1d(size, size, 3, stride=2, padding=1) for size in sizes[:-1])
        self.middle = blocks(coarsest, coarsest)
        self.refine = nn.ModuleList(
            nn.ConvTranspose1d(coarse, fine, 4, stride=2, padding=1) for fine, coarse in pairwise(sizes)
        )
        self.up = nn.ModuleList(blocks(2 * size, size) for size in sizes)
        self.output = nn.Conv1d(width, out_features, 1)
        self.horizon = horizon
        self.padding = -horizon % 2 ** (len(sizes) - 1)

    def modulated(self, x: Tensor, modulation: Tensor) -> Tensor:
        """Outputs `[B, H, A']` of chunks `x: [B, H, A]` with the modulation `[B, 2 Σ sizes]` of time and condition."""
        layers = iter(self.film.split(modulation))
        h = F.pad(x.mT, (0, self.padding))
        across: list[Tensor] = []
        for i, blocks in enumerate(self.down):
            if i:
                h = self.coarsen[i - 1](h)
            h = _apply(blocks, h, layers)
            across.append(h)
        h = _apply(self.middle, h, layers)
        for i in reversed(range(len(self.up))):
            h = _apply(self.up[i], torch.cat([h, across[i]], 1), layers)
            if i:
                h = self.refine[i - 1](h)
        output: Tensor = self.output(h)
        return output[..., : self.horizon].mT


def _apply(blocks: nn.Module, h: Tensor, layers: Iterator[tuple[Tensor, Tensor]]) -> Tensor:
    assert isinstance(blocks, nn.ModuleList)
    for block in blocks:
        h = block(h, *next(layers))
    return h
