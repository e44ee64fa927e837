"""Generalized advantage estimation (Schulman et al. 2016, arXiv:1506.02438), and what is made of the advantages."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_imitation.utils.distributed import all_reduce


def generalized_advantages(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    done: Tensor,
    gamma: float,
    gae_lambda: float,
) -> Tensor:
    """Estimate the advantages Â_t = δ_t + γλ (1 − done_t) Â_{t+1}, δ_t = r_t + γ (1 − terminated_t) V(s'_t) − V(s_t).

    A terminated step has no future value. A truncated step bootstraps from the value of its true final observation.
    Neither sees the episode that starts after it. The λ-return, the value function's target, is Â_t + V(s_t).

    Schulman et al. 2016, arXiv:1506.02438, equation 16.

    Args:
        reward: Rewards r_t, `[time, env]`.
        value: Values V(s_t), `[time, env]`.
        next_value: Values V(s'_t) of the true successors, `[time, env]`.
        terminated: Steps that end an episode by termination, `[time, env]` bool.
        done: Steps that end an episode by termination or truncation, `[time, env]` bool.
        gamma: Discount γ.
        gae_lambda: Decay λ; 1 gives Monte Carlo returns, 0 one-step temporal differences.

    Returns:
        Advantages, `[time, env]`.
    """
    delta = reward + gamma * next_value * ~terminated - value
    decay = (gamma * gae_lambda) * (~done).to(delta.dtype)
    advantages, advantage = [], torch.zeros_like(delta[0])
    # One `unbind` for all rows: indexing a row takes longer than adding it.
    for delta_t, decay_t in zip(reversed(delta.unbind()), reversed(decay.unbind()), strict=True):
        advantage = torch.addcmul(delta_t, decay_t, advantage)
        advantages.append(advantage)
    return torch.stack(advantages[::-1])


def standardize_advantages(advantage: Tensor, weight: Tensor) -> Tensor:
    """Advantages `[time, env]` with mean 0 and standard deviation 1 over the rounds of all processes.

    Args:
        advantage: Advantages, `[time, env]`.
        weight: 1 for transitions, 0 for rows to ignore, `[time, env]`.
    """
    # Sums, so that the rounds of all processes count as one.
    sums = torch.stack([weight.sum(), (weight * advantage).sum(), (weight * advantage.square()).sum()])
    count, first, second = all_reduce(sums.double())
    mean: Tensor = first / count
    std: Tensor = (second / count - mean.square()).clamp(min=0.0).sqrt()
    return (advantage - mean.to(advantage.dtype)) / (std.to(advantage.dtype) + 1e-8)


def explained_variance(value: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Share `[]` of the variance of the targets R that V explains, 1 − Var(R − V) / Var(R); at most 1.

    Args:
        value: Values V, `[time, env]`.
        target: Targets R, `[time, env]`.
        weight: 1 for transitions, 0 for rows to ignore, `[time, env]`.
    """
    return 1.0 - _variance(target - value, weight) / _variance(target, weight)


def _variance(x: Tensor, weight: Tensor) -> Tensor:
    """Variance `[]` of the entries with weight 1; selecting these entries would make the host wait for the device."""
    count = weight.sum()
    return ((x - (x * weight).sum() / count).square() * weight).sum() / count
