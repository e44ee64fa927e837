"""The study's figure: return against environment steps, one panel per environment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.studies.common import BC, EXPERT, FINETUNED, PAGE, SCRATCH, draw, letter, new_figure, save_figure

STYLES = {"finetuned": FINETUNED, "scratch": SCRATCH}


def returns(tasks: Mapping[str, Any], path: Path) -> None:
    """Draw means over seeds with intervals, each seed as a thin line, and the levels of expert and clone.

    Args:
        tasks: The tasks of the study's JSON, by environment.
        path: File to write, without suffix.
    """
    figure, panels = new_figure(PAGE, 2.9, 1, len(tasks), squeeze=False)
    rows: list[tuple[Any, ...]] = []
    for axes, (env_id, task) in zip(panels[0], tasks.items(), strict=True):
        for name, style in STYLES.items():
            curve = task["curves"][name]
            steps = np.asarray(curve["env_steps"]) / 1000
            band = curve["mean"], curve["low"], curve["high"]
            for seed, line in enumerate(curve["seeds"]):
                axes.plot(steps, line, color=style.color, linestyle=style.dashes, linewidth=0.5, alpha=0.4)
                rows += [
                    (env_id, style.label, seed, float(x), float(y), "", "")
                    for x, y in zip(curve["env_steps"], line, strict=True)
                ]
            draw(axes, steps, band, style)
            rows += [
                (env_id, style.label, "mean", float(x), *(float(v) for v in values))
                for x, *values in zip(curve["env_steps"], *band, strict=True)
            ]
        for name, style in (("expert", EXPERT), ("clone", BC)):
            level = task[name]
            dashes = style.dashes if name == "expert" else (0, (7, 1.5, 1.5, 1.5))
            label = "expert" if name == "expert" else "the clone alone"
            axes.axhline(level["mean"], color=style.color, linestyle=dashes, linewidth=1.1, label=label, zorder=2)
            rows.append((env_id, label, "mean", "", level["mean"], *level["ci95"]))
        axes.set(title=f"{env_id}, {task['seeds']} seeds", xlabel="environment steps (thousands)")
        axes.set_xlim(0, steps[-1])
        # An untrained policy can be far worse than a random one, and would compress the other curves.
        lowest = [task["random_return"], *(low for c in task["curves"].values() for low in c["low"][1:])]
        axes.set_ylim(bottom=min(lowest))
    panels[0, 0].set_ylabel("return")
    letter(list(panels[0]))
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), handlelength=3.2)
    save_figure(figure, path, ("environment", "series", "seed", "env_steps", "return", "low", "high"), rows)
