"""Rewards as maps: optimal actions, losses under the true reward, and potential shaping."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lit_imitation.metrics.epic import EPIC, pearson_distance
from lit_imitation.metrics.reward_recovery import reward_function, sample_transitions, to_state_action
from lit_imitation.tabular.mdp import RewardTable, TabularMDP
from lit_imitation.tabular.planning import Planning, solve
from lit_imitation.transitions import Transitions

Floats = NDArray[np.float64]
SAMPLES = 64
"""Number of samples of EPIC's expectation, as in `MaxEntIRL`."""


class Map(NamedTuple):
    """A reward of the cells, and its optimal policy."""

    reward: Floats
    """Drawn reward `[S]`."""
    action: NDArray[np.int64]
    """`[S]`."""
    loss: Floats
    """`[S]`: max_a Q*(s, a) − Q*(s, action) under the true reward: 0 where the action is optimal."""


def optimal_actions(mdp: TabularMDP, reward: RewardTable, gamma: float) -> NDArray[np.int64]:
    """`[S]`: an optimal action in each state, the first of several."""
    return np.asarray(solve(mdp, reward, _planning(gamma)).policy.argmax(1).numpy())


def losses(mdp: TabularMDP, action: NDArray[np.int64], gamma: float) -> Floats:
    """`[S]`: the loss of each action under the true reward, if all later actions are optimal."""
    assert mdp.reward is not None
    value = solve(mdp, mdp.reward, _planning(gamma)).value
    q = to_state_action(mdp, mdp.reward).T + gamma * mdp.expectation(value)
    taken = q.gather(0, torch.from_numpy(action)[None]).squeeze(0)
    return np.asarray((q.amax(0) - taken).numpy())


def _planning(gamma: float) -> Planning:
    return Planning(gamma=gamma, tolerance=1e-9, entropy="none")


def scaled(found: Floats, truth: Floats) -> tuple[Floats, float]:
    """`[S]`: found · a + b, closest to `truth` by least squares with a ≥ 0; and a.

    Constant and positive factor are what a reward is not known by.
    """
    centered = found - found.mean()
    spread = float(centered @ centered)
    factor = max(0.0, float(centered @ truth) / spread) if spread else 0.0
    return truth.mean() + factor * centered, factor


def drawn(mdp: TabularMDP, found: Floats, gamma: float) -> Map:
    """A recovered reward, scaled to the true one."""
    assert mdp.reward is not None
    action = optimal_actions(mdp, RewardTable(torch.from_numpy(found)), gamma)
    return Map(scaled(found, mdp.reward.values.numpy())[0], action, losses(mdp, action, gamma))


# Potentials


class Shaped(NamedTuple):
    """The true reward of a state, and γΦ(s′) − Φ(s) added to it."""

    map: Map
    """Mean reward of the five actions in each cell, and the optimal policy."""
    epic: float
    """EPIC distance from the true reward."""
    pearson: float
    """Pearson distance from it over the same transitions, which is not invariant to potentials."""


def shaped(mdp: TabularMDP, potential: Floats, gamma: float) -> Shaped:
    """The true reward plus shaping by a potential Φ `[S]`, which keeps optimal policies and EPIC distances.

    For a world without terminal states.
    """
    truth = mdp.reward
    assert truth is not None
    phi = torch.from_numpy(potential)
    state = mdp.row % mdp.num_states
    table = RewardTable(truth.values[state] + gamma * phi[mdp.successor.long()] - phi[state], "transition")
    plain = reward_function(mdp, truth)
    assert plain is not None

    def paid(transitions: Transitions) -> torch.Tensor:
        # For all pairs of cells, including those without a transition, which the table does not have.
        assert transitions.next_observation is not None
        return plain(transitions) + gamma * phi[transitions.next_observation] - phi[transitions.observation]

    epic = EPIC(paid, plain, gamma, SAMPLES)
    transitions = sample_transitions(mdp)
    epic.update(transitions)
    action = optimal_actions(mdp, table, gamma)
    return Shaped(
        Map(to_state_action(mdp, table).mean(1).numpy(), action, losses(mdp, action, gamma)),
        float(epic.compute()),
        float(pearson_distance(paid(transitions), plain(transitions))),
    )


def epic_distance(mdp: TabularMDP, found: Floats, gamma: float) -> float:
    """EPIC distance of a reward of the states `[S]` from the true one."""
    assert mdp.reward is not None
    one, other = (reward_function(mdp, table) for table in (RewardTable(torch.from_numpy(found)), mdp.reward))
    assert one is not None
    assert other is not None
    epic = EPIC(one, other, gamma, SAMPLES)
    epic.update(sample_transitions(mdp))
    return float(epic.compute())
