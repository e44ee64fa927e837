"""Conditioning by FiLM, the base of the networks that use it, and a residual MLP of action chunks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from itertools import pairwise

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


class Film(nn.Module):
    """Scales and shifts of all layers of a network by FiLM (Perez et al. 2018, arXiv:1709.07871).

    An MLP embeds condition and time, and one linear map of the embedding gives every layer its γ − 1 and β. The
    condition enters a network here and nowhere else, so a change of the inputs' standardization can be taken in by one
    layer.

    Args:
        condition_features: Size C of the condition.
        width: Size of the embedding.
        sizes: Number of features that each layer scales and shifts.
        activation: Activation of the MLP.
        timed: Whether there is a time.
    """

    frequencies: Tensor

    def __init__(
        self, condition_features: int, width: int, sizes: Sequence[int], activation: Activation, timed: bool
    ) -> None:
        super().__init__()
        self.register_buffer("frequencies", time_frequencies().float(), persistent=False)
        self.first = nn.Linear(condition_features + (TIME_FEATURES if timed else 0), width)
        self.second = nn.Linear(width, width)
        self.output = nn.Linear(width, 2 * sum(sizes))
        self.sizes, self.timed = list(sizes), timed
        self._activate = activation_function(activation)

    @property
    def first_layer(self) -> tuple[nn.Parameter, nn.Parameter]:
        """Weight `[width, in]` and bias `[width]` of the first layer, whose first inputs are the condition."""
        return self.first.weight, self.first.bias  # type: ignore[return-value]

    def forward(self, t: Tensor | None, condition: Tensor) -> Tensor:
        """Modulation `[B, 2 Σ sizes]`, the scales before the shifts, at times `t: [B]` and conditions `[B, C]`.

        Raises:
            ValueError: `t` is missing, or the network has no time.
        """
        if (t is not None) != self.timed:
            raise ValueError(f"the network was built {'with' if self.timed else 'without'} a time, but got t = {t}")
        x = condition if t is None else torch.cat([condition, sinusoidal(t, self.frequencies)], -1)
        modulation: Tensor = self.output(self._activate(self.second(self._activate(self.first(x)))))
        return modulation

    def split(self, modulation: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Scale γ − 1 and shift β of each layer, `[B, size]` each."""
        scales, shifts = modulation.chunk(2, -1)
        parts = (torch.split(one, self.sizes, -1) for one in (scales, shifts))
        return list(zip(*parts, strict=True))


class Backbone(nn.Module):
    """Base of the networks that map a chunk of actions, a time and a condition to a chunk.

    A subclass creates `film`, and computes `modulated`.
    """

    film: Film

    @property
    def first_layer(self) -> tuple[nn.Parameter, nn.Parameter]:
        """Weight and bias of the layer that reads the condition, as its first inputs."""
        return self.film.first_layer

    def forward(self, x: Tensor, t: Tensor | None, condition: Tensor) -> Tensor:
        """Outputs `[B, H, A']` of chunks `x: [B, H, A]`, times `t: [B]` in [0, 1] and conditions `[B, C]`."""
        return self.modulated(x, self.film(t, condition))

    @abstractmethod
    def modulated(self, x: Tensor, modulation: Tensor) -> Tensor:
        """Outputs `[B, H, A']` of chunks `x: [B, H, A]` with the modulation `[B, 2 Σ sizes]` of time and condition."""

    def modulations(self, times: Sequence[float], condition: Tensor) -> tuple[Tensor, ...]:
        """Modulations `[B, 2 Σ sizes]` of all rows of `condition: [B, C]` at each time.

        A path needs them at times that are known before. All in one product read FiLM's weights, most of the network's,
        once instead of once a step.
        """
        t = condition.new_tensor(times)[:, None].expand(-1, condition.shape[0])
        repeated = condition.expand(len(times), -1, -1)
        modulation: Tensor = self.film(t.flatten(), repeated.flatten(0, 1))
        by_time: Tensor = modulation.unflatten(0, t.shape)  # type: ignore[no-untyped-call]
        return by_time.unbind(0)


class FilmBlock(nn.Module):
    """Residual block h + W_2 act(γ ⊙ W_1 h + β) with FiLM's γ and β.

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


class FilmMLP(Backbone):
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
        sizes = list(hidden_sizes)
        first, last = sizes[0], sizes[-1]
        self.film = Film(condition_features, first, sizes, activation, timed)
        self.input = nn.Linear(horizon * act_dim, first)
        self.blocks = nn.ModuleList(
            FilmBlock(before, width, activation, dropout) for before, width in pairwise([first, *sizes])
        )
        self.output = nn.Linear(last, horizon * out_features)
        self.horizon, self.out_features = horizon, out_features

    def modulated(self, x: Tensor, modulation: Tensor) -> Tensor:
        """Outputs `[B, H, A']` of chunks `x: [B, H, A]` with the modulation `[B, 2 Σ sizes]` of time and condition."""
        h = self.input(x.flatten(1))
        for block, (scale, shift) in zip(self.blocks, self.film.split(modulation), strict=True):
            h = block(h, scale, shift)
        output: Tensor = self.output(h).view(-1, self.horizon, self.out_features)
        return output
