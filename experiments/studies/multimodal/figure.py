"""The study's figure: trajectories of demonstrations and clones, and how often and by which gates they succeed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from experiments.studies.common import PAGE, Result, new_figure, save_figure
from lit_imitation.envs.fork import AHEAD, HALF_WIDTH

LABELS = {
    "mse": "MSE", "gaussian": "Gaussian", "mixture": "mixture", "quantized": "quantized", "cvae": "CVAE",
    "diffusion": "diffusion", "flow": "flow",
}  # fmt: skip
WAY, MISS, WALL = "#0072B2", "#D55E00", "#444444"
MARKERS = {0: ("o", "#0072B2"), 1: ("^", "#E69F00"), 2: ("s", "#009E73")}
"""Marker and color of each number of gates."""


def forks(summary: Mapping[str, Any], found: Mapping[tuple[int, str], list[Result]], path: Path) -> None:
    """Draw the first seed's trajectories, and success and total variation over seeds with intervals.

    Args:
        summary: The study's JSON.
        found: Results of every seed, by number of gates and policy.
        path: File to write, without suffix.
    """
    all_modes = [int(modes) for modes in summary["modes"]]
    heads = list(summary["settings"]["policies"])
    figure, _ = new_figure(PAGE, 1.0 * len(all_modes) + 2.4)
    figure.clear()
    above, below = figure.subfigures(2, 1, height_ratios=[1.0 * len(all_modes), 2.2])
    panels = above.subplots(len(all_modes), 1 + len(heads), squeeze=False)
    for row, modes in zip(panels, all_modes, strict=True):
        first = found[modes, heads[0]][0]
        _ring(row[0], modes, first["expert_path"], first["expert_mode"])
        for axes, head in zip(row[1:], heads, strict=True):
            result = found[modes, head][0]
            _ring(axes, modes, result["sampled_path"], result["sampled_mode"])
        row[0].set_ylabel(f"{modes} gates")
    for axes, title in zip(panels[0], ("shown", *(LABELS[head] for head in heads)), strict=True):
        axes.set_title(title)
    rows = _numbers(below.subplots(1, 2), summary, heads)
    save_figure(figure, path, ("gates", "policy", "way", "seed", "success", "total_variation", "milliseconds"), rows)


def _ring(axes: Axes, modes: int, path: NDArray[Any], mode: NDArray[Any]) -> None:
    """Wall and trajectories `[N, T + 1, 2]`, those of failures in another color."""
    for k in range(modes):
        angle = 2 * np.pi / modes * k + np.linspace(HALF_WIDTH, 2 * np.pi / modes - HALF_WIDTH, 60)
        axes.plot(np.cos(angle), np.sin(angle), color=WALL, linewidth=1.6, solid_capstyle="butt", zorder=3)
    for points, gate in zip(path, mode, strict=False):
        axes.plot(*points.T, color=MISS if gate == AHEAD else WAY, linewidth=0.5, alpha=0.5)
        if gate == AHEAD:
            axes.plot(*points[-1], ".", color=MISS, markersize=2.5, zorder=4)
    axes.set(xlim=(-1.3, 1.3), ylim=(-1.3, 1.3), aspect="equal", xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _numbers(panels: Any, summary: Mapping[str, Any], heads: list[str]) -> list[tuple[Any, ...]]:
    """Success and total variation of each policy: filled by samples, hollow deterministic; returns the CSV's rows."""
    rows: list[tuple[Any, ...]] = []
    count = len(summary["modes"])
    for index, (modes, entries) in enumerate(summary["modes"].items()):
        marker, color = MARKERS[index]
        for place, head in enumerate(heads):
            entry = entries[head]
            for way, fill in (("sampled", color), ("deterministic", "white")):
                x = place + 0.22 * (index - (count - 1) / 2) + (0.07 if way == "deterministic" else 0.0)
                for axes, name in zip(panels, ("success", "total_variation"), strict=True):
                    value, (low, high) = entry[way][name]["mean"], entry[way][name]["ci95"]
                    axes.errorbar(
                        x, value, [[value - low], [high - value]], fmt=marker, color=color, markerfacecolor=fill,
                        markersize=4, linewidth=0.9, label=f"{modes} gates, {way}" if not place else None,
                    )  # fmt: skip
                scores = (entry[way][name]["seeds"] for name in ("success", "total_variation"))
                rows += [
                    (int(modes), LABELS[head], way, seed, success, distance, entry["milliseconds"])
                    for seed, (success, distance) in enumerate(zip(*scores, strict=True))
                ]
    for axes, title, aim in zip(panels, ("success", "total variation to the shown shares"), (0.95, 0.1), strict=True):
        axes.axhline(aim, color="#666666", linewidth=0.8, linestyle=(0, (4, 2)), zorder=0)
        axes.set(title=title, ylim=(-0.04, 1.04), xticks=range(len(heads)))
        axes.set_xticklabels([LABELS[head] for head in heads], rotation=30, ha="right")
    panels[0].figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=count)
    return rows
