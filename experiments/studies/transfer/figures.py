"""The study's figures: returns and the quality of rewards; and the maze's rewards, as maps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from experiments.studies.common import PAGE, REFERENCE, Result, letter, new_figure, save_figure
from experiments.studies.transfer.worlds import GRID, maze_grid
from lit_imitation.envs import point_mass_maze as maze

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMES = {
    "true": "RL, true reward",
    "airl_state": "AIRL, r(s)",
    "airl_state_action": "AIRL, r(s, a)",
    "gail": "GAIL, policy as it is",
    "random": "random policy",
}
COLOURS = {
    "true": "#000000",
    "airl_state": "#0072B2",
    "airl_state_action": "#E69F00",
    "gail": "#D55E00",
    "random": REFERENCE,
}
TITLES = {"maze": "point-mass maze, barrier moved", "ant": "ant, two legs crippled"}


def returns_and_quality(tasks: Mapping[str, Any], path: Path) -> None:
    """A row for each pair of environments: returns in the second, correlation and EPIC distance of the rewards.

    Args:
        tasks: The tasks of the study's JSON, by world.
        path: File to write, without suffix.
    """
    figure, panels = new_figure(
        PAGE, 0.5 + 1.75 * len(tasks), len(tasks), 3, squeeze=False, gridspec_kw={"width_ratios": [1.7, 1, 1]}
    )
    rows: list[tuple[Any, ...]] = []
    for (world, task), axes in zip(tasks.items(), panels, strict=True):
        entries = task["rows"] | {"random": {"mean": task["random_return"], "ci95": [None, None], "seeds": []}}
        for place, row in enumerate(NAMES):
            entry = entries[row]
            rows += _row(axes[0], world, "return", row, place, entry)
            if "paper" in entry:
                label = "the paper's mean" if place == 0 else None
                axes[0].plot(
                    entry["paper"], place + 0.27, marker="v", color="white", markeredgecolor="black", markersize=5,
                    linestyle="none", label=label, zorder=4,
                )  # fmt: skip
                rows.append((world, "return in the paper", row, "mean", entry["paper"], "", ""))
            for panel, name in zip(axes[1:], ("correlation", "epic"), strict=True):
                if row in task["quality"]:
                    rows += _row(panel, world, name, row, place, task["quality"][row][name])
        axes[0].set(title=TITLES[world], xlabel="return in the second environment")
        axes[1].set(title="correlation", xlabel="over states", xlim=(-1.05, 1.05))
        axes[2].set(title="EPIC distance", xlabel="over transitions", xlim=(-0.02, 1.02))
        axes[1].axvline(0.0, color=REFERENCE, linewidth=0.6)
        axes[2].axvline(np.sqrt(0.5), color=REFERENCE, linewidth=0.6)
        for panel in axes:
            panel.set(ylim=(len(NAMES) - 0.4, -0.6), yticks=range(len(NAMES)))
            panel.set_yticklabels(NAMES.values() if panel is axes[0] else [])
    letter(list(panels.flat))
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    save_figure(figure, path, ("world", "panel", "row", "seed", "value", "low", "high"), rows)


def _row(axes: Axes, world: str, panel: str, row: str, place: int, entry: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """The seeds as points, their mean as a bar with its interval."""
    low, high = entry["ci95"]
    first = place == 0 and panel == "return"
    seeds = entry["seeds"]
    axes.plot(
        seeds, [place] * len(seeds), linestyle="none", marker="o", markersize=3.5, alpha=0.6, color=COLOURS[row],
        markeredgewidth=0, label="a seed" if first else None,
    )  # fmt: skip
    if low is not None:
        axes.plot([low, high], [place, place], color=COLOURS[row], linewidth=1.0)
    axes.plot(
        entry["mean"], place, linestyle="none", marker="|", markersize=12, markeredgewidth=2, color=COLOURS[row],
        label="mean, 95 % interval" if first else None,
    )  # fmt: skip
    ends = ("", "") if low is None else (low, high)
    return [
        *((world, panel, row, seed, value, "", "") for seed, value in enumerate(seeds)),
        (world, panel, row, "mean", entry["mean"], *ends),
    ]


def maze_rewards(runs: Mapping[str, tuple[Result, Result]], path: Path) -> None:
    """Draw the maze's true reward, the rewards learned with seed 0, and the paths of their policies.

    Args:
        runs: For each row, the result in the source and the result in the target.
        path: File to write, without suffix.
    """
    figure, panels = new_figure(PAGE, 2.35, 1, 1 + len(runs), sharey=True)
    places = maze_grid()
    true = -np.linalg.norm(places - np.asarray(maze.GOAL), axis=-1)
    rows: list[tuple[Any, ...]] = []
    maps = {"true": (true, None)} | {row: (one["state_reward"], two["path"]) for row, (one, two) in runs.items()}
    titles = {"true": "true reward", "airl_state": "AIRL, r(s)", "airl_state_action": "AIRL, r(s, a)", "gail": "GAIL"}
    for axes, (row, (values, line)) in zip(panels, maps.items(), strict=True):
        standard = (values - values.mean()) / max(float(values.std()), 1e-12)
        image = _map(axes, standard)
        rows += [(row, "reward", float(x), float(y), float(v)) for (x, y), v in zip(places, standard, strict=True)]
        for name, dashes in (("right", (0, (1.2, 1.0))), ("left", (0, ()))):
            axes.plot(maze.BARRIERS[name], [maze.BARRIER_HEIGHT] * 2, color="black", linewidth=2.2, linestyle=dashes)
        if line is not None:
            axes.plot(*line.T, color="white", linewidth=2.2)
            axes.plot(*line.T, color="#D55E00", linewidth=1.2)
            rows += [(row, "path", float(x), float(y), t) for t, (x, y) in enumerate(line)]
        axes.plot(*maze.START, marker="o", color="white", markeredgecolor="black", markersize=4.5)
        axes.plot(*maze.GOAL, marker="*", color="white", markeredgecolor="black", markersize=9)
        axes.set(title=titles[row], xlabel="x", xticks=(0, 0.3, 0.6))
    panels[0].set(ylabel="y", yticks=(0, 0.3, 0.6))
    letter(list(panels))
    figure.colorbar(image, ax=list(panels), shrink=0.75, label="reward, standardized")
    save_figure(figure, path, ("row", "series", "x", "y", "value"), rows)


def _map(axes: Axes, values: NDArray[Any]) -> Any:
    half = (maze.HIGH - maze.LOW) / (GRID - 1) / 2
    extent = (maze.LOW - half, maze.HIGH + half, maze.LOW - half, maze.HIGH + half)
    return axes.imshow(values.reshape(GRID, GRID), origin="lower", extent=extent, cmap="viridis", vmin=-2.5, vmax=2.5)
