"""The worlds of the study: a hand-drawn lake, and two worlds of the literature."""

from __future__ import annotations

from typing import Any

import numpy as np

from lit_imitation.tabular.mdp import TabularMDP
from lit_imitation.tabular.worlds import BinaryWorld, ObjectWorld, grid_transitions

FIRST_SEED = 1
"""The recipes were tuned on the world of seed 0."""
PICTURED = "binary_world"
"""The world whose corner is drawn, with the first seed."""
GROUND = (
    "........",
    "......G.",
    "........",
    "..~~~...",
    "..~~~~..",
    "..~~~~..",
    "...~~...",
    "........",
)
"""The lake's map: G the goal, ~ water."""


def lake(pay: float, slip: float) -> TabularMDP:
    """One goal and one lake on a grid of 8 × 8. Without features a linear reward has one weight per cell.

    Args:
        pay: Reward of each step at the goal; steps in the water cost as much, all others pay nothing.
        slip: Probability of a random move.
    """
    ground = np.array([list(row) for row in GROUND])
    reward = pay * ((ground == "G") * 1.0 - (ground == "~"))
    return TabularMDP(grid_transitions(len(ground), slip), reward=reward.ravel(), grid=(len(ground), len(ground[0])))


WORLDS = {"lake": lake, "object_world": ObjectWorld, "binary_world": BinaryWorld}


def built(name: str, arguments: dict[str, Any]) -> TabularMDP:
    """The world of this name."""
    build: Any = WORLDS[name]
    world: TabularMDP = build(**arguments)
    return world
