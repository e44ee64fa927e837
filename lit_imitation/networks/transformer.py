"""A small causal transformer over the steps of an action chunk."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_imitation.errors import ConfigError
from lit_imitation.networks.film import Backbone, Film
from lit_imitation.networks.mlp import Activation, activation_function

HEADS = 4
"""Number of attention heads."""


class AttentionBlock(nn.Module):
    """Causal self-attention and an MLP, each on a normalized input that FiLM modulates (Peebles & Xie 2023).

    Args:
        width: Size of a token.
        activation: Activation of the MLP.
        dropout: Probability of zeroing an output of attention or MLP during training.
    """

    def __init__(self, width: int, activation: Activation, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.queries_keys_values, self.mix = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.expand, self.contract = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = dropout
        self._activate = activation_function(activation)

    def forward(self, h: Tensor, scale: Tensor, shift: Tensor, future: Tensor) -> Tensor:
        """Tokens `[B, H, width]` after the block.

        Args:
            h: Tokens `[B, H, width]`.
            scale: γ − 1 of the attention's input, then of the MLP's, `[B, 2 width]`.
            shift: β of the same, `[B, 2 width]`.
            future: `[H, H]`, true where column j is later than row i.
        """
        (scale, scale_2), (shift, shift_2) = scale[:, None].chunk(2, -1), shift[:, None].chunk(2, -1)
        x = self.norms[0](h)
        h = h + self._drop(self._attend(torch.addcmul(x + shift, x, scale), future))
        x = self.norms[1](h)
        x = self._activate(self.expand(torch.addcmul(x + shift_2, x, scale_2)))
        return h + self._drop(self.contract(x))

    def _attend(self, x: Tensor, future: Tensor) -> Tensor:
        """Softmax(Q Kᵀ / √d) V over the present and the past, `[B, H, width]` (Vaswani et al. 2017)."""
        batch, horizon, width = x.shape
        split = self.queries_keys_values(x).view(batch, horizon, 3, HEADS, width // HEADS)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        weight = (query @ key.mT / math.sqrt(width // HEADS)).masked_fill(future, -math.inf).softmax(-1)
        mixed: Tensor = self.mix((weight @ value).transpose(1, 2).reshape(batch, horizon, width))
        return mixed

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


class CausalTransformer(Backbone):
    """Transformer with one token for each action, which attends to itself and the actions before it.

    Time and condition modulate each layer by FiLM.

    Args:
        act_dim: Size A of an action.
        horizon: Number H of actions in a chunk.
        condition_features: Size C of the condition.
        hidden_sizes: Width of each layer, all equal and a multiple of `HEADS`.
        activation: Activation.
        dropout: Probability of zeroing an output of attention or MLP during training.
        out_features: Size A' of an output.
        timed: Whether the network depends on a time.

    Raises:
        ConfigError: The sizes differ, or are no multiples of `HEADS`.
    """

    future: Tensor

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
        width = hidden_sizes[0]
        if any(size != width for size in hidden_sizes) or width % HEADS:
            raise ConfigError(
                f"hidden_sizes is {list(hidden_sizes)}; the layers of a transformer must have equal sizes, divisible "
                f"by its {HEADS} attention heads"
            )
        self.film = Film(condition_features, width, [2 * width] * len(hidden_sizes), activation, timed)
        self.input = nn.Linear(act_dim, width)
        self.position = nn.Parameter(0.02 * torch.randn(horizon, width))
        self.blocks = nn.ModuleList(AttentionBlock(width, activation, dropout) for _ in hidden_sizes)
        self.norm, self.output = nn.LayerNorm(width), nn.Linear(width, out_features)
        self.register_buffer("future", torch.ones(horizon, horizon, dtype=torch.bool).triu(1), persistent=False)

    def modulated(self, x: Tensor, modulation: Tensor) -> Tensor:
        """Outputs `[B, H, A']` of chunks `x: [B, H, A]` with the modulation `[B, 2 Σ sizes]` of time and condition."""
        h = self.input(x) + self.position
        for block, (scale, shift) in zip(self.blocks, self.film.split(modulation), strict=True):
            h = block(h, scale, shift, self.future)
        output: Tensor = self.output(self.norm(h))
        return output
