"""Conditional variational autoencoder over chunks of actions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from gymnasium import Space
from torch import Tensor, nn

from lit_imitation.networks.backbones import BackboneKind, make_backbone
from lit_imitation.networks.mlp import MLP, Activation
from lit_imitation.policies.continuous import LOG_STD_MAX, LOG_STD_MIN, soft_bound
from lit_imitation.policies.sequence import SequencePolicy
from lit_imitation.utils.ranges import check_at_least, check_weights

INITIAL_LOG_STD = -3.0
"""Log σ of the reconstruction at the start. With a large σ, training soon ignores z, and stays in this optimum."""


def normal_kl(mean: Tensor, log_std: Tensor) -> Tensor:
    """Divergence `[B]` KL(N(μ, diag σ²) ‖ N(0, I)) = ½ Σ_i (μ_i² + σ_i² − 1 − log σ_i²) of `[B, d]` each."""
    return 0.5 * (mean.square() + (2.0 * log_std).exp() - 1.0 - 2.0 * log_std).sum(-1)


class ChunkAutoencoder(nn.Module):
    """Encoder q(z | chunk, condition) and decoder of chunks.

    Args:
        act_dim: Size A of an action.
        horizon: Number H of actions in a chunk.
        condition_features: Size C of the condition.
        latent_size: Size of z.
        backbone: Network of the decoder, see `make_backbone`.
        hidden_sizes: Sizes of the encoder's hidden layers, and of the backbone.
        activation: Activation.
        dropout: Probability of zeroing a hidden unit during training.
    """

    def __init__(
        self,
        act_dim: int,
        horizon: int,
        condition_features: int,
        *,
        latent_size: int,
        backbone: BackboneKind,
        hidden_sizes: Sequence[int],
        activation: Activation,
        dropout: float,
    ) -> None:
        super().__init__()
        inputs = condition_features + horizon * act_dim + horizon
        self.encoder = MLP([inputs, *hidden_sizes, 2 * latent_size], activation, dropout)
        self.query = nn.Linear(latent_size, horizon * act_dim)
        self.decoder = make_backbone(
            backbone,
            act_dim,
            horizon,
            condition_features + latent_size,
            hidden_sizes=hidden_sizes,
            activation=activation,
            dropout=dropout,
            timed=False,
        )
        self.act_dim, self.horizon = act_dim, horizon

    def encode(self, condition: Tensor, u: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log σ of z, `[B, latent_size]` each, from chunks `u: [B, H, A]` and their `mask: [B, H]`."""
        actions = (u * mask[..., None]).flatten(1)
        mean, log_std = self.encoder(torch.cat([condition, actions, mask], -1)).chunk(2, -1)
        return mean, soft_bound(log_std, LOG_STD_MIN, LOG_STD_MAX)

    def decode(self, condition: Tensor, z: Tensor) -> Tensor:
        """Chunks `[B, H, A]` of latent variables `z: [B, latent_size]`."""
        # z reaches the decoder twice: by FiLM, and as the chunk it begins with, which tells its steps apart.
        x = self.query(z).view(-1, self.horizon, self.act_dim)
        chunk: Tensor = self.decoder(x, None, torch.cat([condition, z], -1))
        return chunk


