"""Seconds per iteration of maximum causal entropy IRL: ours against the `imitation` library's, and larger worlds alone.

Random worlds of 5 actions with 4 successors each, a horizon of 50, a reward linear in 10 features of the state, 100
demonstrations; one thread, pinned to one core. Up to 1,600 states the contenders take turns and a ratio is taken within
each turn; ours is a step of `fit` as the Trainer runs it. Theirs is given its transitions as float32, as its own random
environment makes them, and as float64, which saves it a conversion in every product.

Each larger size runs in a process of its own, which reports its peak memory, and the exponent of time in states is
fitted. Successors in `local` worlds lie within 50 states on either side, as in a world with a geometry; in `scattered`
worlds they lie anywhere. The work is the same, but values scattered over 4 MB do not come from the fastest cache.

It also writes `docs/images/maxent_irl_speed.png` and `.svg`; `--fixture` instead records the values that the tests
compare with.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from lightning import Callback, Trainer

import lit_imitation
from experiments.render import maxent_irl_speed
from experiments.speed.common import ROOT, machine, ratios, save, turns
from experiments.speed.peer import Worker, command, environment
from lit_imitation.tabular import TabularMDP
from lit_imitation.tabular.trajectories import sample_trajectories

ACTIONS, SUCCESSORS, HORIZON, FEATURES, DEMONSTRATIONS = 5, 4, 50, 10, 100
TOGETHER = {100: 100, 400: 30, 1600: 4}
"""Iterations of a turn, by number of states."""
ALONE = {10_000: 30, 100_000: 6, 1_000_000: 3}
KINDS = ("local", "scattered")


def random_world(states: int, kind: str = "scattered") -> TabularMDP:
    rng = np.random.default_rng(0)
    successors = rng.integers(states, size=(states, ACTIONS, SUCCESSORS), dtype=np.int32)
    if kind == "local":
        successors = (np.arange(states, dtype=np.int32)[:, None, None] + successors % 101 - 50) % states
    probabilities = rng.dirichlet(np.ones(SUCCESSORS), size=(states, ACTIONS))
    return TabularMDP((successors, probabilities), features=rng.normal(size=(states, FEATURES)))


def demonstrations(mdp: TabularMDP) -> list[tuple[Any, Any]]:
    """Trajectories of random actions."""
    policy = torch.full((mdp.num_states, ACTIONS), 1.0 / ACTIONS)
    generator = torch.Generator().manual_seed(0)
    drawn = sample_trajectories(mdp, policy, DEMONSTRATIONS, HORIZON, generator, "random")
    states, actions, last = (
        x.view(DEMONSTRATIONS, HORIZON).numpy() for x in (drawn.state, drawn.action, drawn.next_state)
    )
    return [(np.append(s, z[-1]), a) for s, a, z in zip(states, actions, last, strict=True)]


class Clock(Callback):
    """The time at each step's end."""

    def __init__(self) -> None:
        self.ended: list[float] = []

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Record it."""
        self.ended.append(time.perf_counter())


def ours(mdp: TabularMDP, demonstrated: Any, iterations: int) -> list[float]:
    """Seconds of each step of `fit`, without the first two."""
    torch.manual_seed(0)
    clock = Clock()
    data = lit_imitation.TabularDataModule(
        world=mdp, demonstrations=demonstrated, passes_per_epoch=iterations + 3, eval_episodes=0
    )
    model = lit_imitation.MaxEntIRL(horizon=HORIZON, gamma=1.0, gap_tolerance=0.0)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        logger=False,
        callbacks=[clock],
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(model, data)
    return list(np.diff(clock.ended)[2:])


def theirs(mdp: TabularMDP, demonstrated: Any, dtype: str) -> Worker:
    """A worker of the library with this world."""
    dense = np.zeros((ACTIONS * mdp.num_states, mdp.num_states))
    dense[mdp.row.numpy(), mdp.successor.numpy()] = mdp.probability.numpy()
    transitions = dense.reshape(ACTIONS, mdp.num_states, mdp.num_states).swapaxes(0, 1)
    visited = np.concatenate([states for states, _ in demonstrated])
    visits = np.bincount(visited, minlength=mdp.num_states) / len(demonstrated)
    with tempfile.NamedTemporaryFile(suffix=".npz") as file:
        np.savez(file, transitions=transitions, start=mdp.start, features=mdp.features, visits=visits)
        file.flush()
        request = {"world": file.name, "horizon": HORIZON, "hidden_sizes": [], "dtype": dtype}
        return Worker("imitation_maxent_irl.py", request)


def together(states: int, iterations: int, repeats: int) -> dict[str, Any]:
    mdp = random_world(states)
    demonstrated = demonstrations(mdp)
    workers = {dtype: theirs(mdp, demonstrated, dtype) for dtype in ("float32", "float64")}
    contenders: dict[str, Callable[[], list[float]]] = {
        "ours": lambda: ours(mdp, demonstrated, max(iterations, 30)),
        **{
            f"imitation, {dtype}": lambda worker=worker: worker.ask({"iterations": iterations})["seconds"]
            for dtype, worker in workers.items()
        },
    }
    runs: dict[str, list[float]] = {name: [] for name in contenders}
    for name, contender in turns(contenders, repeats):
        runs[name].append(median(contender()))
        print(f"{states} states, {name}: {1e3 * runs[name][-1]:.2f} ms", flush=True)
    for worker in workers.values():
        worker.close()
    over = {name: ratios(seconds, runs["ours"]) for name, seconds in runs.items() if name != "ours"}
    versions = next(iter(workers.values())).versions
    return {"states": states, "seconds": runs, "imitation_over_ours": over, "imitation_versions": versions}


def alone(states: int, kind: str) -> dict[str, Any]:
    """Time and peak memory of the calling process."""
    mdp, iterations = random_world(states, kind), ALONE[states]
    seconds = ours(mdp, demonstrations(mdp), iterations)
    # Not `ru_maxrss`, which a process inherits from the one that started it. In kilobytes.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peak = int(status["VmHWM"].split()[0]) * 1024
    return {"states": states, "kind": kind, "seconds": seconds, "peak_bytes": peak}


def exponent(rows: list[dict[str, Any]]) -> float:
    """The slope of log time in log states."""
    seconds = [median(row["seconds"]) for row in rows]
    return float(np.polyfit(np.log([row["states"] for row in rows]), np.log(seconds), 1)[0])


def figure(result: dict[str, Any]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(figsize=(6, 3.8), layout="constrained")
    small = result["together"]
    states = [row["states"] for row in small]
    for name, mark in (("ours", "o-"), ("imitation, float32", "s--"), ("imitation, float64", "^--")):
        label = "lit_imitation" if name == "ours" else name
        axes.loglog(states, [median(row["seconds"][name]) for row in small], mark, label=label)
    for kind in KINDS:
        rows = [row for row in result["alone"] if row["kind"] == kind]
        label = f"lit_imitation, {kind}: exponent {result['exponent'][kind]:.2f}"
        axes.loglog([row["states"] for row in rows], [median(row["seconds"]) for row in rows], "o-", label=label)
    axes.set(xlabel="states (5 actions, 4 successors, horizon 50)", ylabel="seconds an iteration")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    for suffix in ("png", "svg"):
        fig.savefig(ROOT / "docs" / "images" / f"maxent_irl_speed.{suffix}", dpi=160)
    plt.close(fig)


def main() -> None:
    """Measure, print tables, draw, write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--alone", type=int, help="number of states: measure ours alone, and print JSON")
    parser.add_argument("--kind", choices=KINDS, default="local")
    parser.add_argument("--fixture", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    if options.fixture:
        file = ROOT / "tests" / "tabular" / "imitation_mce_irl.npz"
        subprocess.run(command("imitation_maxent_irl.py", "fixture", str(file)), check=True, env=environment())
        return
    if options.alone:
        print(json.dumps(alone(options.alone, options.kind)))
        return
    result: dict[str, Any] = machine()
    result["together"] = [together(states, count, options.repeats) for states, count in TOGETHER.items()]
    result["alone"] = []
    for states, kind in itertools.product(ALONE, KINDS):
        line = [sys.executable, "-W", "ignore", "-m", "experiments", "speed", "maxent_irl"]
        line += ["--alone", str(states), "--kind", kind]
        done = subprocess.run(line, cwd=ROOT, check=True, capture_output=True, text=True)
        result["alone"].append(json.loads(done.stdout.splitlines()[-1]))
        print(result["alone"][-1], flush=True)
    large = result["alone"]
    result["exponent"] = {kind: exponent([row for row in large if row["kind"] == kind]) for kind in KINDS}
    print(maxent_irl_speed(result))
    print(f"exponents from 10⁴ states on: {result['exponent']}")
    print(save("maxent_irl", result))
    figure(result)
