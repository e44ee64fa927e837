"""Quality of a recovered reward where the true reward is known."""

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
    """Expected return E[Σ_t γᵗ r_t] `[]` of a policy `[T, S, A]` or `[S, A]` under the true reward."""
    assert mdp.reward is not None
    flow = occupancy(mdp, policy, {0: mdp.start}, planning)
    return (flow * to_state_action(mdp, mdp.reward)).sum()


def to_state_action(mdp: TabularMDP, reward: RewardTable) -> Tensor:
    """Expected reward `[S, A]` of each action in each state, averaged over successors."""
    if reward.inputs == "state":
        return reward.values[:, None].expand(-1, mdp.num_actions)
    if reward.inputs == "state_action":
        return torch.where(mdp.terminal[:, None], 0.0, reward.values)
    return mdp.sum_outgoing(mdp.probability * reward.values).T


def to_transitions(mdp: TabularMDP, table: RewardTable) -> Tensor:
    """Reward `[N]` of each possible transition, in the order of `TabularMDP.successor`.

    The reward of a terminal state is added to the transition that enters it.
    """
    if table.inputs == "transition":
        return table.values
    state, action, following = mdp.row % mdp.num_states, mdp.row // mdp.num_states, mdp.successor.long()
    return _look_up(mdp, table, state, action, following)


def reward_function(mdp: TabularMDP, table: RewardTable) -> Callable[[Transitions], Tensor] | None:
    """Convert a table to a function of `Transitions` `[N]`, for `EPIC`; terminal states count as in `to_transitions`.

    EPIC pairs every state with every other one, even where no action leads from one to the other. A reward of
    transitions is defined for such a pair only if it depends on the state, or the state and action, alone. Otherwise
    the result is None.
    """
    plain = _simplify(mdp, table.values) if table.inputs == "transition" else table
    if plain is None:
        return None
    if plain.inputs == "state_action":
        plain = plain._replace(values=to_state_action(mdp, plain))  # once, because EPIC calls `reward` often

    def reward(transitions: Transitions) -> Tensor:
        following = transitions.next_observation
        assert following is not None
        return _look_up(mdp, plain, transitions.observation, transitions.action, following)

    return reward


def _look_up(mdp: TabularMDP, table: RewardTable, state: Tensor, action: Tensor, following: Tensor) -> Tensor:
    """Rewards `[N]` of transitions under a table of states, or of states and actions."""
    if table.inputs == "state":
        return table.values[state] + torch.where(mdp.terminal[following], table.values[following], 0.0)
    return table.values[state, action]


def _simplify(mdp: TabularMDP, values: Tensor) -> RewardTable | None:
    """Express a reward of transitions `[N]` as one of states, or else of states and actions; None if it is neither."""
    state, following = mdp.row % mdp.num_states, mdp.successor.long()
    over = mdp.terminal[following]
    # Transitions into other states give the state's reward; transitions into terminal states give the remainder.
    of_state = values.new_zeros(mdp.num_states)
    of_state[state[~over]] = values[~over]
    of_state[following[over]] = (values - of_state[state])[over]
    of_action = to_state_action(mdp, RewardTable(values, "transition"))
    for table in (RewardTable(of_state), RewardTable(of_action, "state_action")):
        if torch.allclose(to_transitions(mdp, table), values):
            return table
    return None


def sample_transitions(mdp: TabularMDP, count: int = 256) -> Transitions:
    """Sample `count` possible transitions with a fixed seed."""
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
    """Expected value difference E[V*(s_0) − V^π(s_0)] under the true reward (Levine, Popović & Koltun 2011).

    π is optimal for the recovered reward, without an entropy term: 0 means that optimizing the recovered reward loses
    nothing. `compute` returns `expected_value_difference`, the mean over worlds, and `value_share`, the mean of V^π
    divided by the mean of V*, which is meaningful if the latter is positive.

    Args:
        planning: Horizon, discount and tolerance of both policies.
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
        """Add a world with its true reward, and the reward recovered for it.

        Raises:
            ValueError: The world has no true reward.
        """
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
