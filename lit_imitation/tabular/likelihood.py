"""How likely demonstrated actions are, a step, under a reward's policy and under two baselines that know no reward."""

from __future__ import annotations

from typing import NamedTuple

import torch

from lit_imitation.tabular.mdp import RewardTable, TabularMDP
from lit_imitation.tabular.planning import Planning, policies
from lit_imitation.tabular.trajectories import UNKNOWN, Trajectories


class Baselines(NamedTuple):
    """Log-likelihoods in nats, summed over the steps whose action is known."""

    uniform: float
    """Of a policy that takes each available action with the same probability."""
    markov: float
    """Of a first-order Markov model: π(a | s) = (n(s, a) + 1) / (n(s) + A_s), counted in the demonstrations that are
    fitted, with A_s actions available in s."""
    steps: int
    """How many steps these are."""


def baselines(mdp: TabularMDP, trajectories: Trajectories, fitted: Trajectories) -> Baselines:
    """Both for the steps of `trajectories`, with the frequencies of `fitted`."""
    count, seen = mdp.choices().double(), fitted.action != UNKNOWN
    pairs = torch.zeros(mdp.num_states * mdp.num_actions, dtype=torch.float64, device=count.device)
    place = (fitted.state * mdp.num_actions + fitted.action)[seen]
    pairs = pairs.index_add_(0, place, torch.ones_like(place, dtype=torch.float64)).view(mdp.num_states, -1)
    told = trajectories.action != UNKNOWN
    state, action = trajectories.state[told], trajectories.action[told]
    frequency = (pairs[state, action] + 1) / (pairs.sum(1)[state] + count[state])
    return Baselines(-float(count[state].log().sum()), float(frequency.log().sum()), len(state))


@torch.no_grad()
def action_log_likelihood(
    mdp: TabularMDP, reward: RewardTable, trajectories: Trajectories, planning: Planning
) -> float:
    """Σ log π_t(a_t | s_t) over the steps whose action is known, under the policy of `reward`."""
    total, told = 0.0, trajectories.action != UNKNOWN
    for t, policy in enumerate(policies(mdp, reward, planning)):
        at = told if planning.horizon is None else told & (trajectories.step == t)
        total += float(policy[trajectories.action[at], trajectories.state[at]].log().sum())
    return total
