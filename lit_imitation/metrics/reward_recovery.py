"""How good a recovered reward is, where the true one is known."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_imitation.tabular.mdp import RewardTable, TabularMDP
from lit_imitation.tabular.planning import Planning, occupancy, solve


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


class ExpectedValueDifference(Metric):
    """E[V*(s_0) − V^π(s_0)] under the true reward (Levine, Popović & Koltun 2011), the mean over worlds.

    π is optimal for the recovered reward, without an entropy: 0 says that nothing is lost by having that one instead of
    the true one. `compute` gives `expected_value_difference`, and `value_share`: the mean of V^π over the mean of V*.

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
