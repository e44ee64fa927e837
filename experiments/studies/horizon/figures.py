"""The horizon study's three figures with their numbers."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from experiments.studies.common import (
    BC,
    DAGGER,
    EXPERT,
    PAGE,
    RECOVERABLE,
    REFERENCE,
    Result,
    Style,
    draw,
    letter,
    mean,
    new_figure,
    save_figure,
)
from experiments.studies.horizon.lane_keeping import OFFSET_EDGES, X_EDGES, Y_EDGES
from experiments.studies.horizon.lunar_lander import ANGLE_EDGES
from lit_imitation.envs.lane_keeping import HALF_WIDTH, center_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLES: Mapping[str, Style] = {"expert": EXPERT, "bc": BC, "dagger": DAGGER, "recoverable": RECOVERABLE}
BOTH = ("bc", "dagger")
ALL = ("expert", "bc", "dagger")


def stacked(results: Sequence[Result], name: str) -> NDArray[Any]:
    """One array of all results, `[seeds, ...]`."""
    return np.stack([result[name] for result in results])


def _rows(panel: str, series: str, x: Iterable[Any], band: tuple[Any, Any, Any]) -> list[tuple[Any, ...]]:
    columns = (np.asarray(x, dtype=np.float64), *(np.asarray(part, dtype=np.float64) for part in band))
    return [(panel, series, *(float(v) for v in row)) for row in zip(*columns, strict=True)]


def _hazard(axes: Axes, left: float, right: float, reach: float) -> None:
    """Shade and hatch both hazards, and draw the lane's center."""
    x = np.linspace(left, right, 400)
    center = center_line(x)
    style: dict[str, Any] = {"facecolor": "#eeeeee", "edgecolor": "#cccccc", "hatch": "////", "linewidth": 0.0}
    axes.fill_between(x, center + HALF_WIDTH, reach, **style, label="hazard")
    axes.fill_between(x, center - HALF_WIDTH, -reach, **style)
    axes.plot(x, center, color=REFERENCE, linewidth=0.6, linestyle=(0, (6, 4)))


