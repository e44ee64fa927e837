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


def log_normal(z: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log-density `[...]` of N(μ, diag σ²) at z, of `[..., d]` each."""
    normalized = (z - mean) * torch.exp(-log_std)
    return -(0.5 * normalized.square() + log_std + 0.5 * math.log(2 * math.pi)).sum(-1)


class MixturePrior(nn.Module):
    """Prior p(z | condition) = Σ_k w_k N(z; μ_k, diag σ_k²), whose weights, means and σ are an MLP's.

    The means begin apart, as draws from N(0, I), so that each part of the posteriors finds a component near it.

    Args:
        condition_features: Size C of the condition.
        latent_size: Size d of z.
        components: Number K of Gaussians.
        hidden_sizes: Sizes of the hidden layers.
        activation: Activation.
        dropout: Probability of zeroing a hidden unit during training.
    """

    def __init__(
        self,
        condition_features: int,
        latent_size: int,
        components: int,
        *,
        hidden_sizes: Sequence[int],
        activation: Activation,
        dropout: float,
    ) -> None:
        super().__init__()
        self.components, self.latent_size = components, latent_size
        self.network = MLP([condition_features, *hidden_sizes, components * (1 + 2 * latent_size)], activation, dropout)
        means = slice(components, components * (1 + latent_size))
        with torch.no_grad():
            nn.init.normal_(self.network.layers[-1].bias[means])  # type: ignore[index]

    def forward(self, condition: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log w `[B, K]`, μ and log σ `[B, K, d]` at conditions `[B, C]`."""
        logits, rest = self.network(condition).tensor_split([self.components], -1)
        mean, log_std = rest.view(-1, 2, self.components, self.latent_size).unbind(1)
        return logits.log_softmax(-1), mean, soft_bound(log_std, LOG_STD_MIN, LOG_STD_MAX)

    def log_prob(self, condition: Tensor, z: Tensor) -> Tensor:
        """Log-density `[B]` of `z: [B, d]`."""
        log_weight, mean, log_std = self(condition)
        density: Tensor = (log_weight + log_normal(z[:, None], mean, log_std)).logsumexp(-1)
        return density

    def draw(self, condition: Tensor, deterministic: bool) -> Tensor:
        """Latent variables `[B, d]`: a sample, or the mean of the most likely component."""
        log_weight, mean, log_std = self(condition)
        index = log_weight.argmax(-1) if deterministic else torch.multinomial(log_weight.exp(), 1).squeeze(-1)
        row = torch.arange(index.shape[0], device=index.device)
        z: Tensor = mean[row, index]
        return z if deterministic else torch.addcmul(z, log_std[row, index].exp(), torch.randn_like(z))


class ChunkAutoencoder(nn.Module):
    """Prior p(z | condition), encoder q(z | chunk, condition) and decoder of chunks.

    Args:
        act_dim: Size A of an action.
        horizon: Number H of actions in a chunk.
        condition_features: Size C of the condition.
        latent_size: Size of z.
        prior_components: Number of Gaussians of the prior.
        backbone: Network of the decoder, see `make_backbone`.
        hidden_sizes: Sizes of the hidden layers of prior and encoder, and of the backbone.
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
        prior_components: int,
        backbone: BackboneKind,
        hidden_sizes: Sequence[int],
        activation: Activation,
        dropout: float,
    ) -> None:
        super().__init__()
        inputs = condition_features + horizon * act_dim + horizon
        self.encoder = MLP([inputs, *hidden_sizes, 2 * latent_size], activation, dropout)
        self.prior = MixturePrior(
            condition_features,
            latent_size,
            prior_components,
            hidden_sizes=hidden_sizes,
            activation=activation,
            dropout=dropout,
        )
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

    With the encoder q(z | a, o) = N(μ, diag σ²), the prior p(z | o) and the decoder â(o, z), the loss is the negative
    evidence lower bound (Kingma & Welling 2014, arXiv:1312.6114) with a weight β of the divergence:

        L(θ) = E_{z ~ q} [ R(a, â(o, z)) + β ( log q(z | a, o) − log p(z | o) ) ]

    - `gaussian`: R = −log N(a; â, diag σ_a²) with a free σ_a for each action dimension. With β = 1, −L is a lower bound
      on log π(a | o), and σ_a weighs reconstruction against divergence.
    - `l1`: R = Σ_i |a_i − â_i| in units, as in ACT. Up to a factor and a constant this is the bound for Laplace noise
      of scale β, so β has to be of the size of the errors that may remain.

    Unlike ACT's N(0, I), the prior is learned and depends on the observation (Sohn et al. 2015), and it is a mixture of
    Gaussians, see `MixturePrior`. Where demonstrations have several modes, the posteriors form clusters. N(0, I) also
    draws from the holes between the clusters, which the decoder maps to actions between the modes; of two modes, one
    sample in ten (compare Tomczak & Welling 2018, arXiv:1705.07120). A mixture leaves the holes empty.

    A padded action counts neither for R nor for q. A plan decodes z ~ p(z | o), or, if deterministic, the mean of the
    prior's most likely component, which lies in a cluster and not between two.

    Args:
        observation_space: Box or Discrete observation space.
        action_space: Box action space; bounded dimensions are scaled to [−1, 1] inside, see `action_units`.
        latent_size: Size of z.
        prior_components: Number of Gaussians of the prior; at least as many as there are modes.
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
        prior_components: int = 16,
        reconstruction: Literal["l1", "gaussian"] = "gaussian",
        kl_weight: float = 1.0,
        backbone: BackboneKind = "mlp",
        **arguments: Any,
    ) -> None:
        check_at_least("CVAEPolicy", 1, latent_size=latent_size, prior_components=prior_components)
        check_weights("CVAEPolicy", kl_weight=kl_weight)
        self.prior_components = prior_components
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
            prior_components=self.prior_components,
            backbone=self.backbone,
            hidden_sizes=hidden_sizes,
            activation=activation,
            dropout=dropout,
        )

    @property
    def observation_layers(self) -> list[tuple[nn.Parameter, nn.Parameter]]:
        """Layers whose first inputs are the condition: the first of prior and encoder, and one of the decoder."""
        network = self.network
        return [network.prior.network.first_layer, network.encoder.first_layer, network.decoder.first_layer]

    def chunk_loss(self, condition: Tensor, u: Tensor, mask: Tensor) -> Tensor:
        """Negative evidence lower bound `[B]` with one draw of z, see the class."""
        mean, log_std = self.network.encode(condition, u, mask)
        z = torch.addcmul(mean, log_std.exp(), torch.randn_like(mean))
        errors = self.reconstruction_loss(u, self.network.decode(condition, z))
        divergence = log_normal(z, mean, log_std) - self.network.prior.log_prob(condition, z)
        return (errors.sum(-1) * mask).sum(-1) + self.kl_weight * divergence

    def reconstruction_loss(self, u: Tensor, decoded: Tensor) -> Tensor:
        """R of each action component, `[B, H, act_dim]`, of chunks and decoded chunks in units."""
        if self.log_std is None:
            return (u - decoded).abs()
        log_std = soft_bound(self.log_std, LOG_STD_MIN, LOG_STD_MAX)
        z = (u - decoded) * torch.exp(-log_std)
        return 0.5 * z.square() + log_std + 0.5 * math.log(2 * math.pi) + self.scale.log()

    def draw(self, condition: Tensor, deterministic: bool) -> Tensor:
        """Chunks `[B, H, act_dim]` in units, decoded from z of the prior: a sample, or its likeliest mean."""
        return self.network.decode(condition, self.network.prior.draw(condition, deterministic))
