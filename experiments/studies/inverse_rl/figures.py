"""The study's figures: rewards as maps with optimal actions, and values against the number of demonstrations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from experiments.studies.common import EXPERT, PAGE, Style, draw, letter, new_figure, save_figure
from experiments.studies.inverse_rl.maps import Map
from experiments.studies.inverse_rl.worlds import FIRST_SEED, GROUND, PICTURED
from lit_imitation.tabular.worlds import MOVES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 3
"""Number of demonstrations that are drawn."""
CORNER = 12
"""Number of rows and columns that are drawn of a larger world."""
NOTABLE = 0.1
"""Arrows are hollow where they lose more of the true value than this share of the largest reward."""
COLOURS = ("#D9672B", "#F7F7F5", "#3D8FC4")
"""Colors from cost to reward, light enough for black arrows."""
DEMONSTRATION = "#7A4A9E"
TITLES = {"lake": "lake", "object_world": "Objectworld", "binary_world": "Binaryworld"}
STYLES = {
    ("deep", "training"): Style("deep", "#0072B2", (0, ()), "o"),
    ("deep", "fresh"): Style("deep, fresh world", "#0072B2", (0, (4, 2)), "^"),
    ("linear", "training"): Style("linear", "#D55E00", (0, ()), "s"),
    ("linear", "fresh"): Style("linear, fresh world", "#D55E00", (0, (4, 2)), "v"),
}
QUANTITIES = {"expected_value_difference": "expected value difference", "value_share": "share of the optimal value"}


def rewards(
    lake: Sequence[Map], shown: NDArray[np.int64], corner: Sequence[Map], summary: Mapping[str, Any], path: Path
) -> None:
    """Draw one row per world: the true reward, then the recovered ones.

    Args:
        lake: True reward, recovered reward, and true reward with a potential.
        shown: States `[≥ SHOWN, n]` of demonstrations by the lake.
        corner: True, deep and linear reward of the other world.
        summary: The content of the study's JSON.
        path: File to write, without suffix.
    """
    figure, panels = new_figure(PAGE, 4.95, 2, 3)
    given = summary["settings"]["lake"]["data"]["expert_trajectories"], summary["pictured"]["demonstrations"]
    by_lake = {
        "true": "true reward",
        "recovered": f"recovered, {given[0]:,} demonstrations",
        "potential": "true reward + potential",
    }
    by_corner = {
        "true": "true reward",
        "deep": f"deep, {given[1]:,} demonstrations",
        "linear": "linear, from the same",
    }
    worlds = (
        ("lake", "a goal and a lake", by_lake, lake),
        (PICTURED, f"{TITLES[PICTURED]}, a corner", by_corner, corner),
    )
    rows: list[tuple[Any, ...]] = []
    for axes, (world, label, titles, maps) in zip(panels, worlds, strict=True):
        top = float(np.abs(maps[0].reward).max())
        for panel, (series, title), one in zip(axes, titles.items(), maps, strict=True):
            image = _map(panel, one, top)
            panel.set_title(title)
            rows += [(world, series, *cell) for cell in _cells(one)]
        axes[0].set_ylabel(label)
        bar = figure.colorbar(image, ax=list(axes), shrink=0.8, aspect=18, pad=0.015, extend="both")
        bar.set_label("reward of a step")
        bar.set_ticks([-top, 0.0, top])
        bar.outline.set_linewidth(0.5)
    goal = int(lake[0].reward.argmax())
    for number, states in enumerate(shown[:SHOWN]):
        row, column = np.divmod(_until(states, goal), len(GROUND[0]))
        _path(panels[0, 0], row, column, 0.2 * (number - 1))
        rows += [
            ("lake", f"demonstration {number}", int(r), int(c), "", "", "") for r, c in zip(row, column, strict=True)
        ]
    letter(list(panels.flat))
    _legend(figure)
    save_figure(figure, path, ("world", "series", "row", "column", "reward", "action", "loss"), rows)


def _corner(one: Map) -> tuple[NDArray[Any], ...]:
    """Reward, action and loss of the drawn cells, at most `[CORNER, CORNER]`."""
    size = round(len(one.reward) ** 0.5)
    return tuple(column.reshape(size, size)[:CORNER, :CORNER] for column in one)


def _cells(one: Map) -> list[tuple[Any, ...]]:
    """Row, column, reward, action and loss of each drawn cell."""
    columns = _corner(one)
    return [(*cell, *(column[cell].item() for column in columns)) for cell in np.ndindex(columns[0].shape)]


def _map(axes: Axes, one: Map, top: float) -> Any:
    """Draw the reward, and an arrow for each move or a dot for staying."""
    from matplotlib.colors import LinearSegmentedColormap

    reward, action, loss = _corner(one)
    size = len(reward)
    image = axes.imshow(reward, cmap=LinearSegmentedColormap.from_list("reward", COLOURS), vmin=-top, vmax=top)
    cell = np.indices(reward.shape)
    row, column = cell[0], cell[1]
    down, right = 0.72 * MOVES[action].transpose(2, 0, 1)
    stays, wrong = action == 0, loss > NOTABLE * top
    for hollow, face in ((False, "black"), (True, "white")):
        moved, stayed = (wrong == hollow) & ~stays, (wrong == hollow) & stays
        axes.quiver(
            column[moved], row[moved], right[moved], down[moved], angles="xy", scale_units="xy", scale=1.0,
            pivot="mid", units="xy", width=0.09, headwidth=4.6, headlength=4.2, headaxislength=3.8, facecolor=face,
            edgecolor="black", linewidth=0.45, zorder=3,
        )  # fmt: skip
        axes.plot(
            column[stayed], row[stayed], linestyle="none", marker="o", markersize=26 / size, markerfacecolor=face,
            markeredgecolor="black", markeredgewidth=0.45, zorder=3,
        )  # fmt: skip
    edges = np.arange(size + 1) - 0.5
    axes.hlines(edges, -0.5, size - 0.5, color="white", linewidth=0.4)
    axes.vlines(edges, -0.5, size - 0.5, color="white", linewidth=0.4)
    axes.set(xticks=[], yticks=[], xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5))
    axes.spines[:].set(visible=True, color="#888888", linewidth=0.6)
    return image


def _until(states: NDArray[np.int64], goal: int) -> NDArray[np.int64]:
    """A trajectory, cut at the goal."""
    there = np.flatnonzero(states == goal)
    return states[: there[0] + 1] if len(there) else states


def _path(axes: Axes, row: NDArray[np.int64], column: NDArray[np.int64], aside: float) -> None:
    """Draw trajectories off the cells' centers, so that they can be distinguished."""
    axes.plot(column + aside, row + aside, color=DEMONSTRATION, linewidth=2.0, alpha=0.6, zorder=2)
    axes.plot(column[0] + aside, row[0] + aside, color=DEMONSTRATION, marker="s", markersize=4, zorder=2)


