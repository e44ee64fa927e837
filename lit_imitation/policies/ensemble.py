"""Several networks that learn the same and differ where they have not seen enough."""

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
    """M policies π_1 … π_M with initial weights of their own, acting as one (Lakshminarayanan et al. 2017).

    - Discrete: π(a | s) = 1/M Σ_m softmax(z_m(s))_a. Loss: 1/M Σ_m −log π_m(a | s), each member's own cross-entropy and
      not that of the mixture.
    - Continuous: a = 1/M Σ_m a_m(s) with a_m as in `DeterministicPolicy`. Loss: 1/M Σ_m of its squared error.

    All see the same data, with one standardization of the inputs (and, for images, one set of convolutions); one
    batched product per layer trains and asks them all. A member's gradient is 1/M of what it would be alone, which
    Adam's steps do not depend on (but for its ε).

    Args:
        observation_space: Box or Discrete.
        action_space: Box or Discrete.
        members: M, at least 2.
        hidden_sizes: of each MLP.
        activation: between its layers.
        dropout: probability of zeroing a hidden unit while training.
        encoder: how observations are read: `image`, `vector`, or by their space; see `Encoder`.
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
            raise ConfigError(f"EnsemblePolicy: members is {members}; to disagree takes at least 2")
        if not isinstance(action_space, Box | Discrete):
            raise UnsupportedSpaceError(
                f"EnsemblePolicy needs discrete or continuous actions; this environment's are {action_space}"
            )
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
        """`[B, *obs]` to `[M, B, outputs]`."""
        return super().head(observation)

    def decode(self, head: Tensor, deterministic: bool) -> Tensor:
        """`[M, B, outputs]` to actions of the ensemble, `[B]` int64 or `[B, *act]` float32."""
        if not self.discrete:
            # Clipped once more, for rounding can put the mean of numbers at a bound beyond it.
            mean = torch.clamp(self.to_box(self.squash(head)).mean(0), self.low, self.high)
            return mean.reshape(-1, *self.shape)
        probability = head.softmax(-1).mean(0)
        index = probability.argmax(-1) if deterministic else torch.multinomial(probability, 1).squeeze(-1)
        return index + self.start if self.start else index

    def loss(self, observation: Tensor, action: Tensor) -> Tensor:
        """`[B]`: the members' mean cross-entropy, or their mean squared error summed over action dimensions."""
        head = self.head(observation)
        if not self.discrete:
            return (self.from_action(action) - self.squash(head)).square().sum(-1).mean(0)
        target = (action - self.start).repeat(self.members)
        return F.cross_entropy(head.flatten(0, 1), target, reduction="none").view(head.shape[:2]).mean(0)

    def mean_loss(self, observation: Tensor, action: Tensor) -> Tensor:
        """`[]`: `loss` averaged over the batch."""
        if not self.discrete:
            return super().mean_loss(observation, action)
        return F.cross_entropy(self.head(observation).flatten(0, 1), (action - self.start).repeat(self.members))

    def log_prob(self, observation: Tensor, action: Tensor) -> Tensor:
        """`[B]`: log π(action | observation) of the mixture; raises `TypeError` for continuous actions."""
        if not self.discrete:
            raise TypeError("EnsemblePolicy has no density over continuous actions, so no log_prob")
        log_mean = _log_mean(self.head(observation).log_softmax(-1))
        return log_mean.gather(-1, (action - self.start)[:, None]).squeeze(-1)

    def entropy(self, observation: Tensor) -> Tensor:
        """`[B]`: the entropy of the mixture in nats; raises `TypeError` for continuous actions."""
        if not self.discrete:
            return super().entropy(observation)
        return _entropy(_log_mean(self.head(observation).log_softmax(-1)))

    def disagreement(self, observation: Tensor) -> Tensor:
        """`[B]`: how far the members differ at `observation: [B, *obs]`, 0 where they are of one mind.

        - Discrete: their Jensen–Shannon divergence in nats, at most log M, which is the mutual information of the
          action and the member (BALD, Houlsby et al. 2011):

              H(1/M Σ_m π_m(· | s)) − 1/M Σ_m H(π_m(· | s))

        - Continuous: √( 1/d Σ_i Var_m(a_m(s)_i) ) in the environment's units, the doubt of EnsembleDAgger (Menda et
          al. 2019), with the members' variance over M.
        """
        head = self.head(observation)
        if not self.discrete:
            return self.to_box(self.squash(head)).var(0, unbiased=False).mean(-1).sqrt()
        log_prob = head.log_softmax(-1)
        return (_entropy(_log_mean(log_prob)) - _entropy(log_prob).mean(0)).clamp(min=0.0)  # below 0 by rounding only


def _log_mean(log_prob: Tensor) -> Tensor:
    """`[M, B, n]` to `[B, n]`: the log of the mean over members."""
    return log_prob.logsumexp(0) - math.log(len(log_prob))


def _entropy(log_prob: Tensor) -> Tensor:
    """`[..., n]` to `[...]`."""
    return -(log_prob.exp() * log_prob).sum(-1)
