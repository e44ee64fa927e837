"""Base class of policies over a finite set of codes for chunks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import Space
from torch import Tensor, nn

from lit_imitation.networks.mlp import MLP, Activation
from lit_imitation.policies.sequence import SequencePolicy, mean_over_steps
from lit_imitation.utils.ranges import check_at_least, check_weights


class CodedPolicy(SequencePolicy):
    """Categorical policy over L levels of K codes each, which together stand for a chunk, and a regression on the rest.

    The levels are predicted independently given the observation. With the chunk C(c) that codes stand for and predicted
    offsets ô, which codes select:

        x = C(c) + Σ_l ô_l(o, c_l),    c_l ~ p_l(· | o)

    With the demonstrated codes c and H the horizon, the loss is

        L(θ) = Σ_l β_l −(1 − p_l(c_l | o))^γ log p_l(c_l | o) + λ/H ‖ x_demonstrated − C(c) − Σ_l ô_l(o, c_l) ‖_1

    where β_1 = 1, and β_l = β for the others. A padded action does not count for the offset. If deterministic, each
    level takes its most likely code. Subclasses define `quantize` and `centers_of`.

    Args:
        observation_space: Box or Discrete observation space.
        action_space: Box action space; bounded dimensions are scaled to [−1, 1] inside, see `action_units`.
        codes: Number K of codes of a level.
        levels: Number L of levels.
        focal_gamma: γ of the focal loss (Lin et al. 2017, arXiv:1708.02002). Only with 0, the cross-entropy, do samples
            have the demonstrations' shares of the codes; above, rare codes are drawn too often.
        offset_weight: λ.
        secondary_weight: β.
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
        codes: int,
        levels: int,
        focal_gamma: float,
        offset_weight: float,
        secondary_weight: float = 1.0,
        **arguments: Any,
    ) -> None:
        name = type(self).__name__
        check_at_least(name, 1, codes=codes, levels=levels)
        check_weights(name, focal_gamma=focal_gamma, offset_weight=offset_weight, secondary_weight=secondary_weight)
        self.codes, self.levels = codes, levels
        self.focal_gamma, self.offset_weight, self.secondary_weight = focal_gamma, offset_weight, secondary_weight
        super().__init__(observation_space, action_space, **arguments)

    @abstractmethod
    def quantize(self, u: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Codes `[B, L]` of chunks `u: [B, H, act_dim]` with real actions in `mask: [B, H]`, and what they leave over.

        Returns:
            The codes, and u minus the chunks that they stand for, `[B, H, act_dim]`.
        """

    @abstractmethod
    def centers_of(self, codes: Tensor) -> Tensor:
        """Chunks `[B, H, act_dim]` that codes `[B, L]` stand for."""

    def build_network(
        self, features: int, hidden_sizes: Sequence[int], activation: Activation, dropout: float
    ) -> nn.Module:
        """MLP to a logit and an offset of the flat chunk for each code."""
        outputs = self.levels * self.codes * (1 + self.horizon * self.act_dim)
        return MLP([features, *hidden_sizes, outputs], activation, dropout)

    def codes_and_offsets(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities `[B, L, K]` of the codes, and their offsets `[B, L, K, H · act_dim]`."""
        count = self.levels * self.codes
        logits, offsets = self.network(condition).tensor_split([count], -1)
        log_prob = logits.view(-1, self.levels, self.codes).log_softmax(-1)
        return log_prob, offsets.view(-1, self.levels, self.codes, self.horizon * self.act_dim)

    def chunk_loss(self, condition: Tensor, u: Tensor, mask: Tensor) -> Tensor:
        """Focal loss of the codes and error of the offset `[B]`, see the class."""
        with torch.no_grad():
            codes, residual = self.quantize(u, mask)
        log_prob, offsets = self.codes_and_offsets(condition)
        chosen = log_prob.gather(-1, codes[..., None]).squeeze(-1)
        focus = (1.0 - chosen.exp()) ** self.focal_gamma if self.focal_gamma else 1.0
        losses = -(focus * chosen)
        loss = losses[:, 0] + self.secondary_weight * losses[:, 1:].sum(-1)
        offset = self._of_codes(offsets, codes).sum(1).view_as(u)
        return loss + self.offset_weight * mean_over_steps((residual - offset).abs(), mask)

    def draw(self, condition: Tensor, deterministic: bool) -> Tensor:
        """Chunks `[B, H, act_dim]` in units from sampled codes, or from the most likely ones."""
        log_prob, offsets = self.codes_and_offsets(condition)
        if deterministic:
            codes = log_prob.argmax(-1)
        else:
            codes = torch.multinomial(log_prob.flatten(0, 1).exp(), 1).view(-1, self.levels)
        chunk = self.centers_of(codes)
        return chunk + self._of_codes(offsets, codes).sum(1).view(chunk.shape)

    def _of_codes(self, offsets: Tensor, codes: Tensor) -> Tensor:
        """Offsets `[B, L, H · act_dim]` of the codes `[B, L]`."""
        index = codes[..., None, None].expand(-1, -1, 1, offsets.shape[-1])
        return offsets.gather(2, index).squeeze(2)