def _legend(figure: Figure) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.path import Path as Outline

    outline = [(-1, -0.2), (0.1, -0.2), (0.1, -0.5), (1, 0), (0.1, 0.5), (0.1, 0.2), (-1, 0.2), (-1, -0.2)]
    arrow: dict[str, Any] = {
        "marker": Outline(outline), "linestyle": "none", "markeredgecolor": "black", "markeredgewidth": 0.45,
        "markersize": 9,
    }  # fmt: skip
    handles = [
        Line2D([], [], markerfacecolor="black", label="optimal for the reward drawn (dot: stay)", **arrow),
        Line2D([], [], markerfacecolor="white", label="costs value by the true reward", **arrow),
        Line2D(
            [], [], color=DEMONSTRATION, linewidth=2.0, alpha=0.6, marker="s", markersize=4, markevery=[0],
            label="a demonstration, to the goal",
        ),
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))


def value_difference(worlds: Mapping[str, Any], demonstrations: Sequence[int], path: Path) -> None:
    """Draw one column per world: expected value difference above the share of the optimal value.

    Args:
        worlds: The `curves` of the study's JSON.
        demonstrations: Numbers of demonstrations `[K]`.
        path: File to write, without suffix.
    """
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    figure, panels = new_figure(PAGE, 4.3, 2, len(worlds), squeeze=False, sharex=True, sharey="row")
    rows: list[tuple[Any, ...]] = []
    for column, (world, told) in zip(panels.T, worlds.items(), strict=True):
        for axes, quantity in zip(column, QUANTITIES, strict=True):
            for (name, place), style in STYLES.items():
                entries = told[name][place][quantity]
                low, high = np.array([entry["ci95"] for entry in entries]).T
                draw(axes, demonstrations, ([e["mean"] for e in entries], low, high), style, marked=True)
                for count, entry in zip(demonstrations, entries, strict=True):
                    rows += _rows(world, quantity, name, place, count, entry)
            for place in ("training", "fresh"):
                rows += _rows(world, quantity, "expert", place, "", told["expert"][place][quantity][0])
            level = told["expert"]["training"][quantity][0]["mean"]
            axes.axhline(level, color=EXPERT.color, linestyle=EXPERT.dashes, linewidth=1.1, label="expert", zorder=2)
        column[0].set(title=TITLES[world], yscale="log")
        column[0].yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        column[0].yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        column[0].yaxis.set_minor_locator(NullLocator())
        column[1].set(xlabel="demonstrations", xscale="log", xticks=demonstrations)
        column[1].set_xticklabels(f"{count:,}" for count in demonstrations)
        column[1].minorticks_off()
    for axes, name in zip(panels[:, 0], QUANTITIES.values(), strict=True):
        axes.set_ylabel(name)
    panels[1, 0].set_ylim(top=1.0)
    letter(list(panels.flat))
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), handlelength=3.0)
    save_figure(
        figure,
        path,
        ("world", "quantity", "reward", "judged_in", "demonstrations", "seed", "value", "low", "high"),
        rows,
    )


def _rows(world: str, quantity: str, name: str, place: str, count: Any, entry: Mapping[str, Any]) -> list[Any]:
    key = (world, quantity, name, place, count)
    return [
        *((*key, seed, value, "", "") for seed, value in enumerate(entry["seeds"], start=FIRST_SEED)),
        (*key, "mean", entry["mean"], *entry["ci95"]),
    ]
