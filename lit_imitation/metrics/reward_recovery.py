"""How good a recovered reward is, where the true one is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_imitation.tabular.mdp import RewardTable, TabularMDP
from lit_imitation.tabular.planning import Planning, occupancy, solve
from lit_imitation.transitions import Transitions


def expected_value(mdp: TabularMDP, policy: Tensor, planning: Planning) -> Tensor:
    """E[Σ_t γᵗ r_t] `[]` of a policy `[T, S, A]` or `[S, A]` from the start distribution, under the true reward."""
    assert mdp.reward is not None
    flow = occupancy(mdp, policy, {0: mdp.start}, planning)
    return (flow * by_action(mdp, mdp.reward)).sum()


def by_action(mdp: TabularMDP, reward: RewardTable) -> Tensor:
    """`[S, A]`: what an action in a state pays, in the mean over where it leads."""
    if reward.inputs == "state":
        return reward.values[:, None].expand(-1, mdp.num_actions)
    if reward.inputs == "state_action":
        return torch.where(mdp.terminal[:, None], 0.0, reward.values)
    return mdp.summed(mdp.probability * reward.values).T


def on_transitions(mdp: TabularMDP, table: RewardTable) -> Tensor:
    """`[N]`: what each possible transition pays, in the order of `TabularMDP.successor`.

    What a state pays that is terminal counts as paid on entering it.
    """
    if table.inputs == "transition":
        return table.values
    state, action, following = mdp.row % mdp.num_states, mdp.row // mdp.num_states, mdp.successor.long()
    return _paid(mdp, table, state, action, following)


def reward_function(mdp: TabularMDP, table: RewardTable) -> Callable[[Transitions], Tensor] | None:
    """A table as a function of `Transitions` `[N]`, for `EPIC`, with terminal states as in `on_transitions`.

    EPIC pairs every state with every other one, whether or not an action leads from one to the other. Of such a pair a
    reward of transitions says something only where it is one of the state, or of state and action, written at length.
    Where it is not, there is no function to be had: None.
    """
    plain = _plainly(mdp, table.values) if table.inputs == "transition" else table
    if plain is None:
        return None
    if plain.inputs == "state_action":
        plain = plain._replace(values=by_action(mdp, plain))  # once: EPIC asks often

    def reward(transitions: Transitions) -> Tensor:
        following = transitions.next_observation
        assert following is not None
        return _paid(mdp, plain, transitions.observation, transitions.action, following)

    return reward


def _paid(mdp: TabularMDP, table: RewardTable, state: Tensor, action: Tensor, following: Tensor) -> Tensor:
    """A reward of state, or of state and action, of each of these `[N]`."""
    if table.inputs == "state":
        return table.values[state] + torch.where(mdp.terminal[following], table.values[following], 0.0)
    return table.values[state, action]


def _plainly(mdp: TabularMDP, values: Tensor) -> RewardTable | None:
    """A reward of transitions `[N]` as one of the state, or else of state and action, if it is one."""
    state, following = mdp.row % mdp.num_states, mdp.successor.long()
    over = mdp.terminal[following]
    # Where the next state goes on, all of it is this state's; where it does not, what this state does not account for.
    of_state = values.new_zeros(mdp.num_states)
    of_state[state[~over]] = values[~over]
    of_state[following[over]] = (values - of_state[state])[over]
    of_action = by_action(mdp, RewardTable(values, "transition"))
    for table in (RewardTable(of_state), RewardTable(of_action, "state_action")):
        if torch.allclose(on_transitions(mdp, table), values):
            return table
    return None


def some_transitions(mdp: TabularMDP, count: int = 256) -> Transitions:
    """`count` of the possible transitions at random, the same ones every time."""
    generator = torch.Generator().manual_seed(0)
    place = torch.randint(len(mdp.successor), (count,), generator=generator).to(mdp.device)
    row = torch.searchsorted(mdp.row_start, place.to(mdp.row_start.dtype), right=True) - 1
    following = mdp.successor[place].long()
    no = torch.zeros(count, dtype=torch.bool, device=mdp.device)
    return Transitions(
        observation=row % mdp.num_states,
        action=row // mdp.num_states,
        reward=no.float(),
        terminated=mdp.terminal[following],
        truncated=no,
        next_observation=following,
        batch_size=no.shape,
    )


class ExpectedValueDifference(Metric):
    """E[V*(s_0) − V^π(s_0)] under the true reward (Levine, Popović & Koltun 2011), the mean over worlds.

    π is optimal for the recovered reward, without an entropy: 0 says that nothing is lost by having that one instead of
    the true one. `compute` gives `expected_value_difference`, and `value_share`, the mean of V^π over the mean of V*,
    which means something where the latter is positive.

    Args:
        planning: horizon, discount and tolerance of either policy.
    """

    full_state_update = False
    optimal: Tensor
    reached: Tensor
    worlds: Tensor

    def __init__(self, planning: Planning) -> None:
        super().__init__()
        self.planning = replace(planning, entropy="none")
        for name in ("optimal", "reached", "worlds"):
            self.add_state(name, torch.zeros(()), dist_reduce_fx="sum")

    def update(self, mdp: TabularMDP, recovered: RewardTable) -> None:
        """Take in a world with its true reward, and the reward that was recovered for it."""
        if mdp.reward is None:
            raise ValueError("the true reward of this world is not known")
        for name, reward in (("optimal", mdp.reward), ("reached", recovered)):
            value = expected_value(mdp, solve(mdp, reward, self.planning).policy, self.planning)
            setattr(self, name, getattr(self, name) + value.to(self.optimal))
        self.worlds = self.worlds + 1

    def compute(self) -> dict[str, Tensor]:
        """Both figures, `[]` each."""
        return {
            "expected_value_difference": (self.optimal - self.reached) / self.worlds,
            "value_share": self.reached / self.optimal,
        }
