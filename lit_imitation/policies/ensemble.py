"""Ensemble policies, whose members disagree where data is scarce."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from gymnasium import Space
from gymnasium.spaces import Box, Discrete
from torch import Tensor

from lit_imitation.errors import ConfigError, UnsupportedSpaceError
from lit_imitation.networks.encoders import EncoderKind
from lit_imitation.networks.mlp import Activation, EnsembleMLP
from lit_imitation.policies.base import Policy
from lit_imitation.policies.continuous import BoxActions


class EnsemblePolicy(BoxActions, Policy):
    """Ensemble of M policies π_1 … π_M with different initial weights (Lakshminarayanan et al. 2017, arXiv:1612.01474).

    - Discrete actions: π(a | s) = 1/M Σ_m softmax(z_m(s))_a. The loss is 1/M Σ_m −log π_m(a | s), the mean
        cross-entropy of
      the members, not that of the mixture.
    - Continuous actions: a = 1/M Σ_m a_m(s) with a_m as in `DeterministicPolicy`. The loss is the mean squared error of
        the
      members.

    All members see the same data through one input standardization and, for images, one set of convolutions. One
    batched product per layer evaluates them all. The gradient of a member is 1/M of that of a separate policy; Adam's
    steps are invariant to this factor, except for its ε.

    Args:
        observation_space: Box or Discrete observation space.
        action_space: Box or Discrete action space.
        members: Number M of members, at least 2.
        hidden_sizes: Sizes of the hidden layers of each MLP.
        activation: Activation between the layers.
        dropout: Probability of zeroing a hidden unit during training.
        encoder: Kind of encoder, with its options, or encoders of parts by path; see `Encoder`.

    Raises:
        ConfigError: `members` is less than 2.
        UnsupportedSpaceError: The action space is neither Box nor Discrete.
    """

    def __init__(
        self,
        observation_space: Space[Any],
        action_space: Space[Any],
        *,
        members: int = 5,
        hidden_sizes: Sequence[int] = (256, 256),
        activation: Activation = "relu",
        dropout: float = 0.0,
        encoder: EncoderKind = "auto",
    ) -> None:
        if members < 2:
            raise ConfigError(f"EnsemblePolicy: members is {members}; it must be at least 2")
        if not isinstance(action_space, Box | Discrete):
            raise UnsupportedSpaceError(f"EnsemblePolicy needs a Discrete or Box action space, not {action_space}")
        super().__init__(
            observation_space,
            action_space,
            int(action_space.n) if isinstance(action_space, Discrete) else math.prod(action_space.shape),
            hidden_sizes=hidden_sizes,
            activation=activation,
            dropout=dropout,
            encoder=encoder,
            network=partial(EnsembleMLP, members),
        )
        self.members = members
        self.discrete = isinstance(action_space, Discrete)
        if isinstance(action_space, Box):
            self.set_box(action_space)
        else:
            self.start = int(action_space.start)

    def head(self, observation: Tensor) -> Tensor:
        """Heads `[M, B, outputs]` of observations `[B, *obs]`."""
        return super().head(observation)

    def decode(self, head: Tensor, deterministic: bool) -> Tensor:
        """Actions of the ensemble, `[B]` int64 or `[B, *act]` float32, from the heads `[M, B, outputs]`."""
        if not self.discrete:
            # Clipped again: rounding can move the mean of values at a bound beyond it.
            mean = torch.clamp(self.to_box(self.squash(head)).mean(0), self.low, self.high)
            return mean.reshape(-1, *self.shape)
        probability = head.softmax(-1).mean(0)
        index = probability.argmax(-1) if deterministic else torch.multinomial(probability, 1).squeeze(-1)
        return index + self.start if self.start else index

    def loss(self, observation: Tensor, action: Tensor) -> Tensor:
        """Mean cross-entropy `[B]` of the members, or their mean squared error summed over action dimensions."""
        head = self.head(observation)
        if not self.discrete:
            return (self.from_action(action) - self.squash(head)).square().sum(-1).mean(0)
        target = (action - self.start).repeat(self.members)
        return F.cross_entropy(head.flatten(0, 1), target, reduction="none").view(head.shape[:2]).mean(0)

    def mean_loss(self, observation: Tensor, action: Tensor) -> Tensor:
        """Mean of `loss` over the batch, `[]`."""
        if not self.discrete:
            return super().mean_loss(observation, action)
        return F.cross_entropy(self.head(observation).flatten(0, 1), (action - self.start).repeat(self.members))

    def log_prob(self, observation: Tensor, action: Tensor) -> Tensor:
        """Log-probability `[B]` of the mixture.

        Raises:
            TypeError: Actions are continuous.
        """
        if not self.discrete:
            raise TypeError("EnsemblePolicy has no density over continuous actions, so no log_prob")
        log_mean = _log_mean(self.head(observation).log_softmax(-1))
        return log_mean.gather(-1, (action - self.start)[:, None]).squeeze(-1)

    def entropy(self, observation: Tensor) -> Tensor:
        """Entropy `[B]` of the mixture in nats.

        Raises:
            TypeError: Actions are continuous.
        """
        if not self.discrete:
            return super().entropy(observation)
        return _categorical_entropy(_log_mean(self.head(observation).log_softmax(-1)))

    def disagreement(self, observation: Tensor) -> Tensor:
        """Disagreement `[B]` of the members at `observation: [B, *obs]`, 0 if they agree.

        - Discrete actions: the Jensen–Shannon divergence in nats, at most log M. It is the mutual information of action
            and
          member (BALD, Houlsby et al. 2011, arXiv:1112.5745):

              H(1/M Σ_m π_m(· | s)) − 1/M Σ_m H(π_m(· | s))

        - Continuous actions: √( 1/d Σ_i Var_m(a_m(s)_i) ) in the environment's units, the doubt of EnsembleDAgger
            (Menda et
          al. 2019, arXiv:1807.08364), where the variance divides by M.
        """
        head = self.head(observation)
        if not self.discrete:
            return self.to_box(self.squash(head)).var(0, unbiased=False).mean(-1).sqrt()
        log_prob = head.log_softmax(-1)
        return (_categorical_entropy(_log_mean(log_prob)) - _categorical_entropy(log_prob).mean(0)).clamp(
            min=0.0
        )  # negative only by rounding


def _log_mean(log_prob: Tensor) -> Tensor:
    """Log of the mean over members, `[M, B, n]` to `[B, n]`."""
    return log_prob.logsumexp(0) - math.log(len(log_prob))


def _categorical_entropy(log_prob: Tensor) -> Tensor:
    """Entropy `[...]` of log-probabilities `[..., n]`."""
    return -(log_prob.exp() * log_prob).sum(-1)
