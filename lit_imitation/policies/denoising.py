"""Base class of policies that turn noise into a chunk of actions step by step."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import Space
from torch import Tensor

from lit_imitation.networks.backbones import BackboneKind, make_backbone
from lit_imitation.networks.film import Backbone
from lit_imitation.networks.mlp import Activation
from lit_imitation.policies.sequence import SequencePolicy
from lit_imitation.utils.ranges import check_at_least

DEVIATIONS = 2.5
"""Largest half-range, in standard deviations, that is scaled to 1. A uniform distribution has 1.7.

Data that are small beside the noise are decided near a path's end, where a plan of few steps has one or two of them.
"""

MIN_RMS = 0.01
"""Least root mean square of scaled data that a network is preconditioned for; constant data have 0."""


class DenoisingPolicy(SequencePolicy):
    """Policy whose chunk x is the end of a path that begins at noise of N(0, I).

    The network sees each action dimension scaled so that the demonstrations fill [−1, 1], as in Diffusion Policy (Chi
    et al. 2023, arXiv:2303.04137): noise and data then have the same magnitude. Where few large actions make the range,
    `DEVIATIONS` standard deviations are scaled to 1 instead. Before `fit_actions` these are the units of the action
    space.

    A mode is not defined for such a policy. If deterministic, the path begins at x = 0, the most likely noise. Its end
    depends on the observation alone; between two equally likely modes it may lie in the middle, so evaluate with
    samples where the demonstrations have several modes.

    Args:
        observation_space: Box or Discrete observation space.
        action_space: Box action space.
        backbone: Network, see `make_backbone`.
        steps: Number of evaluations of the network, or of steps, that a plan takes.
        hidden_sizes: Sizes of the backbone: width of each residual block (`mlp`), channels of each resolution (`unet`),
            or width of each layer (`transformer`).
        activation: Activation of the backbone.
        **arguments: Arguments of `SequencePolicy`.

    Raises:
        ConfigError: `steps` is less than 1, or the sizes do not fit the backbone.
        UnsupportedSpaceError: The action space is not a Box.
    """

    has_mode = False
    network: Backbone
    data_center: Tensor
    data_scale: Tensor
    data_rms: Tensor
    data_low: Tensor
    data_high: Tensor

    def __init__(
        self,
        observation_space: Space[Any],
        action_space: Space[Any],
        *,
        backbone: BackboneKind = "mlp",
        steps: int = 10,
        hidden_sizes: Sequence[int] = (256, 256, 256, 256),
        activation: Activation = "silu",
        **arguments: Any,
    ) -> None:
        check_at_least(type(self).__name__, 1, steps=steps)
        self.backbone, self.steps = backbone, steps
        super().__init__(observation_space, action_space, hidden_sizes=hidden_sizes, activation=activation, **arguments)
        self.register_buffer("data_center", torch.zeros(self.act_dim))
        self.register_buffer("data_scale", torch.ones(self.act_dim))
        self.register_buffer("data_rms", torch.ones(self.act_dim))
        self.register_buffer("data_low", -torch.ones(self.act_dim))
        self.register_buffer("data_high", torch.ones(self.act_dim))

    @abstractmethod
    def denoise(self, x: Tensor, condition: Tensor) -> Tensor:
        """Chunks `[B, H, act_dim]` at the end of the paths that begin at noise `x: [B, H, act_dim]`."""

    def build_network(
        self, features: int, hidden_sizes: Sequence[int], activation: Activation, dropout: float
    ) -> Backbone:
        """Backbone with a time."""
        return make_backbone(
            self.backbone,
            self.act_dim,
            self.horizon,
            features,
            hidden_sizes=hidden_sizes,
            activation=activation,
            dropout=dropout,
        )

    @torch.no_grad()
    def fit_actions(self, action: Tensor) -> None:
        """Fit units and scaling to demonstrated actions `[N, *act]` or chunks `[N, H, *act]`."""
        super().fit_actions(action)
        u = self.from_action(action.reshape(-1, *self.shape))
        lowest, highest = u.amin(0), u.amax(0)
        half, most = (highest - lowest) / 2, DEVIATIONS * u.std(0, correction=0)
        scale = torch.where(half > most, most, half)
        self.data_center.copy_(torch.where(half > most, u.mean(0), (lowest + highest) / 2))
        self.data_scale.copy_(torch.where(scale > 1e-6, scale, 1.0))
        self.data_rms.copy_(self.scaled(u).square().mean(0).sqrt().clamp(min=MIN_RMS))
        self.data_low.copy_(self.scaled(lowest))
        self.data_high.copy_(self.scaled(highest))

    def scaled(self, u: Tensor) -> Tensor:
        """Units `[..., act_dim]` scaled to the range of the demonstrations."""
        return (u - self.data_center) / self.data_scale

    def draw(self, condition: Tensor, deterministic: bool) -> Tensor:
        """Chunks `[B, H, act_dim]` in units from N(0, I), or from 0 if deterministic."""
        x = condition.new_zeros(condition.shape[0], self.horizon, self.act_dim)
        if not deterministic:
            x = torch.randn_like(x)
        return torch.addcmul(self.data_center, self.denoise(x, condition), self.data_scale)
