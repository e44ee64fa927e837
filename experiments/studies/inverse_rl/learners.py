"""The study's runs: a reward, learned from demonstrations of a soft-optimal expert."""

from __future__ import annotations

import tempfile
from functools import partial
from typing import Any

import numpy as np
import torch

from experiments.studies.common import Result, fit
from experiments.studies.inverse_rl.worlds import built
from lit_imitation.data.tabular_module import TabularDataModule
from lit_imitation.methods import MaxEntIRL
from lit_imitation.metrics.reward_recovery import ExpectedValueDifference, expected_value
from lit_imitation.rewards import LinearReward, MLPReward
from lit_imitation.tabular.mdp import RewardTable
from lit_imitation.tabular.planning import Planning, solve
from lit_imitation.utils.seeding import RandomStream, derive_seed

SHOWN = 8
"""Number of demonstrations that are stored for the figure."""


def recovered(
    world: str,
    arguments: dict[str, Any],
    fresh: dict[str, Any] | None,
    deep: dict[str, Any] | None,
    model: dict[str, Any],
    data: dict[str, Any],
    epochs: int,
    seed: int,
) -> Result:
    """Learn a reward by maximum causal entropy IRL, and evaluate its optimal policy under the true reward.

    Args:
        world: Key of `WORLDS`.
        arguments: Arguments of the world of the demonstrations.
        fresh: Arguments of another world in which the reward is also evaluated.
        deep: Arguments of `MLPReward`; None for `LinearReward`.
        model: Arguments of `MaxEntIRL`, without the reward.
        data: Arguments of `TabularDataModule`.
        epochs: Largest number of epochs.
        seed: Seed of demonstrations and weights.

    Returns:
        `reward: [S]` of the world that was learned from; `optimal`, `reached` and `expert`, `[]`: the expected true
        values of the optimal policy, of that of this reward, and of the expert; `fresh_optimal` and so on, with
        `fresh`; `shown: [≤ SHOWN, n]`: states of demonstrations; `steps`, `[]`: of all demonstrations.
    """
    mdp = built(world, arguments)
    reward = LinearReward if deep is None else partial(MLPReward, **deep)
    with tempfile.TemporaryDirectory() as directory, RandomStream(derive_seed(seed, world, "learner")):
        source = TabularDataModule(world=mdp, eval_episodes=0, seed=seed, **data)
        module = MaxEntIRL(reward, **model)
        fit(module, source, epochs, directory, validate=False)
    (shown,) = source.trajectories
    length = int(shown.length[0])
    result: Result = {
        "shown": shown.state.view(-1, length)[:SHOWN].numpy().copy(),  # all have this length: no state is terminal
        "steps": np.array(len(shown.state)),
    }
    for prefix, place in (("", arguments), ("fresh_", fresh)):
        if place is not None:
            judged = built(world, place)
            with torch.no_grad():
                table = module.reward.table(judged.to(dtype=next(module.reward.parameters()).dtype))
            found = RewardTable(table.values.double(), table.inputs)
            metric = ExpectedValueDifference(module.planning)
            metric.update(judged, found)
            assert judged.reward is not None
            expert = solve(judged, judged.reward, Planning(gamma=source.expert_gamma)).policy
            values = {
                "optimal": metric.optimal,
                "reached": metric.reached,
                "expert": expected_value(judged, expert, module.planning),
            }
            result |= {f"{prefix}{name}": np.array(float(value)) for name, value in values.items()}
            if not prefix:
                result["reward"] = found.values.numpy()
    return result
