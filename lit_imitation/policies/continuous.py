"""Continuous actions with one mode: a Gaussian, and a plain function with a choice of regression losses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import Space
from gymnasium.spaces import Box
from torch import Tensor, nn

from lit_imitation.errors import UnsupportedSpaceError
from lit_imitation.policies.base import Policy
from lit_imitation.policies.networks import Activation

LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0
"""Range of log σ in units of half the action range: a density may sharpen on noiseless demonstrations, not collapse."""


class BoxActions(nn.Module):
    """Actions `[B, *act]` in a box, written as u = (action − centre) / scale, `[B, act_dim]`.

    Centre and half-width of each bounded dimension map it to [−1, 1]; an unbounded one is left as it is.
    """

    low: Tensor
    high: Tensor
    centre: Tensor
    scale: Tensor

    def set_box(self, space: Box) -> None:
        """Take the bounds; buffers, so that they are where the parameters are."""
        self.shape, self.act_dim = space.shape, math.prod(space.shape)
        low, high = space.low.astype(np.float64).ravel(), space.high.astype(np.float64).ravel()
        bounded = np.isfinite(low) & np.isfinite(high)
        wide = bounded & (high > low)  # a dimension with one value only has no scale
        with np.errstate(invalid="ignore"):
            centre, scale = np.where(bounded, (low + high) / 2, 0.0), np.where(wide, (high - low) / 2, 1.0)
        # The nearest float32 to a float64 bound may lie outside: step inwards, so that a clipped action does not.
        inner_low, inner_high = low.astype(np.float32), high.astype(np.float32)
        inner_low = np.where(inner_low < low, np.nextafter(inner_low, np.float32(np.inf)), inner_low)
        inner_high = np.where(inner_high > high, np.nextafter(inner_high, np.float32(-np.inf)), inner_high)
        for name, values in (("low", inner_low), ("high", inner_high), ("centre", centre), ("scale", scale)):
            self.register_buffer(name, torch.as_tensor(values, dtype=torch.float32))
        self.bounded = bool(bounded.all())

    def to_box(self, u: Tensor) -> Tensor:
        """`[..., act_dim]` to actions in the environment's units, flat as it came, clipped into the box."""
        return torch.clamp(torch.addcmul(self.centre, u, self.scale), self.low, self.high)

    def clip(self, action: Tensor) -> Tensor:
        """`[B, *act]`, clipped into the box."""
        if len(self.shape) == 1:
            return torch.clamp(action, self.low, self.high)
        return torch.clamp(action.flatten(1), self.low, self.high).reshape(action.shape)

    def to_action(self, u: Tensor) -> Tensor:
        """`[B, act_dim]` to `[B, *act]`, clipped into the box."""
        action = self.to_box(u)
        return action if len(self.shape) == 1 else action.reshape(-1, *self.shape)

    def from_action(self, action: Tensor) -> Tensor:
        """`[B, *act]` to `[B, act_dim]`."""
        return (action.reshape(len(action), self.act_dim) - self.centre) / self.scale


class _ContinuousPolicy(BoxActions, Policy):
    """What the two share: a head with one or two outputs for each dimension of a box of actions."""

    def __init__(
        self, observation_space: Space[Any], action_space: Space[Any], outputs_per_action: int, **arguments: Any
    ) -> None:
        if not isinstance(action_space, Box):
            raise UnsupportedSpaceError(
                f"{type(self).__name__} needs continuous actions; this environment's are {action_space}"
            )
        outputs = outputs_per_action * math.prod(action_space.shape)
        super().__init__(observation_space, action_space, outputs, **arguments)
        self.set_box(action_space)


