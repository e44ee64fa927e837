"""Finite worlds of `MaxEntIRL`: copies on its device, shared features, and visits of demonstrated trajectories."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lit_imitation.errors import ConfigError
from lit_imitation.tabular.mdp import TabularMDP
from lit_imitation.tabular.planning import Inflow, Planning
from lit_imitation.tabular.trajectories import Trajectories
from lit_imitation.transitions import Inputs


class WorldCache:
    """Copies of worlds on devices, in the precision of the computation."""

    def __init__(self) -> None:
        self._copies: dict[tuple[int, torch.device, torch.dtype], tuple[TabularMDP, TabularMDP]] = {}

    def get(self, mdp: TabularMDP, device: torch.device, dtype: torch.dtype) -> TabularMDP:
        """The copy of a world."""
        key = id(mdp), device, dtype
        if key not in self._copies:
            # Keeps the original too: another world may get the address of one that is gone.
            self._copies[key] = mdp, mdp.to(device, dtype)
        return self._copies[key][1]


def check_shared_features(worlds: Sequence[TabularMDP]) -> None:
    """Check that one reward fits all worlds: several must have the same number of features."""
    shapes = {None if mdp.features is None else mdp.features.shape[1:] for mdp in worlds}
    if len(worlds) > 1 and (None in shapes or len(shapes) > 1):
        raise ConfigError(
            "several worlds share one reward by their features; these have none, or different numbers of them"
        )


class ExpertVisits(NamedTuple):
    """Visits of demonstrated trajectories of one world."""

    inflow: Inflow
    """States in which the learner starts for the expected visits d_θ."""
    visits: Tensor
    """Visits n of the inputs of the reward: states, state–action pairs or transitions."""
    state_visits: Tensor
    """Visits `[S]` of the states."""


def count_visits(
    mdp: TabularMDP, inputs: Inputs, trajectories: Trajectories, planning: Planning, per_step: bool, scale: float
) -> ExpertVisits:
    """Count the visits of trajectories.

    Args:
        mdp: World of the trajectories.
        inputs: Inputs of the reward.
        trajectories: Demonstrated trajectories.
        planning: Horizon and discount.
        per_step: Count each step as a start of its own, with the same weight; else weight step t by γᵗ.
        scale: Factor of all counts.
    """
    if per_step:
        inflow, visits = trajectories.step_inflow(mdp, planning), trajectories.step_visits(mdp, inputs)
        state_visits = visits if inputs == "state" else trajectories.step_visits(mdp, "state")
    else:
        gamma = planning.gamma
        inflow, visits = trajectories.inflow(mdp, planning), trajectories.visits(mdp, inputs, gamma)
        state_visits = visits if inputs == "state" else trajectories.visits(mdp, "state", gamma)
    return ExpertVisits({t: weight * scale for t, weight in inflow.items()}, visits * scale, state_visits * scale)


def split_by_world(trajectories: Sequence[Trajectories], numbers: Tensor) -> Iterator[tuple[int, Trajectories]]:
    """Select trajectories by number, counted through all worlds; yields the number of a world and those from it."""
    offset = 0
    for world, those in enumerate(trajectories):
        count = len(those.length)
        chosen = numbers[(numbers >= offset) & (numbers < offset + count)] - offset
        offset += count
        if len(chosen):
            yield world, those if len(chosen) == count else those.select(chosen)
