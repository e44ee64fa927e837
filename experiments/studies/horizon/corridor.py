"""The horizon study on `Corridor`: both slopes, from a learned error rate."""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.studies.common import Result
from experiments.studies.horizon.learners import Recipe, train
from lit_imitation.envs import make
from lit_imitation.envs.corridor import OFF, RETURN
from lit_imitation.experts import CONTROLLERS
from lit_imitation.policies import CategoricalPolicy
from lit_imitation.rollout import Actor, ActorLike, stream
from lit_imitation.utils.seeding import derive_seed

ENV = "lit_imitation/Corridor-v0"


def measure(
    actor: ActorLike, env_kwargs: dict[str, Any], steps: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cost and error rate at each step, `[T]` each, over `steps` steps of parallel whole episodes.

    The cost is 1 in off, else 0; the error rate the share of states where the action is not the expert's.
    """
    horizon, expert = env_kwargs["horizon"], CONTROLLERS[ENV]
    envs = make(ENV, steps // horizon, seed, **env_kwargs)
    cost, error = np.empty(horizon), np.empty(horizon)
    for t, step in enumerate(islice(stream(envs, actor, seed), horizon)):
        cost[t], error[t] = -step.reward.mean(), (step.action != expert(step.observation)).mean()
    envs.close()
    return cost, error


def error_rate(actor: Actor, env_kwargs: dict[str, Any], steps: int, seed: int) -> float:
    """ε: the share of the expert's states on which the action differs from the expert's."""
    expert = CONTROLLERS[ENV]
    envs = make(ENV, steps // env_kwargs["horizon"], seed, **env_kwargs)
    states = islice(stream(envs, expert, seed), env_kwargs["horizon"])
    rate = float(np.mean([np.mean(actor.act(step.observation) != step.action) for step in states]))
    envs.close()
    return rate


def run(horizon: int, probability: float, situations: int, recipe: dict[str, Any], steps: int, seed: int) -> Result:
    """Train and measure both at one horizon; BC also where every action leads back.

    The policies are tabular: logits W[s] + b of the observation alone (cross-entropy). BC's data do not depend on
    whether errors can be recovered, since the expert makes none, and so the same clone is measured in both corridors.

    Args:
        horizon: T.
        probability: Probability p of a rare situation.
        situations: R, how many rare ones there are.
        recipe: Arguments of `Recipe`.
        steps: Number of steps measured with each policy.
        seed: Seed of everything.
    """
    env_kwargs = {"horizon": horizon, "probability": probability, "situations": situations}
    seed = derive_seed(seed, "corridor", horizon, str(probability))
    numbers = Recipe(episode=horizon, **recipe)
    learners = train(ENV, numbers, partial(CategoricalPolicy, hidden_sizes=()), env_kwargs, seed)
    data = learners.demonstrations
    fresh = derive_seed(seed, "fresh states")
    result: Result = {"labels": learners.labels, "disagreement": learners.disagreement}
    for name, policy in (("bc", learners.bc), ("dagger", learners.dagger)):
        actor = policy.actor()
        result[f"{name}_cost"], result[f"{name}_error"] = measure(actor, env_kwargs, steps, derive_seed(seed, name))
        result[f"{name}_epsilon"] = np.array(error_rate(actor, env_kwargs, steps, fresh))
        result[f"{name}_returns"] = np.asarray(actor.act(np.array([OFF])) == RETURN)
    actor = learners.bc.actor()
    result["bc_training_error"] = np.array(np.mean(actor.act(data.observation.numpy()) != data.action.numpy()))
    result["recoverable_cost"], result["recoverable_error"] = measure(
        actor, env_kwargs | {"recoverable": True}, steps, derive_seed(seed, "recoverable")
    )
    return result
