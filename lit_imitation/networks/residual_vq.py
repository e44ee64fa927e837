"""Residual vector quantization, and an autoencoder of action chunks with it as its bottleneck."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_imitation.networks.mlp import MLP
from lit_imitation.utils.interruption import check

DECAY = 0.9
"""Decay γ of the moving averages that the codebooks are made of."""
SMOOTHING = 1e-5
"""Count ε added to each code's, so that a code without rows has a vector."""
DEAD_SHARE = 0.05
"""Share of an even distribution of rows below which a code starts anew."""
HIDDEN_SIZES = (128, 128)
"""Sizes of the hidden layers of encoder and decoder (Lee et al. 2024, appendix)."""
COMMITMENT = 5.0
"""Weight of the commitment loss, as in the authors' code."""
BATCH, LEARNING_RATE = 256, 1e-3
"""Rows of a minibatch and step size of Adam when the autoencoder is trained."""
MIN_HALF_RANGE = 1e-6
"""Half-range of an action dimension up to which it counts as constant and is not scaled."""


class ResidualVQ(nn.Module):
    """Residual vector quantizer with codebooks by moving averages.

    Stage l maps what the stages before left over to the nearest of its vectors (Zeghidour et al. 2021,
    arXiv:2107.03312):

        r_0 = x,    c_l = argmin_k ‖r_l − e_l[k]‖²,    r_{l+1} = r_l − e_l[c_l],    q(x) = Σ_l e_l[c_l]

    The vectors are moving averages over the rows that choose them (van den Oord et al. 2017, appendix A.1,
    arXiv:1711.00937), with n_k such rows in a batch:

        N_k ← γ N_k + (1 − γ) n_k,    S_k ← γ S_k + (1 − γ) Σ_{c_l = k} r_l,    e_k = S_k / N̂_k,
        N̂_k = (N_k + ε) / (Σ_j N_j + K ε) · Σ_j N_j

    A code that few rows choose starts anew at a random row of the batch; before the first update, all codes do.

    Args:
        stages: Number L of stages.
        codes: Number K of codes of a stage.
        size: Size d of a vector.
    """

    codebooks: Tensor
    """`[L, K, d]`: e."""
    counts: Tensor
    """`[L, K]`: N."""
    sums: Tensor
    """`[L, K, d]`: S."""

    def __init__(self, stages: int, codes: int, size: int) -> None:
        super().__init__()
        self.register_buffer("codebooks", torch.zeros(stages, codes, size))
        self.register_buffer("counts", torch.zeros(stages, codes))
        self.register_buffer("sums", torch.zeros(stages, codes, size))

    def encode(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Codes `[B, L]` of `x: [B, d]`, and r_0 … r_L, `[B, d]` each."""
        codes, residuals = [], [x]
        for codebook in self.codebooks.unbind():
            # The squared distance without ‖r‖², which is the same for all codes.
            distance = codebook.square().sum(-1) - 2.0 * residuals[-1] @ codebook.mT
            codes.append(distance.argmin(-1))
            residuals.append(residuals[-1] - codebook[codes[-1]])
        return torch.stack(codes, -1), residuals

    def vectors(self, codes: Tensor) -> Tensor:
        """Vectors q `[B, d]` of `codes: [B, L]`."""
        stage = torch.arange(codes.shape[-1], device=codes.device)
        return self.codebooks[stage, codes].sum(-2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Quantize `x: [B, d]`.

        Returns:
            q(x) `[B, d]`, whose gradient reaches x as if q were the identity (straight through); the codes `[B, L]`;
            and the commitment loss `[B]`, 1/d Σ_l ‖r_l − sg(e_l[c_l])‖², with the gradient of r_l by x taken as 1.
        """
        codes, residuals = self.encode(x)
        left = torch.stack(residuals[1:])  # r_{l+1} = r_l − e_l[c_l], and codebooks have no gradient
        return x - residuals[-1].detach(), codes, left.square().mean(-1).sum(0)

    @torch.no_grad()
    def update(self, x: Tensor, generator: torch.Generator) -> None:
        """Move the codebooks toward the residuals of `x: [B, d]`.

        Args:
            x: Vectors.
            generator: Draws the rows at which codes start anew.
        """
        count = self.counts.shape[1]
        codes, residuals = self.encode(x)
        dead = self.counts < DEAD_SHARE * len(x) / count
        for stage, (code, residual) in enumerate(zip(codes.unbind(-1), residuals, strict=False)):
            chosen = torch.zeros(count).index_add_(0, code, torch.ones(len(x)))
            total = torch.zeros_like(self.sums[stage]).index_add_(0, code, residual)
            self.counts[stage].lerp_(chosen, 1.0 - DECAY)
            self.sums[stage].lerp_(total, 1.0 - DECAY)
            rows = torch.randint(len(x), (count,), generator=generator)
            even = len(x) / count
            self.sums[stage] = torch.where(dead[stage][:, None], even * residual[rows], self.sums[stage])
            self.counts[stage] = torch.where(dead[stage], even, self.counts[stage])
            whole = self.counts[stage].sum()
            smoothed = (self.counts[stage] + SMOOTHING) / (whole + count * SMOOTHING) * whole
            self.codebooks[stage] = self.sums[stage] / smoothed[:, None]


class ChunkQuantizer(nn.Module):
    """Autoencoder of action chunks with a residual vector quantizer (VQ-BeT, Lee et al. 2024, arXiv:2403.03181).

    With encoder φ, decoder ψ and H·A numbers in a chunk a, the loss is (section 3.2, equations 1 and 2)

        L = 1/(H A) ‖a − ψ(q(φ(a)))‖_1 + λ 1/d Σ_l ‖r_l − sg(e_l)‖²,    λ = 5,

    where the codebooks follow by moving averages, see `ResidualVQ`. Each action dimension is scaled so that the
    demonstrations fill [−1, 1]. Its weights are buffers: after `fit`, they do not change.

    Args:
        act_dim: Size A of an action.
        horizon: Number H of actions in a chunk.
        latent_size: Size d of a code's vector.
        stages: Number L of stages.
        codes: Number K of codes of a stage.
    """

    center: Tensor
    scale: Tensor

    def __init__(self, act_dim: int, horizon: int, *, latent_size: int, stages: int, codes: int) -> None:
        super().__init__()
        numbers = horizon * act_dim
        self.encoder = MLP([numbers, *HIDDEN_SIZES, latent_size])
        self.decoder = MLP([latent_size, *HIDDEN_SIZES, numbers])
        self.quantizer = ResidualVQ(stages, codes, latent_size)
        self.register_buffer("center", torch.zeros(act_dim))
        self.register_buffer("scale", torch.ones(act_dim))
        for module in self.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                delattr(module, name)
                module.register_buffer(name, parameter.detach())

    def encode(self, u: Tensor) -> Tensor:
        """φ of chunks `[B, H, A]`, `[B, d]`."""
        latent: Tensor = self.encoder(((u - self.center) / self.scale).flatten(1))
        return latent

    def decode(self, latent: Tensor) -> Tensor:
        """Chunks ψ `[B, H, A]` of vectors `[B, d]`."""
        chunk: Tensor = self.decoder(latent).unflatten(-1, (-1, len(self.center)))
        return chunk * self.scale + self.center

    def codes(self, u: Tensor) -> Tensor:
        """Codes `[B, L]` of chunks `[B, H, A]`."""
        codes: Tensor = self.quantizer.encode(self.encode(u))[0]
        return codes

    def reconstruct(self, codes: Tensor) -> Tensor:
        """Chunks `[B, H, A]` of `codes: [B, L]`."""
        return self.decode(self.quantizer.vectors(codes))

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """The loss `[]` of chunks `[B, H, A]`, and their φ `[B, d]`."""
        latent = self.encode(u)
        quantized, _, commitment = self.quantizer(latent)
        errors = (u - self.decode(quantized)) / self.scale
        return errors.abs().mean() + COMMITMENT * commitment.mean(), latent.detach()

    def fit(self, u: Tensor, steps: int, seed: int) -> None:
        """Train on chunks, on the CPU.

        Args:
            u: Chunks `[N, H, A]`, on the CPU like the autoencoder.
            steps: Number of steps of Adam.
            seed: Seed of the minibatches and of codes that start anew.
        """
        flat = u.flatten(0, 1)
        lowest, highest = flat.amin(0), flat.amax(0)
        half = (highest - lowest) / 2
        self.center.copy_((lowest + highest) / 2)
        self.scale.copy_(torch.where(half > MIN_HALF_RANGE, half, 1.0))
        generator = torch.Generator().manual_seed(seed)
        parts = (("encoder", self.encoder), ("decoder", self.decoder))
        weights = {f"{part}.{name}": one for part, module in parts for name, one in module.named_buffers()}
        trained = {name: one.clone().requires_grad_() for name, one in weights.items()}
        optimizer = torch.optim.Adam(trained.values(), LEARNING_RATE, fused=True)
        for _ in range(steps):
            check()
            rows = torch.randint(len(u), (min(BATCH, len(u)),), generator=generator)
            optimizer.zero_grad()
            loss, latent = torch.func.functional_call(self, trained, (u[rows],))
            loss.backward()
            optimizer.step()
            self.quantizer.update(latent, generator)
        for name, one in weights.items():
            one.copy_(trained[name].detach())
