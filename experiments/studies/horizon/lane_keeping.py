"""The horizon study on `LaneKeeping`: the paths of the expert, BC and DAgger."""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import Any

import numpy as np

from experiments.studies.common import Result
from experiments.studies.horizon.learners import Recipe, train
from lit_imitation.envs import make
from lit_imitation.envs.lane_keeping import lateral_offset
from lit_imitation.experts import CONTROLLERS
from lit_imitation.policies import DeterministicPolicy
from lit_imitation.rollout import FunctionActor, stream
from lit_imitation.utils.seeding import derive_seed

ENV = "lit_imitation/LaneKeeping-v0"
X_EDGES, Y_EDGES = np.linspace(0.0, 8.5, 171), np.linspace(-1.5, 1.5, 61)
"""Cells of the histogram of visited positions."""
OFFSET_EDGES = np.linspace(-0.6, 0.6, 61)
"""Bins of the histogram of lateral offsets; the outermost include values beyond them."""
DRAWN = 15
"""Number of complete trajectories that are stored."""


def run(horizon: int, recipe: dict[str, Any], episodes: int, seed: int) -> Result:
    """Train both, and measure them and the expert.

    Args:
        horizon: T.
        recipe: Arguments of `Recipe`.
        episodes: Number of episodes measured with each.
        seed: Seed of everything.
    """
    seed = derive_seed(seed, "lane keeping")
    numbers = Recipe(episode=horizon, **recipe)
    learners = train(ENV, numbers, partial(DeterministicPolicy, hidden_sizes=(64, 64)), {"horizon": horizon}, seed)
    data, expert = learners.demonstrations, CONTROLLERS[ENV]
    result: Result = {"labels": learners.labels, "disagreement": learners.disagreement}
    drivers = {"expert": FunctionActor(expert), "bc": learners.bc.actor(), "dagger": learners.dagger.actor()}
    for name, actor in drivers.items():
        envs = make(ENV, episodes, 0, horizon=horizon)
        # The same starts and disturbances for all three.
        steps = list(islice(stream(envs, actor, derive_seed(seed, "drive")), horizon))
        envs.close()
        path = np.stack([steps[0].observation, *(step.next_observation for step in steps)], axis=1)
        offset = np.clip(lateral_offset(path), OFFSET_EDGES[0], OFFSET_EDGES[-1])
        result |= {
            f"{name}_cost": np.array([-step.reward.mean() for step in steps]),
            f"{name}_error": np.array([np.abs(step.action - expert(step.observation)).mean() for step in steps]),
            f"{name}_offset": np.abs(lateral_offset(path)).mean(axis=0),
            f"{name}_left": np.array(np.mean(np.any([step.reward < 0 for step in steps], axis=0))),
            f"{name}_paths": path[:DRAWN, :, :2],
            f"{name}_visits": np.histogram2d(path[..., 0].ravel(), path[..., 1].ravel(), [X_EDGES, Y_EDGES])[0]
            / path[..., 0].size,
            f"{name}_offsets": np.histogram(offset, OFFSET_EDGES)[0] / offset.size,
            f"{name}_training_error": np.array(
                np.abs(actor.act(data.observation.numpy()) - data.action.numpy()).mean(),
            ),
        }
    return result
