"""Denoising diffusion with few deterministic sampling steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Literal

import torch
from gymnasium import Space
from torch import Tensor

from lit_imitation.errors import ConfigError
from lit_imitation.policies.denoising import DenoisingPolicy
from lit_imitation.policies.sequence import mean_over_steps
from lit_imitation.utils.ranges import check_at_least

OFFSET = 0.008
"""Offset s of the squared cosine schedule."""
MAX_BETA = 0.999
"""Largest share of the signal's variance that a step replaces by noise."""


def squared_cosine(levels: int) -> Tensor:
    """Squared cosine schedule (Nichol & Dhariwal 2021, section 3.2, arXiv:2102.09672).

    With f(k) = cos²( (k/K + s) / (1 + s) · π/2 ) and s = 0.008:

        β_k = min(1 − f(k) / f(k−1), 0.999),    ᾱ_k = Π_{i ≤ k} (1 − β_i),    ᾱ_0 = 1

    Args:
        levels: Number K of noise levels.

    Returns:
        ᾱ_0 … ᾱ_K, `[K + 1]` float64.
    """
    k = torch.arange(levels + 1, dtype=torch.float64)
    f = torch.cos((k / levels + OFFSET) / (1.0 + OFFSET) * (math.pi / 2)).square()
    beta = (1.0 - f[1:] / f[:-1]).clamp(max=MAX_BETA)
    return torch.cat([torch.ones(1, dtype=torch.float64), (1.0 - beta).cumprod(0)])


def ddim(
    predict: Callable[[Tensor, int], Tensor], x: Tensor, levels: list[int], signal: Tensor, noise: Tensor
) -> Tensor:
    """Deterministic sampling by DDIM with η = 0 (Song et al. 2021, equation 12, arXiv:2010.02502).

    With the predicted data x̂ and the noise ε̂ = (x_k − √ᾱ_k x̂) / √(1 − ᾱ_k) that follows from it, the value at the next
    lower level j is √ᾱ_j x̂ + √(1 − ᾱ_j) ε̂. A prediction that was clipped thus changes ε̂ too.

    Args:
        predict: Function of x_k and k to x̂, of the shape of x_k.
        x: Value at the first level.
        levels: Falling levels k; the last is 0, where the result is x̂.
        signal: √ᾱ of all levels, `[K + 1]`.
        noise: √(1 − ᾱ) of all levels, `[K + 1]`.

    Returns:
        Value at level 0.
    """
    for k, lower in pairwise(levels):
        data = predict(x, k)
        residual = (x - signal[k] * data) / noise[k]
        x = signal[lower] * data + noise[lower] * residual
    return x


