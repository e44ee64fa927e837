"""Policies with continuous actions: a Gaussian, and a deterministic function with a choice of regression losses."""

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

from lit_imitation.errors import ConfigError, UnsupportedSpaceError
from lit_imitation.networks.encoders import EncoderKind
from lit_imitation.networks.mlp import Activation
from lit_imitation.policies.base import Policy
from lit_imitation.utils.spaces import float32_bounds
from lit_imitation.utils.units import action_units

LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0
"""Range of log σ in units of half the action range, so that noiseless demonstrations cannot collapse the density."""
MARGIN = 1.0
"""Distance from the end of the range at which `soft_bound` starts to bend."""
BEND = 2.0
"""Magnitude |x| beyond which `soft_tanh` differs from tanh."""

FARTHEST = 1e4
"""Bound, in units, that stands for an infinite one in a censored likelihood; its tail has no mass."""


def soft_bound(x: Tensor, low: float, high: float) -> Tensor:
    """Identity between `low` + `MARGIN` and `high` − `MARGIN`; beyond, x approaches the bounds like 1/|x|.

    Unlike clamping, this has a continuous slope that is never 0, so a value can leave a bound again.
    """
    inner = x.clamp(low + MARGIN, high - MARGIN)
    over = x - inner
    return torch.addcdiv(inner, over, over.abs() + MARGIN, value=MARGIN)


def soft_bound_inverse(y: float, low: float, high: float) -> float:
    """Inverse of `soft_bound` for y between the bounds."""
    if y < low + MARGIN:
        return low + MARGIN - MARGIN * (low + MARGIN - y) / (y - low)
    if y > high - MARGIN:
        return high - MARGIN + MARGIN * (y - high + MARGIN) / (high - y)
    return y


def soft_tanh(x: Tensor) -> Tensor:
    """Tanh for |x| up to `BEND`; beyond, x approaches ±1 like 1/|x|. In float32 the slope of tanh is 0 from |x| = 9."""
    inner = x.clamp(-BEND, BEND)
    over, limit = x - inner, (1.0 - math.tanh(BEND))
    reach = 1.0 / (1.0 + math.tanh(BEND))  # makes the slope continuous at BEND
    return torch.addcdiv(inner.tanh(), over, over.abs() + reach, value=limit)


def log_normal_cdf(z: Tensor) -> Tensor:
    """Log of the standard normal's distribution function, log Φ(z).

    In float32 the gradient of `torch.special.log_ndtr` is wrong by percents from z = −1,000, and infinite further out.
    """
    below, above = z.clamp(max=0.0), z.clamp(min=0.0)
    tail = torch.log(0.5 * torch.special.erfcx(-below / math.sqrt(2.0))) - 0.5 * below.square()
    return torch.where(z < 0.0, tail, torch.log1p(-0.5 * torch.special.erfc(above / math.sqrt(2.0))))


