"""One gradient step of behavioral cloning: bare torch, our `fit`, and the `imitation` library's BC, on one thread.

All have the same 25 episodes of LunarLander's scripted pilot, the same MLP, and batches of 64. Ours is the recipe
`configs/bc/lunar_lander.yaml` as a user runs it, with the held-out loss of each epoch, checkpoints, logging and
progress; only its early stopping is put off. A step is the time of epochs 10 to 60, divided by their steps, so that the
start does not count; so for the bare loop. The contenders take turns and a ratio is taken within each turn, so that a
machine that slows down for a while slows all of them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from experiments.markdown import table
from experiments.speed.common import ROOT, machine, measured, ratios, run_fit, save
from experiments.speed.peer import start_or_skip
from lit_imitation.data.demonstrations import Demonstrations, write_demonstrations
from lit_imitation.envs import make
from lit_imitation.experts import load_expert
from lit_imitation.rollout import collect
from lit_imitation.training.lightning_cli import CLI
from lit_imitation.transitions import Transitions

RECIPE = ROOT / "configs" / "bc" / "lunar_lander.yaml"
ENV_ID, EPISODES, BATCH, LEARNING_RATE = "LunarLander-v3", 25, 64, 1e-3
SIZES = {"2×64": [64, 64], "2×256": [256, 256]}
SHORT, LONG = 10, 60
"""First epoch that counts, and number of epochs."""
BARE_LIMITS, IMITATION_LIMIT = {"2×64": 0.5, "2×256": 1.0}, 4.0


def demonstrate() -> Transitions:
    """25 episodes of the scripted pilot."""
    envs = make(ENV_ID, EPISODES, 0)
    expert = load_expert("scripted", ENV_ID, envs.single_observation_space, envs.single_action_space)
    transitions = collect(envs, expert, EPISODES, 0)
    envs.close()
    return transitions


def bare(observation: Tensor, action: Tensor, hidden: list[int]) -> float:
    """Seconds per gradient step of a hand-written loop: indexing, cross-entropy, fused Adam."""
    torch.manual_seed(0)
    sizes = [observation.shape[1], *hidden]
    layers = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())]
    network = nn.Sequential(*layers, nn.Linear(sizes[-1], int(action.max()) + 1))
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE, fused=True)
    steps_per_epoch = len(observation) // BATCH
    for epoch in range(LONG):
        if epoch == SHORT:
            start = time.perf_counter()
        order = torch.randperm(len(observation))
        for i in range(0, steps_per_epoch * BATCH, BATCH):
            index = order[i : i + BATCH]
            loss = F.cross_entropy(network(observation[index]), action[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return (time.perf_counter() - start) / ((LONG - SHORT) * steps_per_epoch)


class Stopwatch(Callback):
    """Takes the time from epoch `SHORT` to the end of training."""

    seconds, steps = float("nan"), 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        if trainer.current_epoch == SHORT:
            Stopwatch.seconds, Stopwatch.steps = time.perf_counter(), trainer.global_step

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop it."""
        Stopwatch.seconds = time.perf_counter() - Stopwatch.seconds
        Stopwatch.steps = trainer.global_step - Stopwatch.steps


class TimedFit(CLI):
    """The command `fit` without the test at its end, with a `Stopwatch`."""

    def before_fit(self) -> None:
        """Add the clock."""
        self.trainer.callbacks.insert(0, Stopwatch())  # type: ignore[attr-defined]

    def after_fit(self) -> None:
        """Leave the test out."""


def ours(demonstrations: Path, hidden: list[int], compiled: bool = False) -> float:
    """Seconds per gradient step of `fit`, with the recipe's eager and traced steps or with compiled ones."""
    recipe = yaml.safe_load(RECIPE.read_text())
    policy = {"class_path": "lit_imitation.CategoricalPolicy", "init_args": {"hidden_sizes": hidden}}
    recipe["model"]["init_args"] = {"policy": policy, "learning_rate": LEARNING_RATE, "compile": compiled}
    recipe["data"]["init_args"] = {
        "env_id": ENV_ID,
        "demonstrations": str(demonstrations),
        "batch_size": BATCH,
        "eval_episodes": 0,  # the recipe watches the held-out loss; the others play no episodes either
    }
    recipe["trainer"] |= {"max_epochs": LONG, "accelerator": "cpu"}
    for callback in recipe["trainer"]["callbacks"]:
        if "patience" in callback["init_args"]:
            callback["init_args"]["patience"] = 10**6
    run_fit(recipe, TimedFit)
    return Stopwatch.seconds / Stopwatch.steps


def compare(size: str, data: Transitions, file: Path, repeats: int, with_imitation: bool) -> dict[str, Any]:
    """Every contender on one size of network."""
    hidden, steps = SIZES[size], (LONG - SHORT) * (len(data) // BATCH)
    contenders: dict[str, Any] = {
        "bare torch": lambda: bare(data.observation, data.action, hidden),
        "ours": lambda: ours(file, hidden),
        "ours, compiled": lambda: ours(file, hidden, compiled=True),
    }
    request = {"data": str(file), "batch_size": BATCH, "hidden_sizes": hidden}
    imitation = start_or_skip("imitation_bc.py", request) if with_imitation else None
    if imitation is not None:
        contenders["imitation"] = lambda: imitation.ask({"steps": steps})["seconds_per_step"]
    for contender in contenders.values():
        contender()  # imports and first allocations
    seconds = measured(contenders, repeats, f"{size}, seconds a step:")
    result: dict[str, Any] = {
        "seconds_per_step": seconds,
        "median_seconds_per_step": {name: median(values) for name, values in seconds.items()},
        "ours_over_bare": ratios(seconds["ours"], seconds["bare torch"]),
        "compiled_over_bare": ratios(seconds["ours, compiled"], seconds["bare torch"]),
    }
    if imitation is not None:
        imitation.close()
        result["imitation_over_ours"] = ratios(seconds["imitation"], seconds["ours"])
        result["imitation_versions"] = imitation.versions
    return result


def main() -> None:
    """Measure, print a table, write `results/bc.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-imitation", action="store_true", help="omit the imitation library")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = machine() | {"sizes": {}}
    with tempfile.TemporaryDirectory() as temporary:
        data, file = demonstrate(), Path(temporary) / "demonstrations.npz"
        write_demonstrations(file, Demonstrations(data, data.episode_returns(), {}))
        result["transitions"] = len(data)
        for size in SIZES:
            result["sizes"][size] = compare(size, data, file, arguments.repeats, not arguments.no_imitation)
    rows = []
    for size, found in result["sizes"].items():
        verdicts = {
            "ours": f"≤ {BARE_LIMITS[size]} × bare: {found['ours_over_bare']['median']:.2f}",
            "ours, compiled": f"the same: {found['compiled_over_bare']['median']:.2f}",
        }
        if "imitation_over_ours" in found:
            verdicts["imitation"] = f"≥ {IMITATION_LIMIT} × ours: {found['imitation_over_ours']['median']:.2f}"
        medians = found["median_seconds_per_step"]
        rows += [[f"{size}, {name}", f"{1e3 * s:.3f}", verdicts.get(name, "")] for name, s in medians.items()]
    print(f"\n{table(['batch 64', 'ms per gradient step', 'target: reached'], rows)}\n\nwritten: {save('bc', result)}")
