"""Policies with discrete actions, single or several at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from gymnasium import Space
from gymnasium.spaces import Discrete, MultiDiscrete
from numpy.typing import NDArray
from torch import Tensor

from lit_imitation.errors import UnsupportedSpaceError
from lit_imitation.networks.encoders import EncoderKind
from lit_imitation.networks.mlp import Activation
from lit_imitation.policies.base import Policy


class CategoricalPolicy(Policy):
    """Categorical policy π(a | s) = softmax(z(s))_a with the loss −log π(a | s), the cross-entropy.

    Args:
        observation_space: Box or Discrete observation space.
        action_space: Discrete action space.
        hidden_sizes: Sizes of the MLP's hidden layers.
        activation: Activation between the layers.
        dropout: Probability of zeroing a hidden unit during training.
        encoder: Kind of encoder, with its options, or encoders of parts by path; see `Encoder`.

    Raises:
        UnsupportedSpaceError: The action space is not Discrete.
    """

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
        if not isinstance(action_space, Discrete):
            raise UnsupportedSpaceError(f"CategoricalPolicy needs a Discrete action space, not {action_space}")
        super().__init__(
            observation_space,
            action_space,
            int(action_space.n),
            hidden_sizes=hidden_sizes,
            activation=activation,
            dropout=dropout,
            encoder=encoder,
        )
        self.start = int(action_space.start)

    def decode(self, head: Tensor, deterministic: bool) -> Tensor:
        """Actions `[B]` int64 from logits `[B, n]`."""
        if not deterministic:
            return self.sample(head)
        index = head.argmax(-1)
        return index + self.start if self.start else index

    def sample(self, head: Tensor) -> Tensor:
        """Sampled actions `[B]` int64 from logits `[B, n]`."""
        index = torch.multinomial(head.softmax(-1), 1).squeeze(-1)
        return index + self.start if self.start else index

    def decode_array(self, head: NDArray[Any], deterministic: bool) -> NDArray[Any]:
        """NumPy version of `decode`."""
        if not deterministic or self.start:
            return super().decode_array(head, deterministic)
        return head.argmax(-1)  # type: ignore[no-any-return]

    def log_prob(self, observation: Tensor, action: Tensor) -> Tensor:
        """Log-probability `[B]` log π(action | observation)."""
        return -self.loss(observation, action)

    def loss(self, observation: Tensor, action: Tensor) -> Tensor:
        """Negative log-likelihood `[B]` −log π(action | observation)."""
        return F.cross_entropy(self.head(observation), action - self.start if self.start else action, reduction="none")

    def mean_loss(self, observation: Tensor, action: Tensor) -> Tensor:
        """Mean negative log-likelihood `[]` over the batch."""
        return F.cross_entropy(self.head(observation), action - self.start if self.start else action)

    def head_log_prob(self, head: Tensor, action: Tensor) -> Tensor:
        """Log-probability `[B]` log softmax(z)_a."""
        return -F.cross_entropy(head, action - self.start if self.start else action, reduction="none")

    def head_entropy(self, head: Tensor) -> Tensor:
        """Entropy `[B]` −Σ_a π(a | s) log π(a | s)."""
        log_prob = head.log_softmax(-1)
        return -(log_prob.exp() * log_prob).sum(-1)

    def head_kl(self, head: Tensor, reference: Policy, reference_head: Tensor) -> Tensor:
        """Divergence `[B]` Σ_a π(a | s) (log π(a | s) − log π_reference(a | s))."""
        log_prob = head.log_softmax(-1)
        return (log_prob.exp() * (log_prob - reference_head.log_softmax(-1))).sum(-1)


class MultiCategoricalPolicy(Policy):
    """Product of categorical distributions π(a | s) = Π_i softmax(z_i(s))_{a_i}, one for each component of the action.

    The loss is −log π(a | s), the sum of the components' cross-entropies.

    Args:
        observation_space: Box or Discrete observation space.
        action_space: Flat MultiDiscrete action space.
        hidden_sizes: Sizes of the MLP's hidden layers.
        activation: Activation between the layers.
        dropout: Probability of zeroing a hidden unit during training.
        encoder: Kind of encoder, with its options, or encoders of parts by path; see `Encoder`.

    Raises:
        UnsupportedSpaceError: The action space is not a flat MultiDiscrete.
    """

    start: Tensor

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
        if not isinstance(action_space, MultiDiscrete) or len(action_space.shape) != 1:
            raise UnsupportedSpaceError(
                f"MultiCategoricalPolicy needs a flat MultiDiscrete action space, not {action_space}"
            )
        self.choices = [int(n) for n in action_space.nvec]
        super().__init__(
            observation_space,
            action_space,
            sum(self.choices),
            hidden_sizes=hidden_sizes,
            activation=activation,
            dropout=dropout,
            encoder=encoder,
        )
        self.register_buffer("start", torch.as_tensor(action_space.start, dtype=torch.int64))

    def decode(self, head: Tensor, deterministic: bool) -> Tensor:
        """Actions `[B, components]` int64 from logits `[B, Σ n_i]`."""
        if not deterministic:
            return self.sample(head)
        return torch.stack([logits.argmax(-1) for logits in self._components(head)], -1) + self.start

    def sample(self, head: Tensor) -> Tensor:
        """Sampled actions `[B, components]` int64 from logits `[B, Σ n_i]`."""
        samples = [torch.multinomial(logits.softmax(-1), 1) for logits in self._components(head)]
        return torch.cat(samples, -1) + self.start

    def log_prob(self, observation: Tensor, action: Tensor) -> Tensor:
        """Log-probability `[B]` log π(action | observation)."""
        return self.head_log_prob(self.head(observation), action)

    def loss(self, observation: Tensor, action: Tensor) -> Tensor:
        """Negative log-likelihood `[B]` −log π(action | observation)."""
        return -self.log_prob(observation, action)

    def head_log_prob(self, head: Tensor, action: Tensor) -> Tensor:
        """Log-probability `[B]` Σ_i log softmax(z_i)_{a_i}."""
        index = (action - self.start).unbind(-1)
        losses = [
            F.cross_entropy(logits, i, reduction="none")
            for logits, i in zip(self._components(head), index, strict=True)
        ]
        return -torch.stack(losses).sum(0)

    def head_entropy(self, head: Tensor) -> Tensor:
        """Entropy `[B]`, the sum of the components' entropies."""
        log_prob = self._log_probs(head)
        return -(log_prob.exp() * log_prob).sum(-1)

    def head_kl(self, head: Tensor, reference: Policy, reference_head: Tensor) -> Tensor:
        """Divergence `[B]`, the sum of the components' divergences."""
        log_prob = self._log_probs(head)
        return (log_prob.exp() * (log_prob - self._log_probs(reference_head))).sum(-1)

    def _components(self, head: Tensor) -> tuple[Tensor, ...]:
        return torch.split(head, self.choices, -1)

    def _log_probs(self, head: Tensor) -> Tensor:
        """Log-probabilities `[B, Σ n_i]` from logits, normalized per component."""
        return torch.cat([logits.log_softmax(-1) for logits in self._components(head)], -1)
