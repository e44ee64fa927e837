"""Continuous actions with one mode: a Gaussian, and a plain function with a choice of regression losses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

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
"""Range of log σ in units of half the action range: a density may sharpen on noiseless demonstrations, not collapse."""
MARGIN = 1.0
"""How far inside its range a free log σ begins to bend."""
BEND = 2.0
"""|x| from which on `soft_tanh` is no longer tanh."""


def soft_bound(x: Tensor, low: float, high: float) -> Tensor:
    """The number x between `low` + `MARGIN` and `high` − `MARGIN`, beyond which it approaches the bounds like 1/|x|.

    Its slope is continuous and nowhere 0, as that of clamping is: what has come to a bound can leave it again.
    """
    inner = x.clamp(low + MARGIN, high - MARGIN)
    over = x - inner
    return torch.addcdiv(inner, over, over.abs() + MARGIN, value=MARGIN)


def soft_bound_inverse(y: float, low: float, high: float) -> float:
    """The x of which `soft_bound` makes y, which lies between the bounds."""
    if y < low + MARGIN:
        return low + MARGIN - MARGIN * (low + MARGIN - y) / (y - low)
    if y > high - MARGIN:
        return high - MARGIN + MARGIN * (y - high + MARGIN) / (high - y)
    return y


def soft_tanh(x: Tensor) -> Tensor:
    """Tanh x up to |x| = `BEND`, beyond which it approaches ±1 like 1/|x|: float32's tanh has no slope from 9 on."""
    inner = x.clamp(-BEND, BEND)
    over, room = x - inner, (1.0 - math.tanh(BEND))
    reach = 1.0 / (1.0 + math.tanh(BEND))  # where half of the room is used up
    return torch.addcdiv(inner.tanh(), over, over.abs() + reach, value=room)