class GaussianPolicy(_ContinuousPolicy):
    """π(a | s) = N(a; μ(s), diag σ²). Loss: the negative log-likelihood

        −log π(a | s) = Σ_i [ (a_i − μ_i)² / 2σ_i² + log σ_i + ½ log 2π ].

    The likelihood is of the demonstrated action itself; draws are clipped into the box when acted.

    Args:
        observation_space: Box or Discrete.
        action_space: Box; each bounded dimension is scaled to [−1, 1] inside.
        std: `free`, one σ per action dimension; or `state`, σ(s) from the network.
        hidden_sizes: of the MLP.
        activation: between its layers.
        dropout: probability of zeroing a hidden unit while training.
    """

    def __init__(
        self,
        observation_space: Space[Any],
        action_space: Space[Any],
        *,
        std: Literal["free", "state"] = "free",
        hidden_sizes: Sequence[int] = (256, 256),
        activation: Activation = "relu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(
            observation_space,
            action_space,
            1 if std == "free" else 2,
            hidden_sizes=hidden_sizes,
            activation=activation,
            dropout=dropout,
        )
        self.log_std = nn.Parameter(torch.zeros(self.act_dim)) if std == "free" else None

    def mean_and_log_std(self, head: Tensor) -> tuple[Tensor, Tensor]:
        """μ and log σ of u, `[B, act_dim]` each (`[act_dim]` for a free σ), from `[B, outputs]`."""
        if self.log_std is not None:
            return head, self.log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)
        mean, raw = head.chunk(2, -1)
        # tanh keeps a gradient where clamping would stop it, and starts near σ = 1 / 2.
        return mean, LOG_STD_MIN + 0.5 * (LOG_STD_MAX - LOG_STD_MIN) * (torch.tanh(raw) + 1.0)

    def decode(self, head: Tensor, deterministic: bool) -> Tensor:
        """`[B, outputs]` to `[B, *act]` float32: the mean, or a draw."""
        mean, log_std = self.mean_and_log_std(head)
        return self.to_action(mean if deterministic else mean + log_std.exp() * torch.randn_like(mean))

    def sample(self, head: Tensor) -> Tensor:
        """`[B, outputs]` to drawn actions `[B, *act]` in the environment's own units, before they are clipped."""
        mean, log_std = self.mean_and_log_std(head)
        u = torch.addcmul(mean, log_std.exp(), torch.randn_like(mean))
        action = torch.addcmul(self.centre, u, self.scale)
        return action if len(self.shape) == 1 else action.reshape(-1, *self.shape)

    def rsample_with_log_prob(self, head: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions `[B, *act]`, not clipped, that are differentiable functions of the head, and their log π `[B]`.

        Args:
            head: `[B, outputs]`.
            noise: `[B, act_dim]` of N(0, 1).
        """
        mean, log_std = self.mean_and_log_std(head)
        action = torch.addcmul(self.centre, mean + log_std.exp() * noise, self.scale).reshape(-1, *self.shape)
        normal = -(0.5 * noise.square() + log_std + 0.5 * math.log(2 * math.pi))
        return action, (normal - self.scale.log()).sum(-1)

    def log_prob(self, observation: Tensor, action: Tensor) -> Tensor:
        """`[B]`: log π(action | observation), the density over actions in the environment's own units."""
        return self.head_log_prob(self.head(observation), action)

    def head_log_prob(self, head: Tensor, action: Tensor) -> Tensor:
        """`[B]`: Σ_i log N(a_i; μ_i, σ_i²), in the environment's own units."""
        mean, log_std = self.mean_and_log_std(head)
        z = (self.from_action(action) - mean) * torch.exp(-log_std)
        return -(0.5 * z.square() + log_std + (0.5 * math.log(2 * math.pi)) + self.scale.log()).sum(-1)

    def played_log_prob(self, head: Tensor, action: Tensor) -> Tensor:
        """`[B]`: of a censored Gaussian: the density inside the box, at a bound the mass of all draws beyond it."""
        mean, log_std = self.mean_and_log_std(head)
        inverse = torch.exp(-log_std)
        z = (self.from_action(action) - mean) * inverse
        density = -(0.5 * z.square() + log_std + 0.5 * math.log(2 * math.pi))
        below, above = (((bound - self.centre) / self.scale - mean) * inverse for bound in (self.low, self.high))
        inside = torch.where(z > below, density, torch.special.log_ndtr(below))
        return torch.where(z < above, inside, torch.special.log_ndtr(-above)).sum(-1)

    def head_kl(self, head: Tensor, reference: Policy, reference_head: Tensor) -> Tensor:
        """`[B]`: Σ_i log σ'_i/σ_i + (σ_i² + (μ_i − μ'_i)²) / 2σ'_i² − ½, μ' and σ' being the reference's."""
        assert isinstance(reference, GaussianPolicy)
        mean, log_std = self.mean_and_log_std(head)
        other_mean, other_log_std = reference.mean_and_log_std(reference_head)
        squares = (2 * log_std).exp() + (mean - other_mean).square()
        return (other_log_std - log_std + 0.5 * squares * torch.exp(-2 * other_log_std) - 0.5).sum(-1)

    def loss(self, observation: Tensor, action: Tensor) -> Tensor:
        """`[B]`: −log π(action | observation)."""
        return -self.log_prob(observation, action)

    def head_entropy(self, head: Tensor) -> Tensor:
        """`[B]`: Σ_i log σ_i + ½ log 2πe, in the environment's own units, before clipping."""
        mean, log_std = self.mean_and_log_std(head)
        return (log_std.expand_as(mean) + 0.5 * math.log(2 * math.pi * math.e) + self.scale.log()).sum(-1)


class DeterministicPolicy(_ContinuousPolicy):
    """a = centre + scale · tanh(z(s)), regressed on the demonstrated action with a choice of loss.

    With r = u(a) − tanh(z(s)), summed over action dimensions:

    - `mse`: r²;
    - `huber`: r²/2 for |r| ≤ δ, else δ(|r| − δ/2): outliers pull with a bounded force;
    - `log_cosh`: log cosh r, smooth, r²/2 for small and |r| − log 2 for large residuals.

    An action space without bounds has no tanh.

    Args:
        observation_space: Box or Discrete.
        action_space: Box.
        regression: the loss.
        huber_delta: δ, in units of half the action range.
        hidden_sizes: of the MLP.
        activation: between its layers.
        dropout: probability of zeroing a hidden unit while training.
    """

    def __init__(
        self,
        observation_space: Space[Any],
        action_space: Space[Any],
        *,
        regression: Literal["mse", "huber", "log_cosh"] = "mse",
        huber_delta: float = 0.1,
        hidden_sizes: Sequence[int] = (256, 256),
        activation: Activation = "relu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(
            observation_space, action_space, 1, hidden_sizes=hidden_sizes, activation=activation, dropout=dropout
        )
        self.regression, self.huber_delta = regression, huber_delta

    def squash(self, head: Tensor) -> Tensor:
        """`[B, outputs]` to u, `[B, act_dim]`."""
        return head.tanh() if self.bounded else head

    def decode(self, head: Tensor, deterministic: bool) -> Tensor:
        """`[B, outputs]` to `[B, *act]` float32; there is nothing to draw, so `deterministic` makes no difference."""
        return self.to_action(self.squash(head))

    def loss(self, observation: Tensor, action: Tensor) -> Tensor:
        """`[B]`: the regression loss summed over action dimensions."""
        residual = self.from_action(action) - self.squash(self.head(observation))
        if self.regression == "mse":
            return residual.square().sum(-1)
        if self.regression == "huber":
            return F.huber_loss(residual, torch.zeros_like(residual), reduction="none", delta=self.huber_delta).sum(-1)
        # log cosh r = |r| + log(1 + e^(−2|r|)) − log 2, which does not overflow.
        magnitude = residual.abs()
        return (magnitude + F.softplus(-2.0 * magnitude) - math.log(2.0)).sum(-1)
