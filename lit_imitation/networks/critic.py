"""Values of observations, and of observations with actions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import Space
from torch import Tensor, nn

from lit_imitation.networks.encoders import Encoder, EncoderKind
from lit_imitation.networks.mlp import MLP, Activation, EnsembleMLP


class Value(nn.Module):
    """V(s): an encoder and an MLP.

    Args:
        observation_space: Box or Discrete.
        hidden_sizes: of the MLP.
        activation: between its layers.
        encoder: see `Encoder`.
    """

    def __init__(
        self,
        observation_space: Space[Any],
        hidden_sizes: Sequence[int],
        activation: Activation,
        encoder: EncoderKind = "auto",
    ) -> None:
        super().__init__()
        self.encoder = Encoder(observation_space, encoder)
        self.network = MLP([self.encoder.out_features, *hidden_sizes, 1], activation)

    def forward(self, observation: Tensor) -> Tensor:
        """`[B, *obs]` to `[B]`."""
        value: Tensor = self.network(self.encoder(observation))
        return value.squeeze(-1)


class QFunctions(nn.Module):
    """Q_1 … Q_M: MLPs of one shape in one batched pass, behind one encoder.

    Args:
        observation_space: Box or Discrete.
        inputs: size of the action as a vector beside the observation; 0 where actions are discrete.
        outputs: number of discrete actions, whose values come out beside each other; 1 where actions are continuous.
        hidden_sizes: of each MLP.
        activation: between its layers.
        members: M.
        encoder: see `Encoder`.
    """

    def __init__(
        self,
        observation_space: Space[Any],
        inputs: int,
        outputs: int,
        hidden_sizes: Sequence[int],
        activation: Activation,
        members: int = 2,
        encoder: EncoderKind = "auto",
    ) -> None:
        super().__init__()
        self.encoder = Encoder(observation_space, encoder)
        sizes = [self.encoder.out_features + inputs, *hidden_sizes, outputs]
        self.network = EnsembleMLP(members, sizes, activation)

    def forward(self, observation: Tensor, action: Tensor | None = None) -> Tensor:
        """`[B, *obs]` to `[M, B, outputs]`; with a continuous action `[B, inputs]`, `[M, B, 1]`."""
        features = self.encoder(observation)
        values: Tensor = self.network(features if action is None else torch.cat([features, action], -1))
        return values
