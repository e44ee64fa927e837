"""Conditioning by FiLM, and a residual MLP of action chunks that uses it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_imitation.networks.mlp import Activation, activation_function

TIME_FEATURES = 64
"""Size of the embedding of a time."""
TIME_SCALE = 1000.0
"""Factor on times from 0 to 1, so that they have the range of the positions in Vaswani et al. (2017)."""


def time_frequencies(count: int = TIME_FEATURES // 2) -> Tensor:
    """Frequencies ω `[count]` that fall geometrically from `TIME_SCALE` to `TIME_SCALE` / 10⁴, in float64."""
    return TIME_SCALE * torch.logspace(0.0, -4.0, count, dtype=torch.float64)


def sinusoidal(t: Tensor, frequencies: Tensor) -> Tensor:
    """Embedding `[B, 2 F]` of times `t: [B]` in [0, 1]: sin ω_i t and cos ω_i t (Vaswani et al. 2017).

    Args:
        t: Times.
        frequencies: ω, `[F]`.
    """
    angle = t[:, None] * frequencies
    return torch.cat([angle.sin(), angle.cos()], -1)


class ConditionEmbedding(nn.Module):
    """Embedding of condition and time by an MLP with two layers; every FiLM layer of a network reads it.

    The condition enters a network here and nowhere else, so a change of the inputs' standardization can be taken in by
    one layer.

    Args:
        condition_features: Size of the condition.
        width: Size of the embedding.
        activation: Activation after each layer.
        timed: Whether there is a time.
    """

    frequencies: Tensor

    def __init__(self, condition_features: int, width: int, activation: Activation, timed: bool) -> None:
        super().__init__()
        self.register_buffer("frequencies", time_frequencies().float(), persistent=False)
        self.first = nn.Linear(condition_features + (TIME_FEATURES if timed else 0), width)
        self.second = nn.Linear(width, width)
        self.timed = timed
        self._activate = activation_function(activation)

    @property
    def first_layer(self) -> tuple[nn.Parameter, nn.Parameter]:
        """Weight `[width, in]` and bias `[width]` of the first layer, whose first inputs are the condition."""
        return self.first.weight, self.first.bias  # type: ignore[return-value]

    def forward(self, t: Tensor | None, condition: Tensor) -> Tensor:
        """Embedding `[B, width]` of times `t: [B]` and conditions `[B, C]`.

        Raises:
            ValueError: `t` is missing, or the embedding has no time.
        """
        if (t is not None) != self.timed:
            raise ValueError(f"the network was built {'with' if self.timed else 'without'} a time, but got t = {t}")
        x = condition if t is None else torch.cat([condition, sinusoidal(t, self.frequencies)], -1)
        embedding: Tensor = self._activate(self.second(self._activate(self.first(x))))
        return embedding


class FilmBlock(nn.Module):
    """Residual block h + W_2 act(γ ⊙ W_1 h + β) with FiLM's γ and β (Perez et al. 2018, arXiv:1709.07871).

    Args:
        before: Size of the input.
        width: Size of the output; if it differs from the input's, a linear map without bias carries h.
        activation: Activation.
        dropout: Probability of zeroing a hidden unit during training.
    """

    def __init__(self, before: int, width: int, activation: Activation, dropout: float) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(before, width), nn.Linear(width, width)
        self.skip = nn.Linear(before, width, bias=False) if before != width else nn.Identity()
        self.dropout = dropout
        self._activate = activation_function(activation)

    def forward(self, h: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """Outputs `[B, width]` of `h: [B, before]`, with γ = 1 + `scale` and β = `shift`, `[B, width]` each."""
        x = self.first(h)
        x = self._activate(torch.addcmul(x + shift, x, scale))
        if self.dropout:
            x = F.dropout(x, self.dropout, self.training)
        result: Tensor = self.skip(h) + self.second(x)
        return result


class FilmMLP(nn.Module):
    """Residual MLP of the flat chunk, with FiLM from condition and time.

    Args:
        act_dim: Size A of an action.
        horizon: Number H of actions in a chunk.
        condition_features: Size C of the condition.
        hidden_sizes: Width of each residual block.
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
        self.hidden_sizes = list(hidden_sizes)
        first, last = self.hidden_sizes[0], self.hidden_sizes[-1]
        self.embedding = ConditionEmbedding(condition_features, first, activation, timed)
        self.film = nn.Linear(first, 2 * sum(self.hidden_sizes))
        self.input = nn.Linear(horizon * act_dim, first)
        before = [first, *self.hidden_sizes[:-1]]
        self.blocks = nn.ModuleList(
            FilmBlock(a, b, activation, dropout) for a, b in zip(before, self.hidden_sizes, strict=True)
        )
        self.output = nn.Linear(last, horizon * out_features)
        self.horizon, self.out_features = horizon, out_features

    @property
    def first_layer(self) -> tuple[nn.Parameter, nn.Parameter]:
        """Weight and bias of the layer that reads the condition, as its first inputs."""
        return self.embedding.first_layer

    def forward(self, x: Tensor, t: Tensor | None, condition: Tensor) -> Tensor:
        """Outputs `[B, H, A']` of chunks `x: [B, H, A]`, times `t: [B]` in [0, 1] and conditions `[B, C]`."""
        # One product gives γ and β of all blocks.
        scales, shifts = self.film(self.embedding(t, condition)).chunk(2, -1)
        h = self.input(x.flatten(1))
        parts = zip(scales.split(self.hidden_sizes, -1), shifts.split(self.hidden_sizes, -1), strict=True)
        for block, (scale, shift) in zip(self.blocks, parts, strict=True):
            h = block(h, scale, shift)
        output: Tensor = self.output(h).view(-1, self.horizon, self.out_features)
        return output
