"""Discrete actions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from gymnasium import Space
from gymnasium.spaces import Discrete
from numpy.typing import NDArray
from torch import Tensor

from lit_imitation.errors import UnsupportedSpaceError
from lit_imitation.policies.base import Policy
from lit_imitation.policies.networks import Activation


class CategoricalPolicy(Policy):
    """π(a | s) = softmax(z(s))_a. Loss: cross-entropy, −log π(a | s).

    Args:
        observation_space: Box or Discrete.
        action_space: Discrete.
        hidden_sizes: of the MLP.
        activation: between its layers.
        dropout: probability of zeroing a hidden unit while training.
    """

    def __init__(
        self,
        observation_space: Space[Any],
        action_space: Space[Any],
        *,
        hidden_sizes: Sequence[int] = (256, 256),
        activation: Activation = "relu",
        dropout: float = 0.0,
    ) -> None:
        if not isinstance(action_space, Discrete):
            raise UnsupportedSpaceError(
                f"CategoricalPolicy needs discrete actions; this environment's are {action_space}"
            )
        super().__init__(
            observation_space,
            action_space,
            int(action_space.n),
            hidden_sizes=hidden_sizes,
            activation=activation,
            dropout=dropout,
        )
        self.start = int(action_space.start)

    def decode(self, head: Tensor, deterministic: bool) -> Tensor:
        """Logits `[B, n]` to actions `[B]` int64."""
        if not deterministic:
            return self.sample(head)
        index = head.argmax(-1)
        return index + self.start if self.start else index

    def sample(self, head: Tensor) -> Tensor:
        """Logits `[B, n]` to drawn actions `[B]` int64."""
        index = torch.multinomial(head.softmax(-1), 1).squeeze(-1)
        return index + self.start if self.start else index

    def decode_array(self, head: NDArray[Any], deterministic: bool) -> NDArray[Any]:
        """As `decode`."""
        if not deterministic or self.start:
            return super().decode_array(head, deterministic)
        return head.argmax(-1)  # type: ignore[no-any-return]

    def log_prob(self, observation: Tensor, action: Tensor) -> Tensor:
        """`[B]`: log π(action | observation)."""
        return -self.loss(observation, action)

    def loss(self, observation: Tensor, action: Tensor) -> Tensor:
        """`[B]`: −log π(action | observation)."""
        return F.cross_entropy(self.head(observation), action - self.start if self.start else action, reduction="none")

    def mean_loss(self, observation: Tensor, action: Tensor) -> Tensor:
        """`[]`: −log π(action | observation), averaged over the batch."""
        return F.cross_entropy(self.head(observation), action - self.start if self.start else action)

    def head_log_prob(self, head: Tensor, action: Tensor) -> Tensor:
        """`[B]`: log softmax(z)_a."""
        return -F.cross_entropy(head, action - self.start if self.start else action, reduction="none")

    def head_entropy(self, head: Tensor) -> Tensor:
        """`[B]`: −Σ_a π(a | s) log π(a | s)."""
        log_prob = head.log_softmax(-1)
        return -(log_prob.exp() * log_prob).sum(-1)

    def head_kl(self, head: Tensor, reference: Policy, reference_head: Tensor) -> Tensor:
        """`[B]`: Σ_a π(a | s) (log π(a | s) − log π_reference(a | s))."""
        log_prob = head.log_softmax(-1)
        return (log_prob.exp() * (log_prob - reference_head.log_softmax(-1))).sum(-1)
