"""The page of the study of several right answers; every number comes from the study's results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.markdown import estimate, options, table
from experiments.studies.multimodal.figure import LABELS


def page(summary: Mapping[str, Any]) -> str:
    """The page in Markdown, with links to the figure in the same folder."""
    settings = summary["settings"]
    *first, last = summary["modes"]
    numbers = f"{', '.join(first)} or {last}"
    return f"""\
# Several right answers: which head learns them

Choose a policy for demonstrations that do different things in the same situation.

    python -m experiments study multimodal --out DIR     (--quick: a miniature in less than a minute)
    make figures                                         (all studies, their figures and pages)

In `lit_imitation/Fork-v0` a point stands in the middle of a ring-shaped wall with {numbers} gates. The expert draws a
gate for each episode and walks through it. In the middle, every gate is a right answer; their mean is to stand still.

![Each policy's trajectories, its success, and its distance to the shown shares of the gates](multimodal.png)

*Above: demonstrations, and clones of the first seed played by samples; orange episodes pass no gate. Below: means over
{settings["seeds"]} seeds with 95 % bootstrap intervals, filled by samples, hollow deterministic; dashed lines are the
aims, 0.95 and 0.1. Made by `python -m experiments study multimodal`.*

{_scores(summary)}

Total variation is half the sum of the differences between the shares of the gates, as played and as shown; failures
count as one more outcome. Each cell is measured over {settings["episodes"]:,} episodes a seed.

## Which head when

- **One right answer**: regression or `GaussianPolicy`. They are the fastest and need the fewest steps.
- **Several, short chunks**: `MixturePolicy`. It is one pass of a small network and has a likelihood; `components` has
  to be at least the number of right answers.
- **Several, in groups**: `QuantizedPolicy`, whose codes are the groups, or `VQBeTPolicy` for long chunks.
- **Several, and a chunk varies within each**: `CVAEPolicy`, one pass with the same bound on their number
  (`prior_components`).
- **An unknown number, long chunks**: `FlowPolicy` or `DiffusionPolicy`. Nothing about the answers has to be guessed,
  but a plan takes {settings["policy_arguments"]["flow"]["steps"]} passes here, and with many answers a few samples end
  between two of them: more training and more `steps` leave fewer. Flow matching needs fewer of both.

## Samples or deterministic play

`data.eval_deterministic: false` plays samples. With `true`, the default:

- `MixturePolicy`, `QuantizedPolicy` and `CVAEPolicy` take the most likely component or code. That is one of the modes,
  but always the same one for the same observation.
- `DiffusionPolicy` and `FlowPolicy` start from the noise 0. The end of that path can lie between the modes.
- Regression and `GaussianPolicy` give the mean of the modes.

{_deterministic(summary)}

## Committing to a way

A policy without memory can commit where its position tells which way it has begun. `Fork` tells after one step, since
the gates' ways separate by more than the start varies. A policy that matches the shown distribution of actions at each
position and time also matches the shown shares, even if it changes its mind on the way (Puterman 1994, theorem 5.5.1),
so memory is no condition. But each decision among the modes adds its errors. A head that plans a chunk of actions
decides less often. The five heads plan {settings["policy_arguments"][settings["policies"][-1]]["horizon"]} steps here.

## How it is made

{_setup(summary)}

- **Training** is `BC` with {settings["steps"]:,} steps of {settings["batch_size"]} windows, learning rate
  {settings["learning_rate"]:g}, cosine schedule, and weights averaged with decay {settings["ema_decay"]:g}, from
  {settings["demonstrations"]:,} demonstrations of four steps.
- **Time** is the median of one decision for one observation, by samples, on one thread of a machine that did other work
  too.
- **Tuning** used seed 100, which is not reported.

Plotted numbers: [multimodal.csv](multimodal.csv); headline values, settings and versions:
[multimodal.json](multimodal.json); vector graphics: [multimodal.svg](multimodal.svg).
"""


def _cell(entry: Mapping[str, Any]) -> str:
    return estimate(entry["mean"], entry["ci95"], ".2f")


def _of_way(summary: Mapping[str, Any], way: str) -> list[list[str]]:
    return [
        [
            LABELS[head],
            *(
                _cell(entries[head][way][name])
                for entries in summary["modes"].values()
                for name in ("success", "total_variation")
            ),
        ]
        for head in summary["settings"]["policies"]
    ]


def _heads(summary: Mapping[str, Any]) -> list[str]:
    return [f"{name}, {modes} gates" for modes in summary["modes"] for name in ("success", "total variation")]


def _scores(summary: Mapping[str, Any]) -> str:
    rows = _of_way(summary, "sampled")
    for row, head in zip(rows, summary["settings"]["policies"], strict=True):
        row.append(" / ".join(f"{entries[head]['milliseconds']:.2f}" for entries in summary["modes"].values()))
    return table(["by samples", *_heads(summary), "ms a decision"], rows)


def _deterministic(summary: Mapping[str, Any]) -> str:
    return table(["deterministic", *_heads(summary)], _of_way(summary, "deterministic"))


def _setup(summary: Mapping[str, Any]) -> str:
    return table(
        ["policy", "arguments"],
        [[LABELS[head], options(arguments)] for head, arguments in summary["settings"]["policy_arguments"].items()],
    )
