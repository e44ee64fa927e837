"""The study's figure: return against environment steps, and steps against labels, one row per environment."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from experiments.studies.common import (
    BC,
    DAGGER,
    EXPERT,
    GAIL,
    PAGE,
    PPO,
    REFERENCE,
    draw,
    letter,
    new_figure,
    save_figure,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLES = {"bc": BC, "dagger": DAGGER, "gail": GAIL, "ppo": PPO}
COLUMNS = (
    "environment", "panel", "method", "trajectories", "subsample", "seed", "labels", "env_steps", "value", "low",
    "high",
)  # fmt: skip


class Lanes(NamedTuple):
    """Places on a logarithmic axis for zero steps and for never, outside the range of step counts."""

    first: float
    """Smallest step count of the curves."""
    budget: float
    """Largest step count of the curves."""

    def below(self, units: float) -> float:
        """A place below the smallest count, in twentieths of the range."""
        return self.first * math.pow(self.first / self.budget, units / 20)

    def above(self, units: float) -> float:
        """A place above the largest count, in twentieths of the range."""
        return self.budget * math.pow(self.budget / self.first, units / 20)

    @property
    def none(self) -> float:
        """The place of zero steps."""
        return self.below(3.5)

    def place(self, steps: float | None, method: str) -> float:
        """The place of a step count, or of None for never."""
        return self.never(method) if steps is None else max(steps, self.none)

    def never(self, method: str) -> float:
        """The places of never: one for BC, with its score, and one for the others."""
        return self.above(5 if method == "bc" else 2)


Row = tuple[Any, ...]


def efficiency(tasks: Mapping[str, Any], aim: float, path: Path) -> None:
    """Interquartile means over seeds with their intervals.

    Args:
        tasks: The tasks of the study's JSON, by environment.
        aim: Normalized score that the methods have to reach.
        path: File to write, without suffix.
    """
    from matplotlib.lines import Line2D

    figure, panels = new_figure(PAGE, 0.7 + 2.45 * len(tasks), len(tasks), 2, squeeze=False)
    rows: list[Row] = []
    for (left, right), (env_id, task) in zip(panels, tasks.items(), strict=True):
        rows += [(env_id, *row) for row in _curves(left, task, aim)]
        rows += [(env_id, *row) for row in _trade(right, task)]
        left.set_title(f"{env_id}, {len(task['curves']['gail']['seeds'])} seeds")
        right.set_title(f"to {aim:g} of the expert: steps against labels")
    for axes in panels[-1]:
        axes.set_xlabel("environment steps" if axes is panels[-1, 0] else "labels of the expert")
    letter(list(panels.flat))
    handles = [
        Line2D([], [], color=s.color, linestyle=s.dashes, marker="" if s in (PPO, EXPERT) else s.marker, label=s.label)
        for s in (*STYLES.values(), EXPERT)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), handlelength=3.2)
    save_figure(figure, path, COLUMNS, rows)


def _curves(axes: Axes, task: Mapping[str, Any], aim: float) -> list[Row]:
    """Return against steps, on a logarithmic axis: DAgger is done where the others have their first validation."""
    rows: list[Row] = []
    budget = max(curve["env_steps"][-1] for curve in task["curves"].values())
    first = min(step for curve in task["curves"].values() for step in curve["env_steps"] if step > 0)
    bounds = np.array([first / 1.3, budget])
    clone = task["returns"]["bc"]
    value, low, high = (np.full(2, end) for end in (clone["iqm"], *clone["ci95"]))
    draw(axes, bounds, (value, low, high), BC)
    rows += [("return", BC.label, "", "", seed, "", "", value, "", "") for seed, value in enumerate(clone["seeds"])]
    rows.append(("return", BC.label, "", "", "IQM", "", "", clone["iqm"], *clone["ci95"]))
    for name, curve in task["curves"].items():
        style = STYLES[name]
        steps = np.asarray(curve["env_steps"])
        drawn = steps > 0
        for seed, line in enumerate(curve["seeds"]):
            axes.plot(
                steps[drawn], np.asarray(line)[drawn],
                color=style.color, linestyle=style.dashes, linewidth=0.5, alpha=0.4,
            )  # fmt: skip
            rows += [
                ("return", style.label, "", "", seed, "", float(x), float(y), "", "")
                for x, y in zip(steps, line, strict=True)
            ]
        band = [np.asarray(curve[key]) for key in ("iqm", "low", "high")]
        value, low, high = (values[drawn] for values in band)
        draw(axes, steps[drawn], (value, low, high), style, marked=name == "dagger")
        rows += [
            ("return", style.label, "", "", "IQM", "", float(x), *(float(v) for v in values))
            for x, *values in zip(steps, *band, strict=True)
        ]
    level, random = task["expert"]["mean"], task["random_return"]
    axes.axhline(level, color=EXPERT.color, linestyle=EXPERT.dashes, linewidth=1.1, zorder=2)
    share = random + aim * (level - random)
    axes.axhline(share, color=REFERENCE, linewidth=0.5, zorder=1)
    axes.annotate(
        f"{aim:g}", (bounds[0], share), (2, -2), textcoords="offset points", va="top", fontsize=6.5,
        color=REFERENCE,
    )  # fmt: skip
    rows += [
        ("return", label, "", "", "mean", "", "", value, "", "")
        for label, value in (("expert", level), ("random", random))
    ]
    axes.set(xscale="log", xlim=tuple(bounds), ylabel="return")
    return rows


def _trade(axes: Axes, task: Mapping[str, Any]) -> list[Row]:
    """Environment steps to the aim against the expert's labels; dashes are GAIL's seeds, open marks never got there."""
    rows: list[Row] = []
    counts = [step for curve in task["curves"].values() for step in curve["env_steps"] if step > 0]
    lanes = Lanes(min(counts), max(counts))
    for low, high in ((lanes.below(5), lanes.below(1.5)), (lanes.above(0.7), lanes.above(6.5))):
        axes.axhspan(low, high, color=REFERENCE, alpha=0.1, linewidth=0)
    line: list[tuple[float, float]] = []
    for entry in task["trade"]:
        method = entry["method"]
        style = STYLES[method]
        about = ("trade", style.label, entry["trajectories"] or "", entry["subsample"] or "")
        if method == "bc":
            _clone(axes, entry, lanes)
            rows.append((*about, "IQM", entry["labels"], "", entry["score"]["iqm"], *entry["score"]["ci95"]))
            continue
        steps, labels = entry["env_steps"], entry["labels"]
        y, low, high = (lanes.place(v, method) for v in (steps["iqm"], *steps["ci95"]))
        # If DAgger never reached the aim: its final number of labels.
        x = task["labels"][method] if labels["mean"] is None else labels["mean"]
        rows += [
            (*about, seed, *("" if v is None else v for v in both), "", "", "")
            for seed, both in enumerate(zip(labels["seeds"], steps["seeds"], strict=True))
        ]
        rows.append((*about, "IQM", x, *("" if v is None else v for v in (steps["iqm"], "", *steps["ci95"]))))
        if method == "ppo":
            axes.axhline(y, color=style.color, linestyle=style.dashes, zorder=2)
            axes.axhspan(low, high, color=style.color, alpha=0.15, linewidth=0)
            continue
        axes.errorbar(
            x, y, yerr=[[y - low], [high - y]], color=style.color, marker=style.marker, markersize=5.5, elinewidth=1.1,
            capsize=2, markerfacecolor="white" if steps["iqm"] is None else style.color, linestyle="", zorder=4,
        )  # fmt: skip
        if method == "gail":
            line.append((x, y))
            seeds = [lanes.place(v, method) for v in steps["seeds"]]
            axes.plot([x] * len(seeds), seeds, "_", color=style.color, markersize=7, markeredgewidth=0.7, alpha=0.7)
    axes.plot(*zip(*sorted(line), strict=True), color=GAIL.color, linewidth=0.8, zorder=3)
    axes.set(xscale="log", yscale="log", ylim=(lanes.below(5), lanes.above(6.5)), ylabel="environment steps")
    axes.margins(x=0.12)
    axes.minorticks_off()
    decades = range(math.ceil(math.log10(lanes.first)), math.floor(math.log10(lanes.budget)) + 1)
    axes.set_yticks(
        [lanes.none, *(10.0**d for d in decades), lanes.above(3.6)], ["0", *(f"$10^{d}$" for d in decades), "never"]
    )
    return rows


def _clone(axes: Axes, entry: Mapping[str, Any], lanes: Lanes) -> None:
    """BC's score where it takes no steps, or where no number of them helps it."""
    there = entry["there"]
    place = entry["labels"], lanes.none if there else lanes.never("bc")
    axes.plot(
        *place, color=BC.color, marker=BC.marker, markersize=5, markerfacecolor=BC.color if there else "white",
        linestyle="", zorder=4,
    )  # fmt: skip
    axes.annotate(
        f"{entry['score']['iqm']:.2f}", place, (0, 3.5 if there else -3.5), textcoords="offset points", ha="center",
        va="bottom" if there else "top", fontsize=6, color=BC.color,
    )  # fmt: skip
