"""Weak scaling of PPO: one process with 32 Hoppers, and two under `configs/trainer/ddp.yaml` with 32 each.

Perfect scaling makes twice the environment steps in the same time. Each rate is the difference between a short and a
long run, so that startup and compilation do not count; the two take turns. It needs two idle cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from experiments.speed.common import ROOT, machine, measured, ratios, save

ENVS, STEPS, SHORT, LONG = 32, 64, 20, 120


def seconds(processes: int, rounds: int) -> float:
    """Wall-clock seconds of `fit` over that many rounds."""
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "lit_imitation", "fit", "--config=configs/ppo/hopper.yaml"]
        if processes > 1:
            command += ["--config=configs/trainer/ddp.yaml", f"--trainer.devices={processes}"]
        command += [
            "--trainer.accelerator=cpu",
            "--trainer.enable_progress_bar=false",
            "--trainer.max_epochs=1",
            "--trainer.callbacks=null",
            f"--trainer.default_root_dir={directory}",
            "--data.env_steps=null",
            f"--data.num_envs={ENVS * processes}",
            f"--data.steps_per_round={STEPS}",
            f"--data.rounds_per_epoch={rounds}",
            "--data.eval_episodes=0",
            f"--data.test_episodes={processes}",
        ]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
        return float(json.loads((Path(directory) / "summary.json").read_text())["wall_seconds"])


def rate(processes: int) -> float:
    """Environment steps per second of all processes together."""
    steps = (LONG - SHORT) * ENVS * STEPS * processes
    return steps / (seconds(processes, LONG) - seconds(processes, SHORT))


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    rates = measured({"1": lambda: rate(1), "2": lambda: rate(2)}, options.repeats, "environment steps/s, processes:")
    result = machine() | {"env_steps_per_second": rates, "two_over_one": ratios(rates["2"], rates["1"])}
    print(f"two processes over one: {result['two_over_one']['median']:.2f} (2 would be perfect)")
    print(f"medians: {[f'{median(values):,.0f}' for values in rates.values()]}; written: {save('rl_scaling', result)}")
