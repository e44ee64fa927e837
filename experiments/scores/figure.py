"""The README's picture: learning curves of five cloned LunarLander pilots, and one of their landings.

`python -m experiments.scores.figure [--runs DIR]`, after `python -m experiments.scores.recipes lunar_lander`,
writes `docs/images/lunar_lander.png` and `.svg`, and the plotted numbers to
`experiments/results/lunar_lander_curves.csv`.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from pathlib import Path

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")

import matplotlib as mpl
import numpy as np

from lit_imitation import load_policy
from lit_imitation.envs import make_single

ROOT = Path(__file__).parents[2]
BLUE, GREY, ORANGE = "#0072B2", "#555555", "#D55E00"  # Okabe & Ito: told apart by the color-blind, and in gray


def curves(runs: Path) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """Gradient steps `[K]`, mean returns `[seeds, K]` of each validation, and the reference returns.

    Runs that stopped early keep their last value, so that every mean is over all of them.
    """
    columns = []
    for file in sorted(runs.glob("seed_*/metrics.csv")):
        with file.open(newline="") as open_file:
            rows = [row for row in csv.DictReader(open_file) if row.get("val/return_mean")]
        columns.append([(int(row["step"]) + 1, float(row["val/return_mean"])) for row in rows])
    longest = max(columns, key=len)
    steps = np.array([step for step, _ in longest])
    returns = np.array([[value for _, value in c] + [c[-1][1]] * (len(longest) - len(c)) for c in columns])
    summaries = [json.loads(file.read_text()) for file in runs.glob("seed_*/summary.json")]
    names = ("expert_return", "random_return")
    return steps, returns, {name: float(np.mean([s[name] for s in summaries])) for name in names}


def landing(run: Path, seed: int = 12, every: int = 24) -> np.ndarray:
    """One flight as a picture: the lander of every so many frames, laid over each other."""
    policy = load_policy(run)
    env = make_single("LunarLander-v3", render_mode="rgb_array")
    observation, _ = env.reset(seed=seed)
    frames, done = [np.asarray(env.render())], False
    while not done:
        observation, _, terminated, truncated, _ = env.step(policy(observation))
        frames.append(np.asarray(env.render()))
        done = terminated or truncated
    env.close()
    # Sky and ground stay as they are; what moves is brighter than the black sky behind it.
    return np.max(np.stack([*frames[::every], frames[-1]]), axis=0)[:340]


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "recipes" / "lunar_lander")
    options = parser.parse_args()
    steps, returns, reference = curves(options.runs)
    with (ROOT / "experiments" / "results" / "lunar_lander_curves.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["gradient_steps", *(f"return_seed_{i}" for i in range(len(returns)))])
        writer.writerows([int(step), *row.round(3)] for step, row in zip(steps, returns.T, strict=True))

    mpl.use("agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "0"})
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), width_ratios=(1.25, 1), layout="constrained")
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
    right.imshow(landing(options.runs / "seed_0"))
    right.set_axis_off()
    for suffix in ("png", "svg"):
        figure.savefig(ROOT / "docs" / "images" / f"lunar_lander.{suffix}", dpi=160)


if __name__ == "__main__":
    main()
