"""State-value and action-value networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import Space
from torch import Tensor, nn

from lit_imitation.networks.encoders import Encoder, EncoderKind
from lit_imitation.networks.mlp import MLP, Activation, EnsembleMLP


class Value(nn.Module):
    """State value V(s): an encoder followed by an MLP.

    Args:
        observation_space: Box or Discrete observation space.
        hidden_sizes: Sizes of the MLP's hidden layers.
        activation: Activation between the layers.
        encoder: Kind of encoder, with its options, or encoders of parts by path; see `Encoder`.
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
        """Values `[B]` of observations `[B, *obs]`."""
        value: Tensor = self.network(self.encoder(observation))
        return value.squeeze(-1)


class QFunctions(nn.Module):
    """M action-value functions of equal shape behind one encoder, evaluated in one batched pass.

    Args:
        observation_space: Box or Discrete observation space.
        inputs: Size of the action vector; 0 for discrete actions.
        outputs: Number of discrete actions, one value each; 1 for continuous actions.
        hidden_sizes: Sizes of the hidden layers of each MLP.
        activation: Activation between the layers.
        members: Number M of functions.
        encoder: Kind of encoder, with its options, or encoders of parts by path; see `Encoder`.
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
        """Values `[M, B, outputs]` of observations `[B, *obs]`; `[M, B, 1]` with continuous actions `[B, inputs]`."""
        features = self.encoder(observation)
        values: Tensor = self.network(features if action is None else torch.cat([features, action], -1))
        return values