class DiffusionPolicy(DenoisingPolicy):
    """Diffusion Policy (Chi et al. 2023, arXiv:2303.04137), trained as a DDPM (Ho et al. 2020, arXiv:2006.11239).

    At noise level k ~ U{1 … K}, a demonstrated chunk x_0 becomes x_k = √ᾱ_k x_0 + √(1 − ᾱ_k) ε with ε ~ N(0, I) and the
    schedule `squared_cosine`. With H the horizon and y the target of the prediction, the loss is

        L(θ) = 1/H · E ‖ y_θ(x_k, k, o) − y ‖²

    - `epsilon`: y = ε, so x̂_0 = (x_k − √(1 − ᾱ_k) ε_θ) / √ᾱ_k.
    - `v`: y = √ᾱ_k ε − √(1 − ᾱ_k) x_0 (Salimans & Ho 2022, arXiv:2202.00512), so x̂_0 = √ᾱ_k x_k − √(1 − ᾱ_k) v_θ.
      Unlike ε it tells x_0 at the highest levels, where a plan of few steps begins.

    The network F is preconditioned (Karras et al. 2022, section 5, arXiv:2206.00364): with the root mean square s of
    the data and r² = ᾱ_k s² + 1 − ᾱ_k, the mean square of x_k,

        ε_θ = √(1 − ᾱ_k) / r² · x_k + √ᾱ_k s / r · F_θ(x_k / r, k, o)
        v_θ = √(ᾱ_k (1 − ᾱ_k)) (1 − s²) / r² · x_k + s / r · F_θ(x_k / r, k, o)

    The first terms are regressions on x_k alone, and F's input and target have mean square 1 at all levels. F thus need
    not carry the noise ε through its layers, whose error would end up in the actions.

    A plan takes `steps` of DDIM (`ddim`) over evenly spaced levels from K to 0, with x̂_0 clipped to the range of the
    demonstrations. See `DenoisingPolicy` for scaling and for deterministic plans.

    Args:
        observation_space: Box or Discrete observation space.
        action_space: Box action space.
        prediction: What the network predicts.
        noise_levels: Number K of noise levels in training.
        **arguments: Arguments of `DenoisingPolicy` and `SequencePolicy`.

    Raises:
        ConfigError: An argument is out of range.
        UnsupportedSpaceError: The action space is not a Box.
    """

    signal: Tensor
    noise: Tensor

    def __init__(
        self,
        observation_space: Space[Any],
        action_space: Space[Any],
        *,
        prediction: Literal["epsilon", "v"] = "v",
        noise_levels: int = 100,
        **arguments: Any,
    ) -> None:
        check_at_least("DiffusionPolicy", 1, noise_levels=noise_levels)
        super().__init__(observation_space, action_space, **arguments)
        if self.steps > noise_levels:
            raise ConfigError(
                f"DiffusionPolicy.steps is {self.steps}; it must be at most noise_levels, which is {noise_levels}"
            )
        self.prediction, self.noise_levels = prediction, noise_levels
        kept = squared_cosine(noise_levels)
        self.register_buffer("signal", kept.sqrt().float(), persistent=False)
        self.register_buffer("noise", (1.0 - kept).sqrt().float(), persistent=False)
        self.levels = [round(noise_levels * i / self.steps) for i in range(self.steps, -1, -1)]

    def chunk_loss(self, condition: Tensor, u: Tensor, mask: Tensor) -> Tensor:
        """Squared error `[B]` of the prediction at a random noise level, see the class."""
        data = self.scaled(u)
        epsilon = torch.randn_like(data)
        k = torch.randint(1, self.noise_levels + 1, (len(data),), device=data.device)
        signal, noise = (root[k][:, None, None] for root in (self.signal, self.noise))
        x, (on_x, on_network, deviation) = signal * data + noise * epsilon, self.preconditioning(k[:, None])
        output = self.network(x / deviation, k.to(data.dtype) / self.noise_levels, condition)
        predicted = on_x * x + on_network * output
        target = epsilon if self.prediction == "epsilon" else signal * epsilon - noise * data
        return mean_over_steps((predicted - target).square(), mask)

    def preconditioning(self, k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Factors of x_k and of F, and r, `[..., act_dim]` each, at levels `k: [...]`."""
        signal, noise, rms = self.signal[k][..., None], self.noise[k][..., None], self.data_rms
        variance = (signal * rms).square() + noise.square()
        deviation = variance.sqrt()
        if self.prediction == "epsilon":
            return noise / variance, signal * rms / deviation, deviation
        on_x = signal * noise * (1.0 - rms.square()) / variance
        return on_x, rms / deviation, deviation

    def denoise(self, x: Tensor, condition: Tensor) -> Tensor:
        """Chunks at level 0 of the paths that begin at noise `x: [B, H, act_dim]`."""
        times = [k / self.noise_levels for k in self.levels[:-1]]
        factors = self.preconditioning(torch.tensor(self.levels[:-1], device=x.device))
        each = iter(zip(self.network.modulations(times, condition), *factors, strict=True))

        def predict(x: Tensor, k: int) -> Tensor:
            modulation, on_x, on_network, deviation = next(each)
            predicted = torch.addcmul(on_x * x, on_network, self.network.modulated(x / deviation, modulation))
            return self.to_data(x, predicted, k).clamp(self.data_low, self.data_high)

        return ddim(predict, x, self.levels, self.signal, self.noise)

    def to_data(self, x: Tensor, predicted: Tensor, k: int) -> Tensor:
        """Data x̂_0 of `x: [B, H, act_dim]` at level k from the network's prediction, of the same shape."""
        if self.prediction == "epsilon":
            return (x - self.noise[k] * predicted) / self.signal[k]
        return self.signal[k] * x - self.noise[k] * predicted
