"""Finite MDPs: sparse transition arrays, exact planning, and demonstrations as indices."""

from lit_imitation.tabular.env import TabularEnv
from lit_imitation.tabular.mdp import RewardTable, TabularMDP
from lit_imitation.tabular.planning import Planning, Solution, log_partition, occupancy, solve
from lit_imitation.tabular.trajectories import Trajectories
from lit_imitation.tabular.worlds import BinaryWorld, GridWorld, ObjectWorld

__all__ = [
    "BinaryWorld",
    "GridWorld",
    "ObjectWorld",
    "Planning",
    "RewardTable",
    "Solution",
    "TabularEnv",
    "TabularMDP",
    "Trajectories",
    "log_partition",
    "occupancy",
    "solve",
]