def trajectories(results: Sequence[Result], path: Path) -> None:
    """Draw the first drives of every seed on LaneKeeping, with the same starts for expert, BC and DAgger."""
    figure, panels = new_figure(PAGE, 4.7, 3, 1, sharex=True, sharey=True)
    each = max(1, 30 // len(results))
    rows: list[tuple[Any, ...]] = []
    for axes, name in zip(panels, ALL, strict=True):
        style = STYLES[name]
        _hazard(axes, -0.05, 8.6, 1.0)
        for seed, result in enumerate(results):
            for number, line in enumerate(result[f"{name}_paths"][:each, ::2]):
                axes.plot(*line.T, color=style.color, linewidth=0.7, alpha=0.8)
                rows += [(name, seed, number, 2 * t, float(x), float(y)) for t, (x, y) in enumerate(line)]
                outside = np.abs(line[:, 1] - center_line(line[:, 0])) > HALF_WIDTH
                axes.plot(*line[outside].T, color="black", marker=".", markersize=1.6, linestyle="none", zorder=4)
        left, low, high = mean([float(result[f"{name}_left"]) for result in results])
        share = "no car leaves the lane" if high == 0 else f"{left:.1%} [{low:.1%}, {high:.1%}] of cars leave the lane"
        axes.set(ylabel="y", ylim=(-1.0, 1.0), xlim=(-0.05, 8.6), yticks=(-1, 0, 1), title=f"{style.label}: {share}")
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        text = "hazard (dots: a car in it)" if name == "bc" else "hazard"
        axes.text(3.0, 0.62, text, fontsize=7, ha="center", bbox=box)
    panels[-1].set_xlabel("x")
    letter(panels)
    columns = ("driver", "seed", "trajectory", "step", "x", "y")
    save_figure(figure, path, columns, rows)


def state_distributions(lanes: Sequence[Result], landers: Sequence[Result], path: Path) -> None:
    """Draw the visited states: positions and offsets on LaneKeeping, the angle on LunarLander."""
    from matplotlib.colors import LogNorm

    figure, grid = new_figure(PAGE, 4.3, 2, 3, height_ratios=(1, 1.25))
    rows: list[tuple[Any, ...]] = []
    image: Any = None
    for axes, name in zip(grid[0], ALL, strict=True):
        visits = stacked(lanes, f"{name}_visits").mean(axis=0)
        image = axes.pcolormesh(
            X_EDGES, Y_EDGES, np.where(visits > 0, visits, np.nan).T, cmap="cividis_r", norm=LogNorm(1e-5, 1e-2),
            rasterized=True,
        )  # fmt: skip
        for side in (-HALF_WIDTH, HALF_WIDTH):
            axes.plot(X_EDGES, center_line(X_EDGES) + side, color=REFERENCE, linewidth=0.5)
        axes.set(xlim=(0, 8.5), ylim=(-1.1, 1.1), xlabel="x", title=STYLES[name].label)
        for i, j in np.argwhere(visits > 0):
            x, y = X_EDGES[i : i + 2].mean(), Y_EDGES[j : j + 2].mean()
            rows.append(("position", name, float(x), float(y), float(visits[i, j]), "", ""))
    grid[0, 0].set_ylabel("y")
    figure.colorbar(image, ax=list(grid[0]), label="share of steps", aspect=12, pad=0.01)

    offsets, angles, legend = grid[1]
    legend.set_axis_off()
    for axes, panel, edges, results in (
        (offsets, "offset", OFFSET_EDGES, lanes),
        (angles, "angle", ANGLE_EDGES, landers),
    ):
        middle = (edges[1:] + edges[:-1]) / 2
        for name in ALL:
            band = mean(stacked(results, f"{name}_{panel}s"))
            floor = 1e-5  # a logarithmic axis cannot show shares of 0
            draw(axes, middle, tuple(np.maximum(part, floor) for part in band), STYLES[name])
            rows += [(panel, name, float(x), "", *(float(v) for v in b)) for x, *b in zip(middle, *band, strict=True)]
        axes.set(yscale="log", ylim=(2e-5, 1))
    for side in (-HALF_WIDTH, HALF_WIDTH):
        offsets.axvline(side, color=REFERENCE, linewidth=0.8)
    offsets.set(title="LaneKeeping", xlabel="offset y − c(x) (ends: and beyond)", ylabel="share of steps in a bin")
    angles.set(title="LunarLander", xlabel="angle in flight (rad)")
    legend.legend(*offsets.get_legend_handles_labels(), loc="center left", title="mean over seeds, 95 % interval")
    letter([*grid[0], offsets, angles])
    save_figure(figure, path, ("panel", "series", "x", "y", "share", "low", "high"), rows)


def compounding_error(
    corridor: Mapping[tuple[float, int], Sequence[Result]],
    lanes: Sequence[Result],
    landers: Sequence[Result],
    summary: Mapping[str, Any],
    path: Path,
) -> None:
    """Errors per step above, cost against T below: Corridor, LaneKeeping, LunarLander.

    Args:
        corridor: Results by (p, T).
        lanes: Results of LaneKeeping.
        landers: Results of LunarLander.
        summary: The study's JSON with horizons, slopes, and the corridor's closed forms.
        path: File to write, without suffix.
    """
    from matplotlib.ticker import LogLocator

    figure, grid = new_figure(PAGE, 4.8, 2, 3)
    rows: list[tuple[Any, ...]] = []
    (step_corridor, step_lane, step_lander), (cost_corridor, cost_lane, cost_lander) = grid
    horizons, slopes = summary["settings"]["horizons"], summary["slopes"]
    rates = [p for p, _ in summary["settings"]["labels"]]
    longest = corridor[rates[0], horizons[-1]]

    for name in (*BOTH, "recoverable"):
        band = mean(stacked(longest, f"{name}_cost"))
        t = np.arange(1, horizons[-1] + 1)
        draw(step_corridor, t, band, STYLES[name])
        rows += _rows("corridor, cost per step", name, t, band)
    step_corridor.set(title=f"Corridor, p = {rates[0]:g}", xlabel="step t", ylabel="probability of being off")
    step_corridor.set_ylim(bottom=0)
    step_corridor.text(
        0.99, 0.05, "DAgger; BC, recoverable", transform=step_corridor.transAxes, ha="right", fontsize=6.5
    )

    for axes, results, panel in ((step_lane, lanes, "LaneKeeping"), (step_lander, landers, "LunarLander")):
        for name in BOTH:
            values = stacked(results, f"{name}_error")
            # Few flights are this long: no mean where a seed has none.
            values = values[:, ~np.isnan(values).any(axis=0)]
            if panel == "LunarLander":  # average 10 steps, or noise hides the trend
                values = values[:, : values.shape[1] // 10 * 10].reshape(len(values), -1, 10).mean(axis=2)
            t = (np.arange(values.shape[1]) + 0.5) * (10 if panel == "LunarLander" else 1) + 0.5
            band = mean(values)
            draw(axes, t, band, STYLES[name])
            rows += _rows(f"{panel}, error per step", name, t, band)
        axes.set(title=panel, xlabel="step t")
        axes.set_ylim(bottom=0)
    step_lane.set_ylabel("mean |a − expert's a|")
    step_lander.set_ylabel("share not the expert's")

    for p, fill in zip(rates, itertools.cycle(("full", "none")), strict=False):
        # Shifted slightly, so that neither hides the other.
        for name, shift in (("bc", 1.0), ("dagger", 1 / 1.05), ("recoverable", 1.05)):
            costs = np.stack([stacked(corridor[p, T], f"{name}_cost").sum(axis=1) for T in horizons], axis=1)
            value, low, high = band = mean(costs)
            style = STYLES[name]
            cost_corridor.errorbar(
                np.array(horizons) * shift,
                value,
                (value - low, high - value),
                color=style.color,
                marker=style.marker,
                fillstyle=fill,
                linestyle=style.dashes,
                linewidth=1.0,
                elinewidth=0.8,
            )
            rows += _rows(f"corridor, cost against T, p = {p:g}", name, horizons, band)
            forms = [c["closed_form_cost"] for c in summary["corridor"] if (c["p"], c["learner"]) == (p, name)]
            cost_corridor.plot(horizons, forms, color="#cccccc", linewidth=4, zorder=0)
            rows += [
                (f"corridor, closed form, p = {p:g}", name, float(T), form, "", "")
                for T, form in zip(horizons, forms, strict=True)
            ]
    _slopes(cost_corridor, [slopes[f"corridor p={p:g}"] for p in rates], rates)
    cost_corridor.set(title="Corridor", xlabel="horizon T", ylabel="cost of an episode", xticks=horizons)

    ticks = {cost_corridor: list(horizons)}
    for axes, results, panel, part, loss in (
        (cost_lane, lanes, "LaneKeeping", "lane_keeping", "error"),
        (cost_lander, landers, "LunarLander", "lunar_lander", "cost"),
    ):
        T = ticks[axes] = slopes[part]["T"]
        for name in BOTH:
            band = mean(stacked(results, f"{name}_{loss}").cumsum(axis=1)[:, np.array(T) - 1])
            draw(axes, T, band, STYLES[name], marked=True)
            rows += _rows(f"{panel}, cost against T", name, T, band)
        _slopes(axes, [slopes[part]])
        axes.set(title=panel, xlabel="steps T")
    for axes, at in ticks.items():
        axes.set(xscale="log", yscale="log")
        axes.set_xticks(at, [str(tick) for tick in at])
        axes.minorticks_off()
        if axes is not cost_corridor:  # one or two decades
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.yaxis.set_major_formatter("{x:g}")
        low, high = axes.get_ylim()
        axes.set_ylim(low, high * (high / low) ** 0.4)  # room for the slopes
    cost_lane.set_ylabel("summed |a − expert's a|")
    cost_lander.set_ylabel("cost of a flight")
    letter(list(grid.flat))
    handles, labels = step_corridor.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3)
    save_figure(figure, path, ("panel", "series", "x", "mean", "low", "high"), rows)


def _slopes(axes: Axes, parts: Sequence[Mapping[str, Any]], rates: Sequence[float] = ()) -> None:
    """Write the fitted exponents, one line per series, into a free corner."""
    which = " / ".join(f"{p:g} {dot}" for p, dot in zip(rates, "●○", strict=False))
    lines = [f"slope (p = {which})" if which else "slope"]
    for name in ("bc", "dagger", "recoverable"):
        if name in parts[0]:
            exponents = " / ".join(f"{part[name]['slope']:.2f}" for part in parts)
            if len(parts) == 1:
                exponents += " [{:.2f}, {:.2f}]".format(*parts[0][name]["ci95"])
            lines += [f"{STYLES[name].label}: {exponents}"]
    if which:
        lines += ["broad gray lines: closed form"]
    axes.text(0.04, 0.98, "\n".join(lines), transform=axes.transAxes, va="top", fontsize=6.5, linespacing=1.15)
