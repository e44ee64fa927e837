"""Log-likelihood of demonstrated actions under a reward's policy and two baselines without a reward."""

from __future__ import annotations

from typing import NamedTuple

import torch

from lit_imitation.tabular.mdp import RewardTable, TabularMDP
from lit_imitation.tabular.planning import Planning, policies
from lit_imitation.tabular.trajectories import UNKNOWN, Trajectories


class Baselines(NamedTuple):
    """Log-likelihoods in nats, summed over the steps whose action is known."""

    uniform: float
    """Log-likelihood under a uniform policy over the available actions."""
    markov: float
    """Log-likelihood under a first-order Markov model π(a | s) = (n(s, a) + 1) / (n(s) + A_s), with counts n from the
    training demonstrations and A_s actions available in s."""
    steps: int
    """Number of these steps."""


def baselines(mdp: TabularMDP, trajectories: Trajectories, fitted: Trajectories) -> Baselines:
    """Log-likelihoods of `trajectories` under both baselines, with the action counts of `fitted`."""
    count, seen = mdp.count_actions().double(), fitted.action != UNKNOWN
    pairs = torch.zeros(mdp.num_states * mdp.num_actions, dtype=torch.float64, device=count.device)
    place = (fitted.state * mdp.num_actions + fitted.action)[seen]
    pairs = pairs.index_add_(0, place, torch.ones_like(place, dtype=torch.float64)).view(mdp.num_states, -1)
    known = trajectories.action != UNKNOWN
    state, action = trajectories.state[known], trajectories.action[known]
    frequency = (pairs[state, action] + 1) / (pairs.sum(1)[state] + count[state])
    return Baselines(-float(count[state].log().sum()), float(frequency.log().sum()), len(state))


@torch.no_grad()
def action_log_likelihood(
    mdp: TabularMDP, reward: RewardTable, trajectories: Trajectories, planning: Planning
) -> float:
    """Log-likelihood Σ log π_t(a_t | s_t) of the known actions under the policy that is optimal for `reward`."""
    total, known = 0.0, trajectories.action != UNKNOWN
    for t, policy in enumerate(policies(mdp, reward, planning)):
        at = known if planning.horizon is None else known & (trajectories.step == t)
        total += float(policy[trajectories.action[at], trajectories.state[at]].log().sum())
    return total
