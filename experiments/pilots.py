"""The README's picture: learning curves of cloned LunarLander pilots, and one of their landings.

The table `bc_recipes` draws it from its runs of `bc/lunar_lander`. It writes `docs/images/lunar_lander.png` and `.svg`,
and the plotted numbers to `experiments/results/lunar_lander_curves.csv`.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lit_imitation import load_policy
from lit_imitation.envs import make_single

ROOT = Path(__file__).parents[1]
BLUE, GREY, ORANGE = "#0072B2", "#555555", "#D55E00"  # Okabe & Ito: safe for the color-blind, and in gray


def curves(runs: Sequence[Path]) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """Gradient steps `[K]`, mean returns `[seeds, K]` of each validation, and the reference returns.

    A run that stopped early keeps its last value, so every mean is over all runs.
    """
    series = []
    for run in runs:
        with (run / "metrics.csv").open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row.get("val/return_mean")]
        series.append([(int(row["step"]) + 1, float(row["val/return_mean"])) for row in rows])
    longest = max(series, key=len)
    steps = np.array([step for step, _ in longest])
    returns = np.array([[value for _, value in c] + [c[-1][1]] * (len(longest) - len(c)) for c in series])
    summaries = [json.loads((run / "summary.json").read_text(encoding="utf-8")) for run in runs]
    return steps, returns, {n: float(np.mean([s[n] for s in summaries])) for n in ("expert_return", "random_return")}


def landing(run: Path, seed: int = 12, every: int = 24) -> np.ndarray:
    """One flight as a picture: frames at equal distances, overlaid."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    policy = load_policy(run)
    env = make_single("LunarLander-v3", render_mode="rgb_array")
    observation, _ = env.reset(seed=seed)
    frames, done = [np.asarray(env.render())], False
    while not done:
        observation, _, terminated, truncated, _ = env.step(policy(observation))
        frames.append(np.asarray(env.render()))
        done = terminated or truncated
    env.close()
    # Everything that moves is brighter than the black sky behind it, so the maximum keeps sky and ground.
    return np.max(np.stack([*frames[::every], frames[-1]]), axis=0)[:340]


def draw(runs: Sequence[Path]) -> None:
    """Draw the picture, and write its numbers."""
    from experiments.studies.common import new_figure

    steps, returns, reference = curves(runs)
    with (ROOT / "experiments" / "results" / "lunar_lander_curves.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["gradient_steps", *(f"return_seed_{i}" for i in range(len(returns)))])
        writer.writerows([int(step), *row.round(3)] for step, row in zip(steps, returns.T, strict=True))
    figure, (left, right) = new_figure(8, 3, 1, 2, width_ratios=(1.25, 1))
    left.plot(steps, returns.T, color=BLUE, alpha=0.35, linewidth=0.8)
    left.plot(steps, returns.mean(0), color=BLUE, linewidth=2)
    left.annotate(f"mean of {len(returns)} clones", (steps[-1], 185), color=BLUE, ha="right")
    for name, style, color, text in (
        ("expert_return", "--", ORANGE, "expert"),
        ("random_return", ":", GREY, "random"),
    ):
        left.axhline(reference[name], linestyle=style, color=color, linewidth=1.2)
        left.annotate(text, (steps[-1], reference[name]), (0, 3), textcoords="offset points", color=color, ha="right")
    left.set(xlabel="gradient steps", ylabel="return over 10 episodes", xlim=(0, steps[-1]), ylim=(-240, 330))
    right.imshow(landing(runs[0]))
    right.set_axis_off()
    for suffix in ("png", "svg"):
        figure.savefig(ROOT / "docs" / "images" / f"lunar_lander.{suffix}", dpi=160)
