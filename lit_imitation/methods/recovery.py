"""Metrics of a recovered reward in finite worlds: reward recovery, and likelihood of the demonstrated actions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torchmetrics import PearsonCorrCoef

from lit_imitation.metrics.epic import EPIC
from lit_imitation.metrics.reward_recovery import (
    ExpectedValueDifference,
    reward_function,
    sample_transitions,
    to_transitions,
)
from lit_imitation.rewards.tabular import TabularReward
from lit_imitation.tabular.likelihood import action_log_likelihood, baselines
from lit_imitation.tabular.mdp import RewardTable, TabularMDP
from lit_imitation.tabular.planning import Planning
from lit_imitation.tabular.trajectories import UNKNOWN, Trajectories

BASELINES = ("uniform_log_likelihood", "markov_log_likelihood")
"""Figures of the baselines."""
MIN_WEIGHT = 0.1
"""Share of the demonstrated steps below which the sum of discounted step weights causes a warning."""


class RewardRecovery(nn.Module):
    """Compares a recovered reward with the true one, in the training worlds and in fresh ones.

    Args:
        planning: Horizon, discount and tolerance.
    """

    def __init__(self, planning: Planning) -> None:
        super().__init__()
        self.gamma = planning.gamma
        self.value_difference = ExpectedValueDifference(planning)
        self.fresh_value_difference = ExpectedValueDifference(planning)
        self.correlation = PearsonCorrCoef()
        self._epic: list[EPIC] = []

    def reset(self) -> None:
        """Start a new evaluation."""
        for metric in (self.value_difference, self.fresh_value_difference, self.correlation):
            metric.reset()
        self._epic = []

    def update(self, mdp: TabularMDP, table: RewardTable, fresh: bool) -> None:
        """Add a world.

        Args:
            mdp: World with its true reward.
            table: Recovered reward of this world.
            fresh: Whether the reward was not trained on this world.
        """
        if fresh:
            self.fresh_value_difference.update(mdp, table)
            return
        self.value_difference.update(mdp, table)
        assert mdp.reward is not None
        self.correlation.update(to_transitions(mdp, table), to_transitions(mdp, mdp.reward))
        recovered, true = reward_function(mdp, table), reward_function(mdp, mdp.reward)
        if recovered is not None and true is not None:
            epic = EPIC(recovered, true, self.gamma, samples=64)
            epic.to(mdp.device).update(sample_transitions(mdp))
            self._epic.append(epic)

    def compute(self) -> dict[str, Tensor]:
        """Figures of all worlds; empty without worlds."""
        if not self.value_difference.update_called:
            return {}
        figures = self.value_difference.compute()
        figures["reward_correlation"] = self.correlation.compute()
        if self._epic:
            figures["epic_distance"] = torch.stack([epic.compute() for epic in self._epic]).mean()
        if self.fresh_value_difference.update_called:
            figures |= {f"fresh_{name}": value for name, value in self.fresh_value_difference.compute().items()}
        return figures


def baseline_likelihoods(
    worlds: Sequence[TabularMDP], train: Sequence[Trajectories], held_out: Sequence[Trajectories | None]
) -> dict[str, float]:
    """Log-likelihood per step of the `BASELINES`, with prefix `held_out_` on held-out trajectories.

    Where an action is unknown, the figures are left out.

    Args:
        worlds: Training worlds.
        train: Training trajectories of each world.
        held_out: Held-out trajectories of each world, if any.
    """
    train = [one.to("cpu") for one in train]
    if not _known(train):
        return {}
    groups = {"": list(zip(worlds, train, train, strict=True))}
    pairs = [(mdp, one, of) for mdp, one, of in zip(worlds, held_out, train, strict=True) if one is not None]
    if pairs and _known([one for _, one, _ in pairs]):
        groups["held_out_"] = pairs
    figures: dict[str, float] = {}
    for prefix, group in groups.items():
        found = [baselines(*one) for one in group]
        sums = sum(one.uniform for one in found), sum(one.markov for one in found)
        steps = sum(one.steps for one in found)
        figures |= {f"{prefix}{name}": total / steps for name, total in zip(BASELINES, sums, strict=True)}
    return figures


def mean_log_likelihood(
    worlds: Sequence[TabularMDP], trajectories: Sequence[Trajectories | None], reward: TabularReward, planning: Planning
) -> float:
    """Log-likelihood per step of the actions under the policy that is optimal for a reward."""
    total, steps = 0.0, 0
    for mdp, those in zip(worlds, trajectories, strict=True):
        if those is not None:
            total += action_log_likelihood(mdp, reward.table(mdp), those.to(mdp.device), planning)
            steps += len(those.state)
    return total / steps


def select_likelihoods(figures: dict[str, float], prefix: str) -> dict[str, Tensor]:
    """Log-likelihoods with this prefix, without it, and those of the `BASELINES`."""
    names = [name for name in ("log_likelihood", *BASELINES) if prefix + name in figures]
    return {name: torch.tensor(figures[prefix + name]) for name in names}


def warn_of_small_weights(trajectories: Sequence[Trajectories], gamma: float) -> None:
    """Warn if discounting leaves little weight on the demonstrated steps."""
    steps = sum(len(one.state) for one in trajectories)
    weight = sum(float((gamma ** one.step.double()).sum()) for one in trajectories)
    if weight < MIN_WEIGHT * steps:
        rank_zero_warn(
            f"with model.step_weights discounted step t has weight γᵗ, and the weights of the {steps} demonstrated "
            f"steps sum to {weight:.0f}, {weight / steps:.1%} of them: later steps have little effect. Use equal "
            "weights, a larger model.gamma, or shorter trajectories"
        )


def warn_if_worse_than_uniform(figures: dict[str, float]) -> None:
    """Warn if the demonstrated actions are less likely under the recovered reward than under a uniform policy."""
    for prefix, what in (("", "demonstrated"), ("held_out_", "held-out")):
        found, uniform = (figures.get(f"{prefix}{name}") for name in ("log_likelihood", "uniform_log_likelihood"))
        if found is not None and uniform is not None and found < uniform:
            rank_zero_warn(
                f"the recovered reward explains the {what} actions worse than a uniform policy does: {found:.3f} nats "
                f"per step, uniform {uniform:.3f}; train longer, or try another model.gamma, reward or features"
            )


def _known(trajectories: Sequence[Trajectories]) -> bool:
    return all(bool((one.action != UNKNOWN).all()) for one in trajectories)