class BoxActions(nn.Module):
    """Actions `[B, *act]` in a box, written as u = (action − center) / scale, `[B, act_dim]`; see `action_units`."""

    low: Tensor
    high: Tensor
    center: Tensor
    scale: Tensor
    ranged: Tensor
    room = 1.0
    """Factor on the range of demonstrated actions, where that is the scale."""

    def set_box(self, space: Box) -> None:
        """Take bounds and units; buffers, so that they are where the parameters are."""
        self.shape, self.act_dim = space.shape, math.prod(space.shape)
        units = action_units(space)
        self.register_buffer("center", torch.as_tensor(units.center, dtype=torch.float32))
        self.register_buffer("scale", torch.as_tensor(units.scale, dtype=torch.float32))
        self.register_buffer("ranged", torch.as_tensor(units.ranged))
        for name, bound in zip(("low", "high"), float32_bounds(space), strict=True):
            self.register_buffer(name, torch.from_numpy(bound.reshape(-1).copy()), persistent=False)

    @torch.no_grad()
    def fit_actions(self, action: Tensor) -> None:
        """Take the units from demonstrated actions `[N, *act]`, where the bounds give none that fit them."""
        space = self.action_space
        if isinstance(space, Box):
            units = action_units(space, action.cpu().numpy(), self.room)
            for name, values in units._asdict().items():
                getattr(self, name).copy_(torch.as_tensor(values))

    def squash(self, head: Tensor) -> Tensor:
        """`[..., act_dim]` to u: through tanh where u ∈ [−1, 1] is the box, else as it is."""
        return torch.where(self.ranged, head.tanh(), head)

    def to_box(self, u: Tensor) -> Tensor:
        """`[..., act_dim]` to actions in the environment's units, flat as it came, clipped into the box."""
        return torch.clamp(torch.addcmul(self.center, u, self.scale), self.low, self.high)

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
        return (action.reshape(len(action), self.act_dim) - self.center) / self.scale


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
        action_space: Box; each bounded dimension is scaled to [−1, 1] inside, see `action_units`.
        std: `free`, one σ per action dimension; or `state`, σ(s) from the network.
        hidden_sizes: of the MLP.
        activation: between its layers.
        dropout: probability of zeroing a hidden unit while training.
        encoder: how observations are read: `image`, `vector`, or by their space; see `Encoder`.
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
        self.log_std = nn.Parameter(torch.zeros(self.act_dim)) if std == "free" else None

    def mean_and_log_std(self, head: Tensor) -> tuple[Tensor, Tensor]:
        """μ and log σ of u, `[B, act_dim]` each (`[act_dim]` for a free σ), from `[B, outputs]`."""
        if self.log_std is not None:
            return head, self.free_log_std()
        mean, raw = head.chunk(2, -1)
        return mean, LOG_STD_MIN + 0.5 * (LOG_STD_MAX - LOG_STD_MIN) * (soft_tanh(raw) + 1.0)

    def free_log_std(self) -> Tensor:
        """`[act_dim]`: log σ of u, where σ is free."""
        assert self.log_std is not None
        return soft_bound(self.log_std, LOG_STD_MIN, LOG_STD_MAX)

    def set_std(self, std: float) -> None:
        """Set a free σ of u.

        Raises:
            ConfigError: σ lies outside its range, or is not free.
        """
        low, high = math.exp(LOG_STD_MIN), math.exp(LOG_STD_MAX)
        if self.log_std is None:
            raise ConfigError("σ is a function of the state (std: state); only one that is free can be set")
        if not low < std < high:
            raise ConfigError(f"a standard deviation of {std} is outside its range, ({low:.4f}, {high:.4f})")
        self.log_std.data.fill_(soft_bound_inverse(math.log(std), LOG_STD_MIN, LOG_STD_MAX))

    def decode(self, head: Tensor, deterministic: bool) -> Tensor:
        """`[B, outputs]` to `[B, *act]` float32: the mean, or a draw."""
        mean, log_std = self.mean_and_log_std(head)
        return self.to_action(mean if deterministic else mean + log_std.exp() * torch.randn_like(mean))

    def sample(self, head: Tensor) -> Tensor:
        """`[B, outputs]` to drawn actions `[B, *act]` in the environment's own units, before they are clipped."""
        mean, log_std = self.mean_and_log_std(head)
        u = torch.addcmul(mean, log_std.exp(), torch.randn_like(mean))
        action = torch.addcmul(self.center, u, self.scale)
        return action if len(self.shape) == 1 else action.reshape(-1, *self.shape)

    def rsample_with_log_prob(self, head: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions `[B, *act]`, not clipped, that are differentiable functions of the head, and their log π `[B]`.

        Args:
            head: `[B, outputs]`.
            noise: `[B, act_dim]` of N(0, 1).
        """
        mean, log_std = self.mean_and_log_std(head)
        action = torch.addcmul(self.center, mean + log_std.exp() * noise, self.scale).reshape(-1, *self.shape)
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
        below, above = (((bound - self.center) / self.scale - mean) * inverse for bound in (self.low, self.high))
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
    """a = center + scale · tanh(z(s)), regressed on the demonstrated action with a choice of loss.

    With r = u(a) − tanh(z(s)), summed over action dimensions:

    - `mse`: r²;
    - `huber`: r²/2 for |r| ≤ δ, else δ(|r| − δ/2): outliers pull with a bounded force;
    - `log_cosh`: log cosh r, smooth, r²/2 for small and |r| − log 2 for large residuals.

    A dimension whose bounds do not give its units (`action_units`) has no tanh.

    Args:
        observation_space: Box or Discrete.
        action_space: Box.
        regression: the loss.
        huber_delta: δ, in units of half the action range.
        hidden_sizes: of the MLP.
        activation: between its layers.
        dropout: probability of zeroing a hidden unit while training.
        encoder: how observations are read: `image`, `vector`, or by their space; see `Encoder`.
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
            raise ConfigError(f"{type(self).__name__}: huber_delta is {huber_delta}; it must be above 0")
        self.regression, self.huber_delta = regression, huber_delta

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
