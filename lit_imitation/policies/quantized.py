"""Quantized chunks: codes by k-means, and offsets from them."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import Space
from torch import Tensor

from lit_imitation.policies.coded import CodedPolicy
from lit_imitation.utils.clustering import k_means
from lit_imitation.utils.seeding import derive_seed


class QuantizedPolicy(CodedPolicy):
    """Policy over codes of the flat chunk that k-means makes, with offsets; see `CodedPolicy` for the loss.

    With one level, the codes are the K centers of k-means over the demonstrated chunks (Behavior Transformers,
    Shafiullah et al. 2022, arXiv:2206.11251). With L levels, the centers of level l are those of k-means over what the
    levels before left over (residual vector quantization), so that K codes a level tell K^L chunks apart, and the codes
    stand for C(c) = Σ_l C_l[c_l]. `VQBeTPolicy` learns codes of an autoencoder instead.

    `fit_actions` makes the centers before the first step. The demonstrated codes are the nearest centers one level
    after the other. A padded action counts neither for the codes nor for the offset.

    Args:
        observation_space: Box or Discrete observation space.
        action_space: Box action space; bounded dimensions are scaled to [−1, 1] inside, see `action_units`.
        codes: Number K of codes of a level.
        levels: Number L of levels.
        focal_gamma: γ of the focal loss. Only with 0 do samples have the demonstrations' shares of the codes.
        offset_weight: Weight λ of the offset's error.
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
        super().__init__(
            observation_space,
            action_space,
            codes=codes,
            levels=levels,
            focal_gamma=focal_gamma,
            offset_weight=offset_weight,
            **arguments,
        )
        # Before `fit_actions` the first level covers the box, and the others add nothing.
        centers = torch.zeros(levels, codes, self.horizon * self.act_dim)
        generator = torch.Generator().manual_seed(derive_seed(0, "codes before fitting"))
        centers[0] = 2.0 * torch.rand(centers[0].shape, generator=generator) - 1.0
        self.register_buffer("centers", centers)

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

    def centers_of(self, codes: Tensor) -> Tensor:
        """Sums of centers `[B, H, act_dim]` of the codes `[B, L]`."""
        level = torch.arange(self.levels, device=codes.device)
        return self.centers[level, codes].sum(1).view(-1, self.horizon, self.act_dim)