def censor(log_density: Tensor, u: Tensor, mean: Tensor, log_std: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Log-likelihood of a censored Gaussian (Tobin 1958): at or beyond a bound it is the mass of the tail.

        log Φ((low − μ) / σ) for u ≤ low,    log Φ((μ − high) / σ) for u ≥ high,    else the density

    Args:
        log_density: Log-density of the Gaussian at u, `[..., act_dim]`.
        u: Actions in units.
        mean: Mean μ.
        log_std: Log σ.
        low: Lower bounds in units, `[act_dim]`; may be infinite.
        high: Upper bounds in units, `[act_dim]`; may be infinite.
    """
    inverse = torch.exp(-log_std)
    below, above = u <= low, u >= high
    low, high = low.clamp(min=-FARTHEST), high.clamp(max=FARTHEST)
    result = torch.where(below, log_normal_cdf((low - mean) * inverse), log_density)
    return torch.where(above, log_normal_cdf((mean - high) * inverse), result)


class BoxActions(nn.Module):
    """Mixin for actions `[B, *act]` in a box, with units u = (action − center) / scale `[B, act_dim]`.

    See `action_units` for center and scale.
    """

    low: Tensor
    high: Tensor
    center: Tensor
    scale: Tensor
    bounded: Tensor
    range_factor = 1.0
    """Factor on the range of demonstrated actions if they define the scale."""

    def set_box(self, space: Box, relative: bool = False) -> None:
        """Register bounds and units of the box as buffers, so that they move with the parameters.

        Args:
            space: Action space.
            relative: Whether units are those of displacements, which the bounds say nothing about.
        """
        self.shape, self.act_dim = space.shape, math.prod(space.shape)
        self.unit_space = Box(-np.inf, np.inf, space.shape) if relative else space
        units = action_units(self.unit_space)
        self.register_buffer("center", torch.as_tensor(units.center, dtype=torch.float32))
        self.register_buffer("scale", torch.as_tensor(units.scale, dtype=torch.float32))
        self.register_buffer("bounded", torch.as_tensor(units.bounded))
        for name, bound in zip(("low", "high"), float32_bounds(space), strict=True):
            self.register_buffer(name, torch.from_numpy(bound.reshape(-1).copy()), persistent=False)

    @torch.no_grad()
    def fit_actions(self, action: Tensor) -> None:
        """Fit the units to demonstrated actions `[N, *act]` where the bounds do not define them."""
        if isinstance(self.action_space, Box):
            units = action_units(self.unit_space, action.cpu().numpy(), self.range_factor)
            for name, values in units._asdict().items():
                getattr(self, name).copy_(torch.as_tensor(values))

    def squash(self, head: Tensor) -> Tensor:
        """Units u from the head `[..., act_dim]`: tanh where u ∈ [−1, 1] is the box, else the identity."""
        return torch.where(self.bounded, head.tanh(), head)

    def to_box(self, u: Tensor) -> Tensor:
        """Flat actions from units `[..., act_dim]`, in the environment's units and clipped to the box."""
        return torch.clamp(torch.addcmul(self.center, u, self.scale), self.low, self.high)

    def clip(self, action: Tensor) -> Tensor:
        """Clip actions `[B, *act]` to the box."""
        if len(self.shape) == 1:
            return torch.clamp(action, self.low, self.high)
        return torch.clamp(action.flatten(1), self.low, self.high).reshape(action.shape)

    def to_action(self, u: Tensor) -> Tensor:
        """Actions `[B, *act]` from units `[B, act_dim]`, clipped to the box."""
        action = self.to_box(u)
        return action if len(self.shape) == 1 else action.reshape(-1, *self.shape)

    def from_action(self, action: Tensor) -> Tensor:
        """Units `[B, act_dim]` of actions `[B, *act]`."""
        return (action.reshape(len(action), self.act_dim) - self.center) / self.scale


class _ContinuousPolicy(BoxActions, Policy):
    """Base class of policies with one or two outputs per dimension of a box of actions."""

    def __init__(
        self, observation_space: Space[Any], action_space: Space[Any], outputs_per_action: int, **arguments: Any
    ) -> None:
        if not isinstance(action_space, Box):
            raise UnsupportedSpaceError(f"{type(self).__name__} needs a Box action space, not {action_space}")
        outputs = outputs_per_action * math.prod(action_space.shape)
        super().__init__(observation_space, action_space, outputs, **arguments)
        self.set_box(action_space)


class GaussianPolicy(_ContinuousPolicy):
    """Gaussian policy π(a | s) = N(a; μ(s), diag σ²) with the negative log-likelihood as loss:

        −log π(a | s) = Σ_i [ (a_i − μ_i)² / 2σ_i² + log σ_i + ½ log 2π ].

    The likelihood is that of the unclipped action; samples are clipped to the box when executed. With `censored`, the
    loss is the likelihood of the executed action instead: a component at or beyond a bound contributes the Gaussian's
    mass from that bound on, see `censor`. The mean may then lie anywhere beyond the bound.

    Args:
        observation_space: Box or Discrete observation space.
        action_space: Box action space; bounded dimensions are scaled to [−1, 1] inside, see `action_units`.
        std: `free` for one parameter σ per action dimension, `state` for σ(s) from the network.
        censored: Count the mass beyond a bound for actions at or beyond it.
        hidden_sizes: Sizes of the MLP's hidden layers.
        activation: Activation between the layers.
        dropout: Probability of zeroing a hidden unit during training.
        encoder: Kind of encoder, with its options, or encoders of parts by path; see `Encoder`.

    Raises:
        UnsupportedSpaceError: The action space is not a Box.
    """

    def __init__(
        self,
        observation_space: Space[Any],
        action_space: Space[Any],
        *,
        std: Literal["free", "state"] = "free",
        censored: bool = False,
        hidden_sizes: Sequence[int] = (256, 256),
        activation: Activation = "relu",
        dropout: float = 0.0,
        encoder: EncoderKind = "auto",
    ) -> None:
        super().__init__(
            observation_space,
            action_space,
            1 if std == "free" else 2,
            hidden_sizes=hidden_sizes,
            activation=activation,
            dropout=dropout,
            encoder=encoder,
        )
        self.censored = censored
        self.log_std = nn.Parameter(torch.zeros(self.act_dim)) if std == "free" else None

    def mean_and_log_std(self, head: Tensor) -> tuple[Tensor, Tensor]:
        """Mean μ and log σ of u, `[B, act_dim]` each (`[act_dim]` for a free σ), from the head `[B, outputs]`."""
        if self.log_std is not None:
            return head, self.free_log_std()
        mean, raw = head.chunk(2, -1)
        return mean, LOG_STD_MIN + 0.5 * (LOG_STD_MAX - LOG_STD_MIN) * (soft_tanh(raw) + 1.0)

    def free_log_std(self) -> Tensor:
        """Log σ `[act_dim]` of u for a free σ."""
        assert self.log_std is not None
        return soft_bound(self.log_std, LOG_STD_MIN, LOG_STD_MAX)

    def set_std(self, std: float) -> None:
        """Set a free σ of u.

        Args:
            std: Standard deviation σ.

        Raises:
            ConfigError: σ is out of range, or not free.
        """
        low, high = math.exp(LOG_STD_MIN), math.exp(LOG_STD_MAX)
        if self.log_std is None:
            raise ConfigError("the standard deviation depends on the state (std: state); only std: free can be set")
        if not low < std < high:
            raise ConfigError(f"the standard deviation {std} is outside its range ({low:.4f}, {high:.4f})")
        self.log_std.data.fill_(soft_bound_inverse(math.log(std), LOG_STD_MIN, LOG_STD_MAX))

    def decode(self, head: Tensor, deterministic: bool) -> Tensor:
        """Actions `[B, *act]` float32 from the head `[B, outputs]`: the mean, or a sample."""
        mean, log_std = self.mean_and_log_std(head)
        return self.to_action(mean if deterministic else mean + log_std.exp() * torch.randn_like(mean))

    def sample(self, head: Tensor) -> Tensor:
        """Sampled actions `[B, *act]` from the head `[B, outputs]`, in the environment's units, not clipped."""
        mean, log_std = self.mean_and_log_std(head)
        u = torch.addcmul(mean, log_std.exp(), torch.randn_like(mean))
        action = torch.addcmul(self.center, u, self.scale)
        return action if len(self.shape) == 1 else action.reshape(-1, *self.shape)

    def rsample_with_log_prob(self, head: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Reparameterized unclipped actions `[B, *act]`, differentiable in the head, and their log π `[B]`.

        Args:
            head: `[B, outputs]` head.
            noise: `[B, act_dim]` samples of N(0, 1).
        """
        mean, log_std = self.mean_and_log_std(head)
        action = torch.addcmul(self.center, mean + log_std.exp() * noise, self.scale).reshape(-1, *self.shape)
        normal = -(0.5 * noise.square() + log_std + 0.5 * math.log(2 * math.pi))
        return action, (normal - self.scale.log()).sum(-1)

    def log_prob(self, observation: Tensor, action: Tensor) -> Tensor:
        """Log-density `[B]` log π(action | observation) over actions in the environment's units."""
        return self.head_log_prob(self.head(observation), action)

    def head_log_prob(self, head: Tensor, action: Tensor) -> Tensor:
        """Log-density `[B]` Σ_i log N(a_i; μ_i, σ_i²) in the environment's units."""
        mean, log_std = self.mean_and_log_std(head)
        z = (self.from_action(action) - mean) * torch.exp(-log_std)
        return -(0.5 * z.square() + log_std + (0.5 * math.log(2 * math.pi)) + self.scale.log()).sum(-1)

    def executed_log_prob(self, head: Tensor, action: Tensor) -> Tensor:
        """Log-probability `[B]` of a censored Gaussian: the density inside the box, the tail's mass at a bound."""
        mean, log_std = self.mean_and_log_std(head)
        u = self.from_action(action)
        z = (u - mean) * torch.exp(-log_std)
        density = -(0.5 * z.square() + log_std + 0.5 * math.log(2 * math.pi))
        low, high = ((bound - self.center) / self.scale for bound in (self.low, self.high))
        return censor(density, u, mean, log_std, low, high).sum(-1)

    def head_kl(self, head: Tensor, reference: Policy, reference_head: Tensor) -> Tensor:
        """Divergence `[B]` Σ_i log σ'_i/σ_i + (σ_i² + (μ_i − μ'_i)²) / 2σ'_i² − ½, with μ' and σ' of the reference."""
        assert isinstance(reference, GaussianPolicy)
        mean, log_std = self.mean_and_log_std(head)
        other_mean, other_log_std = reference.mean_and_log_std(reference_head)
        squares = (2 * log_std).exp() + (mean - other_mean).square()
        return (other_log_std - log_std + 0.5 * squares * torch.exp(-2 * other_log_std) - 0.5).sum(-1)

    def loss(self, observation: Tensor, action: Tensor) -> Tensor:
        """Negative log-likelihood `[B]`: −log π(action | observation), or with `censored` that of executed actions."""
        head = self.head(observation)
        return -(self.executed_log_prob(head, action) if self.censored else self.head_log_prob(head, action))

    def head_entropy(self, head: Tensor) -> Tensor:
        """Entropy `[B]` Σ_i log σ_i + ½ log 2πe before clipping, in the environment's units."""
        mean, log_std = self.mean_and_log_std(head)
        return (log_std.expand_as(mean) + 0.5 * math.log(2 * math.pi * math.e) + self.scale.log()).sum(-1)


class DeterministicPolicy(_ContinuousPolicy):
    """Deterministic policy a = center + scale · tanh(z(s)), trained by regression on demonstrated actions.

    With the residual r = u(a) − tanh(z(s)), the losses, summed over action dimensions, are:

    - `mse`: r²;
    - `huber`: r²/2 for |r| ≤ δ, otherwise δ(|r| − δ/2), which bounds the influence of outliers;
    - `log_cosh`: log cosh r, which is smooth, about r²/2 for small and |r| − log 2 for large residuals.

    Dimensions whose bounds do not define their units (`action_units`) have no tanh.

    Args:
        observation_space: Box or Discrete observation space.
        action_space: Box action space.
        regression: Regression loss.
        huber_delta: Threshold δ in units of half the action range.
        hidden_sizes: Sizes of the MLP's hidden layers.
        activation: Activation between the layers.
        dropout: Probability of zeroing a hidden unit during training.
        encoder: Kind of encoder, with its options, or encoders of parts by path; see `Encoder`.

    Raises:
        ConfigError: `huber_delta` is not positive and finite.
        UnsupportedSpaceError: The action space is not a Box.
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
        encoder: EncoderKind = "auto",
    ) -> None:
        super().__init__(
            observation_space,
            action_space,
            1,
            hidden_sizes=hidden_sizes,
            activation=activation,
            dropout=dropout,
            encoder=encoder,
        )
        if not 0.0 < huber_delta < math.inf:
            raise ConfigError(f"{type(self).__name__}: huber_delta is {huber_delta}; it must be positive")
        self.regression, self.huber_delta = regression, huber_delta

    def decode(self, head: Tensor, deterministic: bool) -> Tensor:
        """Actions `[B, *act]` float32 from the head `[B, outputs]`; `deterministic` has no effect."""
        return self.to_action(self.squash(head))

    def loss(self, observation: Tensor, action: Tensor) -> Tensor:
        """Regression loss `[B]`, summed over action dimensions."""
        residual = self.from_action(action) - self.squash(self.head(observation))
        if self.regression == "mse":
            return residual.square().sum(-1)
        if self.regression == "huber":
            return F.huber_loss(residual, torch.zeros_like(residual), reduction="none", delta=self.huber_delta).sum(-1)
        # log cosh r = |r| + log(1 + e^(−2|r|)) − log 2 does not overflow.
        magnitude = residual.abs()
        return (magnitude + F.softplus(-2.0 * magnitude) - math.log(2.0)).sum(-1)
