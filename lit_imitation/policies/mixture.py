"""Mixture density networks over chunks of actions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import Space
from torch import Tensor, nn

from lit_imitation.errors import ConfigError
from lit_imitation.networks.mlp import MLP, Activation
from lit_imitation.policies.continuous import LOG_STD_MAX, LOG_STD_MIN, censor, soft_tanh
from lit_imitation.policies.sequence import SequencePolicy
from lit_imitation.utils.ranges import check_at_least, check_positive


class MixturePolicy(SequencePolicy):
    """Mixture density network (Bishop 1994): K diagonal Gaussians over the flat chunk, with the loss

        −log π(a | o) = −log Σ_k w_k(o) Π_i N(a_i; μ_ki(o), σ_ki(o)²).

    Log σ is bounded as in `GaussianPolicy`. A padded action does not count: its factors are 1. With `censored`, an
    action component at or beyond a bound of the box contributes the Gaussian's mass from that bound on instead of its
    density, which is the likelihood of what the environment executes: samples are clipped to the box (Tobin 1958). If
    deterministic, a plan is the mean of the most likely component (mode selection).

    Args:
        observation_space: Box or Discrete observation space.
        action_space: Box action space; bounded dimensions are scaled to [−1, 1] inside, see `action_units`.
        components: Number K of Gaussians.
        temperature: Temperature τ of samples, which come from the components with probability ∝ w_k^(1/τ) and standard
            deviation √τ σ_k; below 1, plans are more alike.
        censored: Count the mass beyond a bound for actions at or beyond it.
        **arguments: Arguments of `SequencePolicy`.

    Raises:
        ConfigError: An argument is out of range.
        UnsupportedSpaceError: The action space is not a Box.
    """

    def __init__(
        self,
        observation_space: Space[Any],
        action_space: Space[Any],
        *,
        components: int = 5,
        temperature: float = 1.0,
        censored: bool = False,
        **arguments: Any,
    ) -> None:
        check_at_least("MixturePolicy", 1, components=components)
        check_positive("MixturePolicy", temperature=temperature)
        self.components, self.temperature, self.censored = components, temperature, censored
        super().__init__(observation_space, action_space, **arguments)
        if censored and self.relative_to is not None:
            raise ConfigError(
                "MixturePolicy.censored is true, and relative_to is given: displacements have no bounds; choose one"
            )

    def build_network(
        self, features: int, hidden_sizes: Sequence[int], activation: Activation, dropout: float
    ) -> nn.Module:
        """MLP to K logits, and K means and raw log σ of the flat chunk."""
        outputs = self.components * (1 + 2 * self.horizon * self.act_dim)
        return MLP([features, *hidden_sizes, outputs], activation, dropout)

    def mixture(self, condition: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log w `[B, K]`, and means μ and log σ of the flat chunk in units, `[B, K, H · act_dim]` each."""
        logits, rest = self.network(condition).tensor_split([self.components], -1)
        mean, raw = rest.view(-1, 2, self.components, self.horizon * self.act_dim).unbind(1)
        log_std = LOG_STD_MIN + 0.5 * (LOG_STD_MAX - LOG_STD_MIN) * (soft_tanh(raw) + 1.0)
        return logits.log_softmax(-1), mean, log_std

    def chunk_loss(self, condition: Tensor, u: Tensor, mask: Tensor) -> Tensor:
        """Negative log-likelihood `[B]` of the actions that are no padding, in the environment's units."""
        log_weight, mean, log_std = self.mixture(condition)
        z = (u.flatten(1)[:, None] - mean) * torch.exp(-log_std)
        # Log scale for a density in the environment's units; a point mass has none.
        log_factor = -(0.5 * z.square() + log_std + 0.5 * math.log(2 * math.pi)) - self.scale.log().repeat(self.horizon)
        if self.censored:
            low, high = (((bound - self.center) / self.scale).repeat(self.horizon) for bound in (self.low, self.high))
            log_factor = censor(log_factor, u.flatten(1)[:, None], mean, log_std, low, high)
        counted = mask[..., None].expand_as(u).flatten(1)
        return -(log_weight + (log_factor * counted[:, None]).sum(-1)).logsumexp(-1)

    def log_prob(self, observation: Tensor, action: Tensor, mask: Tensor | None = None) -> Tensor:
        """Log-density `[B]` of chunks in the environment's units; with `censored`, point masses at the bounds.

        Args:
            observation: `[B, n, *obs]`; also `[B, *obs]` if n is 1.
            action: `[B, H, *act]`; also `[B, *act]` if H is 1.
            mask: `[B, H]`, 1 or true for actions and 0 or false for padding; by default there is none.
        """
        return -self.loss(observation, action, mask)

    def draw(self, condition: Tensor, deterministic: bool) -> Tensor:
        """Chunks `[B, H, act_dim]` in units: the most likely component's mean, or a sample at the temperature."""
        log_weight, mean, log_std = self.mixture(condition)
        if deterministic:
            index = log_weight.argmax(-1)
        else:
            index = torch.multinomial((log_weight / self.temperature).softmax(-1), 1).squeeze(-1)
        row = torch.arange(index.shape[0], device=index.device)
        chunk = mean[row, index]
        if not deterministic:
            std = log_std[row, index].exp() * math.sqrt(self.temperature)
            chunk = torch.addcmul(chunk, std, torch.randn_like(chunk))
        return chunk.view(-1, self.horizon, self.act_dim)
