"""Continuous actions that stay inside their box: a Gaussian squashed by tanh."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from gymnasium import Space
from torch import Tensor

from lit_imitation.errors import UnsupportedSpaceError
from lit_imitation.networks.encoders import EncoderKind
from lit_imitation.networks.mlp import Activation
from lit_imitation.policies.base import Policy
from lit_imitation.policies.continuous import LOG_STD_MAX, LOG_STD_MIN, _ContinuousPolicy, soft_tanh
from lit_imitation.utils.units import MAX_HALF_WIDTH

EDGE = 1e-6
"""How far inside the bounds, in units of half the action range, an action at or beyond them is taken to be."""


class SquashedGaussianPolicy(_ContinuousPolicy):
    """a = center + scale · tanh(u) with u ~ N(μ(s), diag σ(s)²) (Haarnoja et al. 2018, appendix C). The density is

        log π(a | s) = Σ_i [ log N(u_i; μ_i, σ_i²) − log(1 − tanh² u_i) − log scale_i ].

    Where demonstrations use but a small part of the box, the scale is twice what they use (see `action_units`), and the
    policy reaches no further. Loss: the negative log-likelihood. An action at a bound of the box would be at u = ±∞; it
    counts as `EDGE` inside.

    Args:
        observation_space: Box or Discrete.
        action_space: Box, bounded on all sides.
        hidden_sizes: of the MLP.
        activation: between its layers.
        dropout: probability of zeroing a hidden unit while training.
        encoder: how observations are read: `image`, `vector`, or by their space; see `Encoder`.
    """

    room = 2.0

    def __init__(
        self,
        observation_space: Space[Any],
        action_space: Space[Any],
        *,
        hidden_sizes: Sequence[int] = (256, 256),
        activation: Activation = "relu",
        dropout: float = 0.0,
        encoder: EncoderKind = "auto",
    ) -> None:
        super().__init__(
            observation_space,
            action_space,
            2,
            hidden_sizes=hidden_sizes,
            activation=activation,
            dropout=dropout,
            encoder=encoder,
        )
        if not self.ranged.all():
            raise UnsupportedSpaceError(
                "SquashedGaussianPolicy needs an action space with finite bounds less than "
                f"{2 * MAX_HALF_WIDTH:g} apart; this one is {action_space}: use GaussianPolicy, or rescale the "
                "environment's actions"
            )

    def mean_and_log_std(self, head: Tensor) -> tuple[Tensor, Tensor]:
        """μ and log σ of u, `[B, act_dim]` each, from `[B, 2 act_dim]`."""
        mean, raw = head.chunk(2, -1)
        # The identity in the middle of the range, and a gradient everywhere, where clamping would stop it.
        middle, half = 0.5 * (LOG_STD_MIN + LOG_STD_MAX), 0.5 * (LOG_STD_MAX - LOG_STD_MIN)
        return mean, middle + half * soft_tanh((raw - middle) / half)

    def decode(self, head: Tensor, deterministic: bool) -> Tensor:
        """`[B, 2 act_dim]` to `[B, *act]` float32: tanh of the mean (not the mode of the density), or a draw."""
        mean, log_std = self.mean_and_log_std(head)
        u = mean if deterministic else mean + log_std.exp() * torch.randn_like(mean)
        return self.to_action(u.tanh())

    def sample(self, head: Tensor) -> Tensor:
        """`[B, 2 act_dim]` to drawn actions `[B, *act]`; inside the box but for rounding."""
        mean, log_std = self.mean_and_log_std(head)
        u = mean + log_std.exp() * torch.randn_like(mean)
        return torch.addcmul(self.center, u.tanh(), self.scale).reshape(-1, *self.shape)

    def rsample_with_log_prob(self, head: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Actions `[B, *act]` that are differentiable functions of the head, and their log π `[B]`.

        From u itself: to invert tanh would lose the digits near the bounds.

        Args:
            head: `[B, 2 act_dim]`.
            noise: `[B, act_dim]` of N(0, 1); drawn here if not given.
        """
        mean, log_std = self.mean_and_log_std(head)
        if noise is None:
            noise = torch.randn_like(mean)
        u = mean + log_std.exp() * noise
        action = torch.addcmul(self.center, u.tanh(), self.scale).reshape(-1, *self.shape)
        normal = -(0.5 * noise.square() + log_std + 0.5 * math.log(2 * math.pi))
        return action, (normal - self._log_slope(u)).sum(-1)

    def log_prob(self, observation: Tensor, action: Tensor) -> Tensor:
        """`[B]`: log π(action | observation), the density over actions in the environment's own units."""
        return self.head_log_prob(self.head(observation), action)

    def head_log_prob(self, head: Tensor, action: Tensor) -> Tensor:
        """`[B]`: the density's logarithm in the environment's own units."""
        mean, log_std = self.mean_and_log_std(head)
        u = self.from_action(action).clamp(-1.0 + EDGE, 1.0 - EDGE).atanh()
        z = (u - mean) * torch.exp(-log_std)
        normal = -(0.5 * z.square() + log_std + 0.5 * math.log(2 * math.pi))
        return (normal - self._log_slope(u)).sum(-1)

    def played_log_prob(self, head: Tensor, action: Tensor) -> Tensor:
        """`[B]`: the density's logarithm in units of half the action range; nothing is clipped."""
        return self.head_log_prob(head, action) + self.scale.log().sum()

    def head_kl(self, head: Tensor, reference: Policy, reference_head: Tensor) -> Tensor:
        """`[B]`: KL(π ‖ π_reference), exactly: one invertible map of both leaves that of their Gaussians as it was."""
        assert isinstance(reference, SquashedGaussianPolicy)
        mean, log_std = self.mean_and_log_std(head)
        other_mean, other_log_std = reference.mean_and_log_std(reference_head)
        squares = (2 * log_std).exp() + (mean - other_mean).square()
        return (other_log_std - log_std + 0.5 * squares * torch.exp(-2 * other_log_std) - 0.5).sum(-1)

    def head_entropy(self, head: Tensor) -> Tensor:
        """`[B]`: H(u) + E_u[log |da/du|], in the environment's own units.

        The expectation has no closed form. It is a sum of one-dimensional ones, each a trapezoidal sum over 6.4
        deviations on either side, which for a function as smooth as this is right to 1e-5 nats over the whole range
        of σ, and has no noise.
        """
        mean, log_std = self.mean_and_log_std(head)
        nodes = torch.linspace(-6.4, 6.4, 129, dtype=head.dtype, device=head.device)
        weights = torch.softmax(-0.5 * nodes.square(), -1)
        u = mean[..., None] + log_std.exp()[..., None] * nodes
        slope = (self._log_slope(u.mT).mT * weights).sum(-1)
        return (log_std + 0.5 * math.log(2 * math.pi * math.e) + slope).sum(-1)

    def loss(self, observation: Tensor, action: Tensor) -> Tensor:
        """`[B]`: −log π(action | observation)."""
        return -self.log_prob(observation, action)

    def _log_slope(self, u: Tensor) -> Tensor:
        """`[..., act_dim]`: log da/du = log(1 − tanh² u) + log scale; the first loses nothing, written like this."""
        return 2.0 * (math.log(2.0) - u - F.softplus(-2.0 * u)) + self.scale.log()
