"""Values of observations, and of observations with actions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gymnasium import Space
from torch import Tensor, nn

from lit_imitation.policies.networks import MLP, Activation, Encoder


class Value(nn.Module):
    """V(s): an encoder and an MLP.

    Args:
        observation_space: Box or Discrete.
        hidden_sizes: of the MLP.
        activation: between its layers.
    """

    def __init__(self, observation_space: Space[Any], hidden_sizes: Sequence[int], activation: Activation) -> None:
        super().__init__()
        self.encoder = Encoder(observation_space)
        self.network = MLP([self.encoder.out_features, *hidden_sizes, 1], activation)

    def forward(self, observation: Tensor) -> Tensor:
        """`[B, *obs]` to `[B]`."""
        value: Tensor = self.network(self.encoder(observation))
        return value.squeeze(-1)