class CVAEPolicy(SequencePolicy):
    """Conditional variational autoencoder over chunks, as in ACT (Zhao et al. 2023, section 4.3, arXiv:2304.13705).

    With the encoder q(z | a, o) = N(μ, diag σ²), the prior N(0, I) and the decoder â(o, z), the loss is the negative
    evidence lower bound (Kingma & Welling 2014, arXiv:1312.6114) with a weight β of the divergence in closed form:

        L(θ) = E_{z ~ q} [ R(a, â(o, z)) ] + β KL( q(z | a, o) ‖ N(0, I) )

    - `gaussian`: R = −log N(a; â, diag σ_a²) with a free σ_a for each action dimension. With β = 1, −L is a lower bound
      on log π(a | o), and σ_a weighs reconstruction against divergence.
    - `l1`: R = Σ_i |a_i − â_i| in units, as in ACT. Up to a factor and a constant this is the bound for Laplace noise
      of scale β, so β has to be of the size of the errors that may remain.

    A padded action counts neither for R nor for q. A plan decodes z ~ N(0, I), or z = 0 if deterministic, as in ACT.
    Where the demonstrations have several modes, z = 0 may lie between them, and so do some samples: with two modes of
    equal weight and little noise, about one in ten, because no posterior covers the middle of the prior.

    Args:
        observation_space: Box or Discrete observation space.
        action_space: Box action space; bounded dimensions are scaled to [−1, 1] inside, see `action_units`.
        latent_size: Size of z.
        reconstruction: Reconstruction loss R.
        kl_weight: β. If it is too large, z is ignored, and all plans for an observation are the same.
        backbone: Network of the decoder, see `make_backbone`.
        **arguments: Arguments of `SequencePolicy`.

    Raises:
        ConfigError: An argument is out of range, or the sizes do not fit the backbone.
        UnsupportedSpaceError: The action space is not a Box.
    """

    network: ChunkAutoencoder

    def __init__(
        self,
        observation_space: Space[Any],
        action_space: Space[Any],
        *,
        latent_size: int = 8,
        reconstruction: Literal["l1", "gaussian"] = "gaussian",
        kl_weight: float = 1.0,
        backbone: BackboneKind = "mlp",
        **arguments: Any,
    ) -> None:
        check_at_least("CVAEPolicy", 1, latent_size=latent_size)
        check_weights("CVAEPolicy", kl_weight=kl_weight)
        self.latent_size, self.reconstruction, self.kl_weight = latent_size, reconstruction, kl_weight
        self.backbone: BackboneKind = backbone
        super().__init__(observation_space, action_space, **arguments)
        log_std = torch.full((self.act_dim,), INITIAL_LOG_STD)
        self.log_std = nn.Parameter(log_std) if reconstruction == "gaussian" else None

    def build_network(
        self, features: int, hidden_sizes: Sequence[int], activation: Activation, dropout: float
    ) -> nn.Module:
        """Encoder and decoder."""
        return ChunkAutoencoder(
            self.act_dim,
            self.horizon,
            features,
            latent_size=self.latent_size,
            backbone=self.backbone,
            hidden_sizes=hidden_sizes,
            activation=activation,
            dropout=dropout,
        )

    @property
    def observation_layers(self) -> list[tuple[nn.Parameter, nn.Parameter]]:
        """Layers whose first inputs are the condition: the first of the encoder, and one of the decoder."""
        return [self.network.encoder.first_layer, self.network.decoder.first_layer]

    def chunk_loss(self, condition: Tensor, u: Tensor, mask: Tensor) -> Tensor:
        """Negative evidence lower bound `[B]` with one draw of z, see the class."""
        mean, log_std = self.network.encode(condition, u, mask)
        z = torch.addcmul(mean, log_std.exp(), torch.randn_like(mean))
        errors = self.reconstruction_loss(u, self.network.decode(condition, z))
        return (errors.sum(-1) * mask).sum(-1) + self.kl_weight * normal_kl(mean, log_std)

    def reconstruction_loss(self, u: Tensor, decoded: Tensor) -> Tensor:
        """R of each action component, `[B, H, act_dim]`, of chunks and decoded chunks in units."""
        if self.log_std is None:
            return (u - decoded).abs()
        log_std = soft_bound(self.log_std, LOG_STD_MIN, LOG_STD_MAX)
        z = (u - decoded) * torch.exp(-log_std)
        return 0.5 * z.square() + log_std + 0.5 * math.log(2 * math.pi) + self.scale.log()

    def draw(self, condition: Tensor, deterministic: bool) -> Tensor:
        """Chunks `[B, H, act_dim]` in units, decoded from z ~ N(0, I), or from z = 0 if deterministic."""
        z = condition.new_zeros(condition.shape[0], self.latent_size)
        return self.network.decode(condition, z if deterministic else torch.randn_like(z))
