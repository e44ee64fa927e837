"""One gradient step of behavioral cloning: bare torch, our `fit`, and the `imitation` library's BC, on one thread.

All have the same 20,000 random transitions (8 numbers, 4 actions) and the same MLP at the same batch size. They take
turns and a ratio is taken within each turn, so that a machine that slows down for a while slows all of them.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import tempfile
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.markdown import table
from experiments.speed.common import machine, measured, ratios, run_fit, save
from experiments.speed.peer import start_or_skip
from lit_imitation.data.demonstrations import Demonstrations, write_demonstrations
from lit_imitation.training.lightning_cli import CLI
from lit_imitation.transitions import Transitions

TRANSITIONS, OBSERVATION, ACTIONS, EPISODE = 20_000, 8, 4, 200
HIDDEN, BATCH, LEARNING_RATE = [256, 256], 64, 1e-3
STEPS_PER_EPOCH = TRANSITIONS // BATCH
BARE_LIMIT, IMITATION_LIMIT = 1.35, 4.0


def make_data() -> Transitions:
    """`[20000]` in episodes of 200."""
    generator = np.random.default_rng(0)
    truncated = np.arange(1, TRANSITIONS + 1) % EPISODE == 0
    return Transitions.from_numpy(
        {
            "observation": generator.standard_normal((TRANSITIONS, OBSERVATION)),
            "action": generator.integers(ACTIONS, size=TRANSITIONS),
            "reward": np.zeros(TRANSITIONS),
            "terminated": np.zeros_like(truncated),
            "truncated": truncated,
        }
    )


def bare(observation: Tensor, action: Tensor, epochs: int) -> float:
    """Seconds per gradient step of a hand-written loop: indexing, cross-entropy, fused Adam."""
    torch.manual_seed(0)
    sizes = [OBSERVATION, *HIDDEN]
    layers = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())]
    network = nn.Sequential(*layers, nn.Linear(sizes[-1], ACTIONS))
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE, fused=True)
    start = time.perf_counter()
    for _ in range(epochs):
        order = torch.randperm(TRANSITIONS)
        for i in range(0, STEPS_PER_EPOCH * BATCH, BATCH):
            index = order[i : i + BATCH]
            loss = F.cross_entropy(network(observation[index]), action[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return (time.perf_counter() - start) / (epochs * STEPS_PER_EPOCH)


class TimedFit(CLI):
    """The command `fit` without the test at its end; `Trainer.fit` from call to return is timed."""

    seconds_per_step = float("nan")

    def before_fit(self) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def after_fit(self) -> None:
        """Stop it."""
        seconds = time.perf_counter() - self._start
        TimedFit.seconds_per_step = seconds / self.trainer.global_step


def ours(demonstrations: Path, epochs: int) -> float:
    """Seconds per gradient step of `fit`, including reading, logging, progress bar and setup."""
    # An ordinary recipe, but without evaluation and checkpoints, which the others lack.
    recipe = {
        "model": {
            "class_path": "lit_imitation.BC",
            "init_args": {
                "policy": {"class_path": "lit_imitation.CategoricalPolicy", "init_args": {"hidden_sizes": HIDDEN}},
                "learning_rate": LEARNING_RATE,
            },
        },
        "data": {
            "class_path": "lit_imitation.DemonstrationDataModule",
            "init_args": {
                "env_id": "LunarLander-v3",
                "demonstrations": str(demonstrations),
                "val_fraction": 0.0,
                "batch_size": BATCH,
                "eval_episodes": 0,
            },
        },
        "trainer": {
            "max_epochs": epochs,
            "accelerator": "cpu",
            "enable_checkpointing": False,
        },
    }
    run_fit(recipe, TimedFit)
    return TimedFit.seconds_per_step


def main() -> None:
    """Measure, print a table, write `results/bc.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--epochs", type=int, default=40, help=f"number of epochs per repeat, {STEPS_PER_EPOCH} gradient steps each"
    )
    parser.add_argument(
        "--profile", action="store_true", help="print where our time goes, even if the target is reached"
    )
    parser.add_argument("--no-imitation", action="store_true", help="omit the imitation library")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = machine() | {"steps_per_repeat": arguments.epochs * STEPS_PER_EPOCH}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data, file = make_data(), folder / "demonstrations.npz"
        write_demonstrations(file, Demonstrations(data, data.episode_returns(), {}))
        contenders: dict[str, Any] = {
            "bare torch": lambda epochs: bare(data.observation, data.action, epochs),
            "ours": lambda epochs: ours(file, epochs),
        }
        request = {"data": str(file), "batch_size": BATCH, "hidden_sizes": HIDDEN}
        imitation = None if arguments.no_imitation else start_or_skip("imitation_bc.py", request)
        if imitation is not None:
            ask = imitation.ask
            contenders["imitation"] = lambda epochs: ask({"steps": epochs * STEPS_PER_EPOCH})["seconds_per_step"]
            result["imitation_versions"] = imitation.versions
        for contender in contenders.values():
            contender(1)  # imports and first allocations
        timed = {name: partial(contender, arguments.epochs) for name, contender in contenders.items()}
        seconds = measured(timed, arguments.repeats, "seconds a step:")
        if imitation is not None:
            imitation.close()
        result["seconds_per_step"] = seconds
        result["median_seconds_per_step"] = {name: median(values) for name, values in seconds.items()}
        result["ours_over_bare"] = ratios(seconds["ours"], seconds["bare torch"])
        verdicts = {"ours": f"≤ {BARE_LIMIT} × bare: {result['ours_over_bare']['median']:.2f}"}
        if imitation is not None:
            result["imitation_over_ours"] = ratios(seconds["imitation"], seconds["ours"])
            verdicts["imitation"] = f"≥ {IMITATION_LIMIT} × ours: {result['imitation_over_ours']['median']:.2f}"
        rows = [["2×256, batch 64", "ms per gradient step", "target: reached"]]
        rows += [[n, f"{1e3 * s:.3f}", verdicts.get(n, "")] for n, s in result["median_seconds_per_step"].items()]
        print(f"\n{table(rows[0], rows[1:])}\n\nwritten: {save('bc', result)}")
        if arguments.profile or result["ours_over_bare"]["median"] > BARE_LIMIT:
            profiler = cProfile.Profile()
            profiler.runcall(contenders["ours"], arguments.epochs)
            pstats.Stats(profiler).sort_stats("tottime").print_stats(30)
