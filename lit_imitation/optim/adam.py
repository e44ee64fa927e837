"""Adam as functions of tensors, so that several steps can be compiled or traced into one call."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Adam, AdamW, Optimizer


class Moments(NamedTuple):
    """What Adam remembers of a vector of parameters."""

    first: Tensor
    """m `[parameters]`: running mean of the gradient."""
    second: Tensor
    """v `[parameters]`: running mean of its square."""
    steps: Tensor
    """t `[]`: steps so far."""


def make_adam(vector: Parameter, learning_rate: float, eps: float, weight_decay: float) -> Optimizer:
    """Torch's Adam of one vector, or its AdamW where weights decay."""
    if weight_decay:
        return AdamW([vector], learning_rate, eps=eps, weight_decay=weight_decay, fused=True)
    return Adam([vector], learning_rate, eps=eps, fused=True)


def moments_of(optimizer: Optimizer, vector: Parameter) -> Moments:
    """The state of torch's Adam of this vector, after its first step."""
    state = optimizer.state[vector]
    return Moments(state["exp_avg"], state["exp_avg_sq"], state["step"])


def adam_step(
    theta: Tensor,
    gradient: Tensor,
    moments: Moments,
    rate: Tensor,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> tuple[Tensor, Moments]:
    """One step of Adam with decoupled weight decay, out of place.

        m ← β₁ m + (1 − β₁) g,      v ← β₂ v + (1 − β₂) g²
        θ ← (1 − η c) θ − η (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε)

    Kingma & Ba (2015), algorithm 1 (arXiv:1412.6980); Loshchilov & Hutter (2019), algorithm 2 (arXiv:1711.05101).

    Args:
        theta: θ `[parameters]`.
        gradient: g `[parameters]`.
        moments: m, v and t before the step.
        rate: η `[]`.
        betas: β₁ and β₂.
        eps: ε.
        weight_decay: c; 0 for Adam without decay.

    Returns:
        θ and the moments after the step.
    """
    beta1, beta2 = betas
    count = moments.steps + 1
    first = torch.lerp(moments.first, gradient, 1.0 - beta1)
    second = beta2 * moments.second + (1.0 - beta2) * gradient.square()
    deviation = second.sqrt() / (1.0 - beta2**count).sqrt() + eps
    if weight_decay:
        theta = theta * (1.0 - rate * weight_decay)
    return theta - rate / (1.0 - beta1**count) * (first / deviation), Moments(first, second, count)


def adam_step_(
    theta: Tensor,
    gradient: Tensor,
    first: Tensor,
    second: Tensor,
    step: int,
    rate: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> None:
    """`adam_step` in place, in few kernels, and as TorchScript can compile it.

    Args:
        theta: θ `[parameters]`.
        gradient: g `[parameters]`.
        first: m `[parameters]`.
        second: v `[parameters]`.
        step: t after the step.
        rate: η.
        betas: β₁ and β₂.
        eps: ε.
        weight_decay: c.
    """
    beta1, beta2 = betas
    if weight_decay != 0.0:
        theta.mul_(1.0 - rate * weight_decay)
    first.lerp_(gradient, 1.0 - beta1)
    second.mul_(beta2).addcmul_(gradient, gradient, value=1.0 - beta2)
    deviation = second.sqrt().div_((1.0 - beta2**step) ** 0.5).add_(eps)
    theta.addcdiv_(first, deviation, value=-rate / (1.0 - beta1**step))
