"""Losses and statistics of discriminators, as functions of the logits ℓ of expert and learner pairs."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

STATISTICS = (
    "discriminator_accuracy_expert",
    "discriminator_accuracy_learner",
    "discriminator_logit_expert",
    "discriminator_logit_learner",
    "jensen_shannon",
    "gradient_penalty",
)
"""Statistics that each discriminator step reports in addition to the loss."""
CLASSIFIER_STATISTICS = ("discriminator_accuracy_expert", "discriminator_accuracy_learner", "jensen_shannon")
"""Statistics that are undefined for a Wasserstein critic, whose zero is arbitrary."""


def cross_entropy(expert: Tensor, learner: Tensor) -> Tensor:
    """Cross-entropy −½ E[log D] − ½ E[log(1 − D)] `[]` from the logits of both sides."""
    return 0.5 * (F.softplus(-expert).mean() + F.softplus(learner).mean())


def gradient_penalty(
    score: Callable[[Tensor], Tensor], expert: Tensor, learner: Tensor, place: Tensor, columns: int | None = None
) -> Tensor:
    """Penalty E[(‖∇_x f(x)‖ − 1)²] `[]` at points x on the lines between expert and learner pairs.

    Gulrajani et al. 2017, arXiv:1704.00028, equation 3.

    Args:
        score: Function f from features `[B, n]` to scores `[B]`.
        expert: Features of the expert's pairs, `[B, n]`.
        learner: Features of the learner's pairs, `[B, n]`.
        place: Positions in [0, 1] on the lines, 1 at the expert, `[B]`.
        columns: Number of leading columns that the slope is taken along; `None` for all.
    """
    between = torch.lerp(learner, expert, place[:, None])
    slope = torch.func.grad(lambda x: score(x).sum())(between)[:, :columns]
    norm: Tensor = (slope.square().sum(-1) + 1e-12).sqrt()
    return (norm - 1.0).square().mean()


def discriminator_statistics(expert: Tensor, learner: Tensor, entropy: Tensor, penalty: Tensor) -> Tensor:
    """`STATISTICS` `[6]`.

    Args:
        expert: Logits of the expert's pairs, `[B]`.
        learner: Logits of the learner's pairs, `[B]`.
        entropy: Their cross-entropy, `[]`.
        penalty: Gradient penalty, `[]`.
    """
    accuracy = ((expert > 0).float().mean(), (learner < 0).float().mean())
    jensen_shannon = math.log(2.0) - entropy
    statistics = (*accuracy, expert.mean(), learner.mean(), jensen_shannon, penalty)
    return torch.stack([value.detach() for value in statistics])
