"""Rollouts of a 2×64 policy at 64 environments against the bare stepping of the same backend, on one thread.

The bare loop only calls `envs.step`, with the recorded actions of the policy, so that both simulate the same. There
are three ways to roll out: `stream`, the loop itself; `Episodes`, whole episodes as in evaluation; and `collect`, which
also keeps their transitions. Each takes turns with its bare loop, and the ratio is taken within each turn, so that a
machine that slows down for a while slows both.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable, Sequence
from itertools import islice
from statistics import median
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from experiments.markdown import table
from experiments.speed.common import machine, ratios, save
from lit_imitation.envs import make
from lit_imitation.policies import CategoricalPolicy, GaussianPolicy
from lit_imitation.rollout import ActorLike, Episodes, collect, stream

NUM_ENVS, SEED, LIMIT = 64, 0, 0.6
TASKS = {
    "CartPole-v1": (CategoricalPolicy, ("vector", "envpool", "sync")),
    "Hopper-v5": (GaussianPolicy, ("envpool", "sync")),
}
"""Policy and backends of each environment; the first backend is the one that `auto` selects."""


def contenders(envs: VectorEnv[Any, Any, Any], steps: int, episodes: int) -> dict[str, Callable[[ActorLike], object]]:
    """The three ways to roll out, each a function of the actor."""
    return {
        "stream": lambda actor: [None for _ in islice(stream(envs, actor, SEED), steps)],
        "Episodes": lambda actor: list(Episodes(envs, actor, episodes, SEED)),
        "collect": lambda actor: collect(envs, actor, episodes, SEED),
    }


def seconds(work: Callable[[], object]) -> float:
    """Seconds that `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def replay(envs: VectorEnv[Any, Any, Any], actions: Sequence[NDArray[Any]]) -> None:
    """The bare loop."""
    envs.reset(seed=SEED)
    for action in actions:
        envs.step(action)


def measure(env_id: str, backend: str, repeats: int, target_seconds: float) -> list[dict[str, Any]]:
    """One row for each way to roll out."""
    envs = make(env_id, NUM_ENVS, SEED, backend)  # type: ignore[arg-type]
    torch.manual_seed(SEED)
    policy = TASKS[env_id][0](envs.single_observation_space, envs.single_action_space, hidden_sizes=(64, 64))
    actor = policy.actor(deterministic=True)

    # As many steps as take `target_seconds`, and about as many in whole episodes.
    probe = 100
    steps = max(probe, int(probe * target_seconds / seconds(lambda: list(islice(stream(envs, actor, SEED), probe)))))
    lengths = [episode.length for episode in Episodes(envs, actor, NUM_ENVS, SEED)]
    episodes = NUM_ENVS * max(1, round(steps / np.mean(lengths)))

    rows = []
    for name, work in contenders(envs, steps, episodes).items():
        taken: list[NDArray[Any]] = []

        def noting(observation: NDArray[Any], taken: list[NDArray[Any]] = taken) -> NDArray[Any]:
            taken.append(actor.act(observation))
            return taken[-1]

        work(noting)
        ours, bare = [], []
        for i in range(repeats):
            for which in ("bare", "ours") if i % 2 else ("ours", "bare"):
                if which == "ours":
                    ours.append(seconds(lambda work=work: work(actor)))  # type: ignore[misc]
                else:
                    bare.append(seconds(lambda taken=taken: replay(envs, taken)))  # type: ignore[misc]
        rows.append(
            {
                "env_id": env_id,
                "backend": backend,
                "rollout": name,
                "batched_steps": len(taken),
                "seconds": {"bare": bare, "ours": ours},
                "steps_per_second": {
                    which: NUM_ENVS * len(taken) / median(times) for which, times in (("bare", bare), ("ours", ours))
                },
                "share_of_bare": ratios(bare, ours),
            }
        )
    envs.close()
    return rows


def main() -> None:
    """Measure, print a table, write `results/rollout.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--seconds", type=float, default=0.3, help="approximate seconds of one repeat")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    shown = [["rollout", "bare steps/s", "ours steps/s", f"share of bare (target ≥ {LIMIT})"]]
    for env_id, (_, backends) in TASKS.items():
        available = [b for b in backends if b != "envpool" or importlib.util.find_spec("envpool")]
        for backend in available:
            for row in measure(env_id, backend, arguments.repeats, arguments.seconds):
                rows.append(row | {"auto": backend == available[0]})
                rate, label = row["steps_per_second"], f"{env_id} {backend}{' (auto)' * (backend == available[0])}"
                share = f"{row['share_of_bare']['median']:.2f}"
                shown.append([f"{label} {row['rollout']}", f"{rate['bare']:,.0f}", f"{rate['ours']:,.0f}", share])
                print(*shown[-1], flush=True)
    path = save("rollout", machine() | {"num_envs": NUM_ENVS, "hidden_sizes": [64, 64], "rows": rows})
    print(f"\n{table(shown[0], shown[1:])}\n\nwritten: {path}")
