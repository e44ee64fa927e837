"""Policies over codes of action chunks, with offsets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import Space
from torch import Tensor, nn

from lit_imitation.networks.mlp import MLP, Activation
from lit_imitation.policies.sequence import SequencePolicy, mean_over_steps
from lit_imitation.utils.clustering import k_means
from lit_imitation.utils.ranges import check_at_least, check_weights
from lit_imitation.utils.seeding import derive_seed


class QuantizedPolicy(SequencePolicy):
    """Categorical policy over codes of the flat chunk, with a regression on the offset from the code's center.

    With one level, the codes are the K centers of k-means over the demonstrated chunks (Behavior Transformers,
    Shafiullah et al. 2022, arXiv:2206.11251). With L levels, the centers of level l are those of k-means over what the
    levels before left over (residual vector quantization), so that K codes a level tell K^L chunks apart. As in VQ-BeT
    (Lee et al. 2024, arXiv:2403.03181), the levels are predicted independently given the observation, and the chunk is
    the sum of centers C and predicted offsets ô:

        x = Σ_l C_l[c_l] + ô_l(o, c_l),    c_l ~ p_l(· | o)

    Unlike VQ-BeT, the quantizer works on the chunks themselves, without an autoencoder, so `fit_actions` makes it
    before the first step. With the demonstrated codes c_l, which are the nearest centers one level after the other, and
    H the horizon, the loss is

        L(θ) = Σ_l −(1 − p_l(c_l | o))^γ log p_l(c_l | o) + λ/H ‖ x_demonstrated − Σ_l (C_l[c_l] + ô_l(o, c_l)) ‖_1.

    A padded action counts neither for the codes nor for the offset. If deterministic, each level takes its most likely
    code.

    Args:
        observation_space: Box or Discrete observation space.
        action_space: Box action space; bounded dimensions are scaled to [−1, 1] inside, see `action_units`.
        codes: Number K of codes of a level.
        levels: Number L of levels.
        focal_gamma: γ of the focal loss (Lin et al. 2017, arXiv:1708.02002). Only with 0, the cross-entropy, do samples
            have the demonstrations' shares of the codes; above, rare codes are drawn too often.
        offset_weight: λ.
        **arguments: Arguments of `SequencePolicy`.

    Raises:
        ConfigError: An argument is out of range.
        UnsupportedSpaceError: The action space is not a Box.
    """

    centers: Tensor

    def __init__(
        self,
        observation_space: Space[Any],
        action_space: Space[Any],
        *,
        codes: int = 24,
        levels: int = 1,
        focal_gamma: float = 0.0,
        offset_weight: float = 10.0,
        **arguments: Any,
    ) -> None:
        check_at_least("QuantizedPolicy", 1, codes=codes, levels=levels)
        check_weights("QuantizedPolicy", focal_gamma=focal_gamma, offset_weight=offset_weight)
        self.codes, self.levels = codes, levels
        self.focal_gamma, self.offset_weight = focal_gamma, offset_weight
        super().__init__(observation_space, action_space, **arguments)
        # Before `fit_actions` the first level covers the box, and the others add nothing.
        centers = torch.zeros(levels, codes, self.horizon * self.act_dim)
        generator = torch.Generator().manual_seed(derive_seed(0, "codes before fitting"))
        centers[0] = 2.0 * torch.rand(centers[0].shape, generator=generator) - 1.0
        self.register_buffer("centers", centers)

    def build_network(
        self, features: int, hidden_sizes: Sequence[int], activation: Activation, dropout: float
    ) -> nn.Module:
        """MLP to a logit and an offset of the flat chunk for each code."""
        outputs = self.levels * self.codes * (1 + self.horizon * self.act_dim)
        return MLP([features, *hidden_sizes, outputs], activation, dropout)

    @torch.no_grad()
    def fit_actions(self, action: Tensor) -> None:
        """Fit units and codes to demonstrated chunks `[N, H, *act]`, or to actions `[N, *act]` if H is 1.

        Raises:
            ValueError: The shape does not fit.
        """
        super().fit_actions(action)
        residual = self.units(action).flatten(1).double().cpu()
        for level in range(self.levels):
            centers = k_means(residual, self.codes, derive_seed(0, "codes", level))
            self.centers[level].copy_(centers)
            residual = residual - centers[torch.cdist(residual, centers).argmin(1)]

    def quantize(self, u: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Codes `[B, L]` of chunks `u: [B, H, act_dim]` by the actions in `mask: [B, H]`, and what is left over.

        Returns:
            The codes, and u minus the centers, `[B, H, act_dim]`.
        """
        residual, counted = u.flatten(1), mask[..., None].expand_as(u).flatten(1)
        codes = []
        for centers in self.centers:
            # The squared distance without ‖residual‖², which is the same for all codes.
            distance = counted @ centers.square().mT - 2.0 * (counted * residual) @ centers.mT
            codes.append(distance.argmin(-1))
            residual = residual - centers[codes[-1]]
        return torch.stack(codes, -1), residual.view_as(u)

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
        offset = self._of_codes(offsets, codes).sum(1).view_as(u)
        return -(focus * chosen).sum(-1) + self.offset_weight * mean_over_steps((residual - offset).abs(), mask)

    def draw(self, condition: Tensor, deterministic: bool) -> Tensor:
        """Chunks `[B, H, act_dim]` in units from sampled codes, or from the most likely ones."""
        log_prob, offsets = self.codes_and_offsets(condition)
        if deterministic:
            codes = log_prob.argmax(-1)
        else:
            codes = torch.multinomial(log_prob.flatten(0, 1).exp(), 1).view(-1, self.levels)
        level = torch.arange(self.levels, device=codes.device)
        chunk = (self.centers[level, codes] + self._of_codes(offsets, codes)).sum(1)
        return chunk.view(-1, self.horizon, self.act_dim)

    def _of_codes(self, offsets: Tensor, codes: Tensor) -> Tensor:
        """Offsets `[B, L, H · act_dim]` of the codes `[B, L]`."""
        index = codes[..., None, None].expand(-1, -1, 1, offsets.shape[-1])
        return offsets.gather(2, index).squeeze(2)
