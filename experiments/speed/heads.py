"""Policies that plan ahead: a training step of each head over a bare torch loop, and the time of a decision.

The network and data have the size of Push-T: windows of 2 observations of 20 numbers, chunks of 16 actions of 2
numbers, minibatches of 256. Ours is the command `fit` on a file as a user runs it, with held-out loss, checkpoints,
logging and progress. The bare loop takes the same policy's loss on windows that lie ready in memory, with fused Adam. A
step is the time of the epochs after the first ones, in which steps are not traced yet. A decision is one chunk, by 8
steps of DDIM or Euler, at batch size 1. Contenders take turns, and a ratio is taken within each turn.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box
from lightning import LightningModule, Trainer
from torch import Tensor

import lit_imitation
from experiments.markdown import table
from experiments.speed.bc import Stopwatch, TimedFit
from experiments.speed.common import machine, measured, ratios, run_fit, save
from lit_imitation.data.demonstrations import Demonstrations, write_demonstrations
from lit_imitation.policies import SequencePolicy
from lit_imitation.transitions import Transitions
from lit_imitation.windows import WindowedTransitions

OBSERVATION, ACTION = Box(-np.inf, np.inf, (20,), np.float32), Box(-1, 1, (2,), np.float32)
WINDOW = {"n_obs_steps": 2, "horizon": 16, "n_action_steps": 8}
EPISODES, STEPS, BATCH, LEARNING_RATE = 100, 128, 256, 1e-3
MLP, FILM, UNET, TRANSFORMER = [256, 256], [256] * 4, [64, 128], [128] * 4
HEADS: dict[str, tuple[str, dict[str, Any]]] = {
    "mixture": ("MixturePolicy", {"hidden_sizes": MLP}),
    "quantized": ("QuantizedPolicy", {"hidden_sizes": MLP}),
    "vq-bet": ("VQBeTPolicy", {"hidden_sizes": MLP}),
    "cvae": ("CVAEPolicy", {"hidden_sizes": MLP}),
    "diffusion, mlp": ("DiffusionPolicy", {"hidden_sizes": FILM, "steps": 8}),
    "diffusion, unet": ("DiffusionPolicy", {"hidden_sizes": UNET, "steps": 8, "backbone": "unet"}),
    "diffusion, transformer": ("DiffusionPolicy", {"hidden_sizes": TRANSFORMER, "steps": 8, "backbone": "transformer"}),
    "flow, mlp": ("FlowPolicy", {"hidden_sizes": FILM, "steps": 8}),
    "flow, unet": ("FlowPolicy", {"hidden_sizes": UNET, "steps": 8, "backbone": "unet"}),
    "flow, transformer": ("FlowPolicy", {"hidden_sizes": TRANSFORMER, "steps": 8, "backbone": "transformer"}),
}
FIRST_STEP, LAST_STEP = 600, 1200
"""First step that counts, after the first traced ones, and number of steps; both rounded up to epochs."""
DECISIONS, WARM_UP = 300, 30
"""Calls whose median is the time of a decision, and calls before them."""
STEP_LIMIT, DECISION_LIMIT_MS = 1.1, 4.0


def make_demonstrations() -> Transitions:
    """Random walks as observations, and smooth actions with two modes."""
    generator = torch.Generator().manual_seed(0)
    walk = torch.randn(EPISODES, STEPS, 20, generator=generator).cumsum(1) / 10
    side = torch.randint(0, 2, (EPISODES, 1, 1), generator=generator) * 2.0 - 1.0
    action = (side * walk[..., :2].sin()).clamp(-1, 1)
    ends = torch.zeros(EPISODES, STEPS, dtype=torch.bool)
    ends[:, -1] = True
    count = EPISODES * STEPS
    return Transitions(
        observation=walk.flatten(0, 1),
        action=action.flatten(0, 1),
        reward=torch.zeros(count),
        terminated=torch.zeros(count, dtype=torch.bool),
        truncated=ends.flatten(),
        batch_size=[count],
    )


def make_policy(name: str) -> SequencePolicy:
    """The policy of a head."""
    cls, arguments = HEADS[name]
    policy: SequencePolicy = getattr(lit_imitation, cls)(OBSERVATION, ACTION, **WINDOW, **arguments)
    return policy


def epochs(windows: int) -> tuple[int, int]:
    """First epoch that counts, and number of epochs."""
    per_epoch = windows // BATCH
    return -(-FIRST_STEP // per_epoch), -(-LAST_STEP // per_epoch)


def bare(name: str, data: Transitions) -> float:
    """Seconds per step of a hand-written loop over windows that lie ready: indexing, loss, fused Adam."""
    torch.manual_seed(0)
    policy = make_policy(name)
    windows = WindowedTransitions(data, policy.window)
    policy.fit_normalizer(data.observation, windows.chunks())
    whole = windows[torch.arange(len(windows))]
    columns: list[Tensor] = [whole.observation, whole.action, whole.mask]
    optimizer = torch.optim.Adam(policy.parameters(), LEARNING_RATE, fused=True)
    first, last = epochs(len(windows))
    steps = len(windows) // BATCH
    for epoch in range(last):
        if epoch == first:
            start = time.perf_counter()
        order = torch.randperm(len(windows))
        for i in range(0, steps * BATCH, BATCH):
            index = order[i : i + BATCH]
            loss = policy.mean_loss(*(column[index] for column in columns))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return (time.perf_counter() - start) / ((last - first) * steps)


class LateStopwatch(Stopwatch):
    """Takes the time from the epoch of step `FIRST_STEP` to the end of training."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, once."""
        if trainer.global_step >= FIRST_STEP and not Stopwatch.steps:
            Stopwatch.seconds, Stopwatch.steps = time.perf_counter(), trainer.global_step


