"""The horizon study on LunarLander: the same curves on a task that was not built for them."""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import Any

import numpy as np

from experiments.studies.common import Result
from experiments.studies.horizon.learners import Recipe, train
from lit_imitation.envs import make
from lit_imitation.experts import CONTROLLERS
from lit_imitation.policies import CategoricalPolicy
from lit_imitation.rollout import FunctionActor, stream
from lit_imitation.utils.seeding import derive_seed

ENV = "LunarLander-v3"
ANGLE_EDGES = np.linspace(-1.2, 1.2, 49)
"""Bins of the histogram of the lander's angle in radians; the outermost include values beyond them."""


def run(horizon: int, recipe: dict[str, Any], episodes: int, seed: int) -> Result:
    """Train both, and measure them and the expert over at most `horizon` steps.

    The cost of a step is the 0–1 loss of the theorem: 1 where the learner does not do what the expert would do in that
    state. Once an episode has ended, every step costs 1 after a crash and 0 after a landing, so that to crash early
    does not save the errors that would have come.

    Args:
        horizon: T.
        recipe: Arguments of `Recipe`.
        episodes: Number of episodes measured with each.
        seed: Seed of everything.
    """
    seed = derive_seed(seed, "lunar lander")
    learners = train(ENV, Recipe(**recipe), partial(CategoricalPolicy, hidden_sizes=(64, 64)), {}, seed, "sync")
    data, expert = learners.demonstrations, CONTROLLERS[ENV]
    result: Result = {"labels": learners.labels, "disagreement": learners.disagreement}
    pilots = {"expert": FunctionActor(expert), "bc": learners.bc.actor(), "dagger": learners.dagger.actor()}
    for name, actor in pilots.items():
        envs = make(ENV, episodes, 0, "sync")
        flying, crashed = np.ones(episodes, np.bool_), np.zeros(episodes, np.bool_)
        costs, errors, angles, returns = [], [], [], np.zeros(episodes)
        for step in islice(stream(envs, actor, derive_seed(seed, "fly")), horizon):
            wrong = step.action != expert(step.observation)
            costs.append(np.mean(np.where(flying, wrong, crashed)))
            errors.append(np.mean(wrong[flying]) if flying.any() else np.nan)
            angles.append(step.observation[flying, 4])
            returns += np.where(flying, step.reward, 0.0)
            # The last reward of a flight is −100 for a crash and +100 for a landing.
            crashed |= flying & step.terminated & (step.reward < 0)
            flying &= ~step.done
            if not flying.any():
                break
        envs.close()
        rest = horizon - len(costs)
        angle = np.clip(np.concatenate(angles), ANGLE_EDGES[0], ANGLE_EDGES[-1])
        result |= {
            f"{name}_cost": np.array(costs + [float(crashed.mean())] * rest),
            f"{name}_error": np.array(errors + [np.nan] * rest),
            f"{name}_crashed": np.array(crashed.mean()),
            f"{name}_return": np.array(returns.mean()),
            f"{name}_angles": np.histogram(angle, ANGLE_EDGES)[0] / angle.size,
            f"{name}_training_error": np.array(np.mean(actor.act(data.observation.numpy()) != data.action.numpy())),
        }
    return result
