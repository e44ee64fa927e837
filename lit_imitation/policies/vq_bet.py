"""VQ-BeT: codes of an autoencoder with residual vector quantization."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import Space
from torch import Tensor

from lit_imitation.networks.residual_vq import ChunkQuantizer
from lit_imitation.policies.coded import CodedPolicy
from lit_imitation.utils.ranges import check_at_least
from lit_imitation.utils.seeding import RandomStream, derive_seed


class VQBeTPolicy(CodedPolicy):
    """Policy over the codes of an autoencoder of chunks, with offsets (Lee et al. 2024, arXiv:2403.03181).

    Training has two phases, as in section 3 of the paper. First `fit_actions`, which runs before the first step,
    trains a `ChunkQuantizer` on the demonstrated chunks: codes c of L levels, which the decoder ψ turns into the chunk
    C(c) = ψ(Σ_l e_l[c_l]). From then on the autoencoder is fixed, and the policy predicts codes and offset by the loss
    of `CodedPolicy`, with the focal loss of the codes (equation 3) and the offset from the demonstrated codes' chunk
    (equation 4). Here the network is an MLP of the window of observations; theirs is a transformer.

    Padding is replaced by the nearest action of the window, so it changes no code.

    Args:
        observation_space: Box or Discrete observation space.
        action_space: Box action space; bounded dimensions are scaled to [−1, 1] inside, see `action_units`.
        codes: Number K of codes of a level.
        levels: Number L of levels.
        latent_size: Size of a code's vector.
        autoencoder_steps: Number of steps of Adam in the first phase.
        focal_gamma: γ of the focal loss; 2 in the paper. Only with 0 do samples have the demonstrations' shares.
        offset_weight: Weight λ of the offset's error.
        secondary_weight: Weight β of the codes of all levels but the first.
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
        codes: int = 16,
        levels: int = 2,
        latent_size: int = 64,
        autoencoder_steps: int = 2000,
        focal_gamma: float = 2.0,
        offset_weight: float = 10.0,
        secondary_weight: float = 0.1,
        **arguments: Any,
    ) -> None:
        check_at_least("VQBeTPolicy", 1, latent_size=latent_size, autoencoder_steps=autoencoder_steps)
        super().__init__(
            observation_space,
            action_space,
            codes=codes,
            levels=levels,
            focal_gamma=focal_gamma,
            offset_weight=offset_weight,
            secondary_weight=secondary_weight,
            **arguments,
        )
        self.latent_size, self.autoencoder_steps = latent_size, autoencoder_steps
        self.quantizer = self._new_quantizer()

    def _new_quantizer(self) -> ChunkQuantizer:
        """Autoencoder with initial weights that do not depend on the run's random numbers."""
        with RandomStream(derive_seed(0, "autoencoder")):
            return ChunkQuantizer(
                self.act_dim, self.horizon, latent_size=self.latent_size, stages=self.levels, codes=self.codes
            )

    @torch.no_grad()
    def fit_actions(self, action: Tensor) -> None:
        """Fit units and train the autoencoder on demonstrated chunks `[N, H, *act]`, or actions `[N, *act]` if H is 1.

        It is trained on the CPU from the same initial weights and minibatches each time, so equal demonstrations give
        equal codes, in each process and in a resumed run.

        Raises:
            ValueError: The shape does not fit.
        """
        super().fit_actions(action)
        fresh = self._new_quantizer()
        with torch.enable_grad():
            fresh.fit(self.units(action).float().cpu(), self.autoencoder_steps, derive_seed(0, "autoencoder batches"))
        self.quantizer.load_state_dict(fresh.state_dict())

    def quantize(self, u: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Codes `[B, L]` of chunks `u: [B, H, act_dim]` with real actions in `mask: [B, H]`, and what they leave over.

        Returns:
            The codes, and u minus their reconstruction, `[B, H, act_dim]`.
        """
        first = mask.argmax(-1, keepdim=True)
        last = mask.shape[-1] - 1 - mask.flip(-1).argmax(-1, keepdim=True)
        step = torch.arange(mask.shape[-1], device=mask.device).maximum(first).minimum(last)
        codes = self.quantizer.codes(u.gather(1, step[..., None].expand_as(u)))
        return codes, u - self.quantizer.reconstruct(codes)

    def centers_of(self, codes: Tensor) -> Tensor:
        """Reconstructed chunks `[B, H, act_dim]` of the codes `[B, L]`."""
        return self.quantizer.reconstruct(codes)