class TimedHeadFit(TimedFit):
    """The command `fit` without the test at its end, with a `LateStopwatch`."""

    def before_fit(self) -> None:
        """Add the clock."""
        Stopwatch.steps = 0
        self.trainer.callbacks.insert(0, LateStopwatch())  # type: ignore[attr-defined]


def ours(name: str, file: Path, windows: int) -> float:
    """Seconds per step of `fit`."""
    cls, arguments = HEADS[name]
    policy = {"class_path": f"lit_imitation.{cls}", "init_args": WINDOW | arguments}
    data = {
        "demonstrations": str(file),
        "batch_size": BATCH,
        "action_space": {"type": "Box", "low": [-1.0, -1.0], "high": [1.0, 1.0]},
    }
    config = {
        "model": {"class_path": "lit_imitation.BC", "init_args": {"policy": policy, "learning_rate": LEARNING_RATE}},
        "data": {"class_path": "lit_imitation.DemonstrationDataModule", "init_args": data},
        "trainer": {"accelerator": "cpu", "max_epochs": epochs(windows)[1]},
    }
    run_fit(config, TimedHeadFit)
    return Stopwatch.seconds / Stopwatch.steps


def decision_ms(name: str, data: Transitions) -> float:
    """Median milliseconds of one chunk."""
    policy = make_policy(name)
    policy.fit_normalizer(data.observation)
    policy.eval()
    window, times = data.observation[None, :2], []
    for _ in range(WARM_UP + DECISIONS):
        start = time.perf_counter()
        policy.plan(window, deterministic=False)
        times.append(time.perf_counter() - start)
    return 1e3 * median(times[WARM_UP:])


def main() -> None:
    """Measure, print a table, write `results/heads.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--heads", nargs="+", default=list(HEADS), choices=list(HEADS), metavar="HEAD")
    parser.add_argument("--quick", action="store_true", help="only the decisions, and write nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data, rows = make_demonstrations(), []
    result: dict[str, Any] = machine() | {"heads": {}}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "demonstrations.npz"
        write_demonstrations(file, Demonstrations(data, data.episode_returns(), {}))
        for name in options.heads:
            found: dict[str, Any] = {"decision_ms": decision_ms(name, data)}
            limit = f"≤ {DECISION_LIMIT_MS} ms" if name.endswith(", mlp") else ""
            rows.append([f"{name}, a decision", f"{found['decision_ms']:.2f}", limit])
            if not options.quick:
                windows = len(WindowedTransitions(data, make_policy(name).window))
                contenders = {
                    "bare torch": lambda name=name: bare(name, data),
                    "ours": lambda name=name, windows=windows: ours(name, file, windows),
                }
                seconds = measured(contenders, options.repeats, f"{name}, seconds a step:")
                found["seconds_per_step"] = seconds
                found["ours_over_bare"] = ratios(seconds["ours"], seconds["bare torch"])
                ratio = found["ours_over_bare"]["median"]
                step = f"{1e3 * median(seconds['ours']):.3f}"
                rows.append([f"{name}, a step", step, f"≤ {STEP_LIMIT} × bare: {ratio:.2f}"])
            result["heads"][name] = found
    print(f"\n{table(['work', 'ms', 'target: reached'], rows)}\n")
    if not options.quick:
        print(f"written: {save('heads', result)}")
