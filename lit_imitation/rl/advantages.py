"""Advantages and returns of a rollout (Schulman et al. 2016, "High-Dimensional Continuous Control Using GAE")."""

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
    """`[time, env]`: Â_t = δ_t + γλ (1 − done_t) Â_{t+1} with δ_t = r_t + γ (1 − terminated_t) V(s'_t) − V(s_t).

    A terminated step has no future; a truncated one has the value of its true final observation, and nothing of the
    episode that starts behind it. The λ-return, the value function's target, is Â_t + V(s_t).

    Args:
        reward: `[time, env]`.
        value: V(s_t), `[time, env]`.
        next_value: V(s'_t) of the true successor, `[time, env]`.
        terminated: `[time, env]` bool.
        done: terminated or truncated, `[time, env]` bool.
        gamma: discount.
        gae_lambda: λ; 1 gives Monte Carlo returns, 0 one-step differences.
    """
    delta = reward + gamma * next_value * ~terminated - value
    carried = (gamma * gae_lambda) * (~done).to(delta.dtype)
    advantages, following = [], torch.zeros_like(delta[0])
    # Rows taken apart all at once: to index one takes longer than to add it.
    for delta_t, carried_t in zip(reversed(delta.unbind()), reversed(carried.unbind()), strict=True):
        following = torch.addcmul(delta_t, carried_t, following)
        advantages.append(following)
    return torch.stack(advantages[::-1])
