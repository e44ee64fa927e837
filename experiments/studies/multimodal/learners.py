"""The runs of the study: one policy, cloned from demonstrations that take every gate, and played both ways."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch

from experiments.studies.common import Result, fit
from lit_imitation.data.demonstration_module import DemonstrationDataModule
from lit_imitation.envs import make
from lit_imitation.experts.fork import ForkExpert
from lit_imitation.methods import BC
from lit_imitation.optim.optimization import Optimization
from lit_imitation.policies import (
    CVAEPolicy,
    DeterministicPolicy,
    DiffusionPolicy,
    FlowPolicy,
    GaussianPolicy,
    MixturePolicy,
    Policy,
    QuantizedPolicy,
)
from lit_imitation.rollout import Actor, collect
from lit_imitation.rollout.stepping import stream
from lit_imitation.utils.seeding import RandomStream, derive_seed

ENV = "lit_imitation/Fork-v0"
POLICIES: dict[str, type[Policy]] = {
    "mse": DeterministicPolicy,
    "gaussian": GaussianPolicy,
    "mixture": MixturePolicy,
    "quantized": QuantizedPolicy,
    "cvae": CVAEPolicy,
    "diffusion": DiffusionPolicy,
    "flow": FlowPolicy,
}
DRAWN = 60
"""Episodes of a run whose trajectories are kept for the figure."""
DECISIONS = 300
"""Decisions that are timed, after as many that are not."""


def clone(
    head: str,
    policy: Mapping[str, Any],
    modes: int,
    demonstrations: int,
    training: Mapping[str, Any],
    episodes: int,
    seed: int,
) -> Result:
    """Clone the expert, and play the clone by samples and deterministically.

    Args:
        head: Name of the policy's class in `POLICIES`.
        policy: Arguments of the policy.
        modes: Number of gates.
        demonstrations: Number of demonstrations.
        training: `steps`, `batch_size`, `learning_rate` and `ema_decay` of `BC`.
        episodes: Number of measured episodes of each way to play.
        seed: Seed of everything; the demonstrations of a seed are the same for all heads.
    """
    seed = derive_seed(seed, "multimodal", modes)
    envs = make(ENV, demonstrations, 0, modes=modes)
    expert = ForkExpert(modes)
    shown = collect(envs, expert, demonstrations, derive_seed(seed, "demonstrations"))
    envs.close()
    with tempfile.TemporaryDirectory() as directory, RandomStream(derive_seed(seed, "clone", head)):
        method = BC(
            partial(POLICIES[head], **policy),
            learning_rate=training["learning_rate"],
            optimization=Optimization(schedule="cosine", ema_decay=training["ema_decay"]),
        )
        data = DemonstrationDataModule(
            ENV,
            demonstrations=shown,
            env_kwargs={"modes": modes},
            val_fraction=0.0,
            batch_size=training["batch_size"],
            passes_per_epoch=10,
            eval_episodes=0,
            seed=seed,
        )
        passes = training["steps"] * training["batch_size"] / len(shown)
        begun = time.monotonic()
        fit(method, data, round(passes / 10), directory, validate=False)
        seconds = time.monotonic() - begun
    trained = method.policy.eval()
    result: Result = {"seconds": np.array(seconds), "milliseconds": np.array(decision_time(trained))}
    for way, deterministic in (("sampled", False), ("deterministic", True)):
        played = play(trained.actor(deterministic), modes, episodes, derive_seed(seed, "test"))
        result |= {f"{way}_{name}": values for name, values in played.items()}
    by_expert = play(expert, modes, demonstrations, derive_seed(seed, "demonstrations"))
    return result | {f"expert_{name}": values for name, values in by_expert.items()}


def play(actor: Actor, modes: int, episodes: int, seed: int) -> Result:
    """`success` and `mode` `[episodes]` (−1: no gate passed), and the first trajectories `[DRAWN, T + 1, 2]`."""
    envs: Any = make(ENV, episodes, seed, modes=modes)
    with RandomStream(seed):
        steps = list(islice(stream(envs, actor, seed), envs.unwrapped.horizon))
    envs.close()
    path = np.stack([steps[0].observation, *(step.next_observation for step in steps)], axis=1)
    success, mode = steps[-1].info["success"], steps[-1].info["mode"]
    return {"success": success, "mode": np.where(success, mode, -1), "path": path[:DRAWN].astype(np.float32)}


@torch.no_grad()
def decision_time(policy: Policy) -> float:
    """Median milliseconds of one decision for one observation, by samples and on one thread.

    The actor is reset before each, so that a policy which plans ahead makes a new plan.
    """
    actor = policy.actor(deterministic=False)
    starts = np.ones(1, dtype=np.bool_)
    observation = np.zeros((1, 2), np.float32)
    taken = []
    for _ in range(2 * DECISIONS):
        begun = time.perf_counter()
        actor.reset(starts)
        actor.act(observation)
        taken.append(time.perf_counter() - begun)
    return 1000.0 * float(np.median(taken[DECISIONS:]))
