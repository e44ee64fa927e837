"""Generalized advantage estimation (Schulman et al. 2016, arXiv:1506.02438)."""

from __future__ import annotations

import torch
from torch import Tensor


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
