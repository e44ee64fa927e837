"""The page that shows the study of inverse RL, every number in it from the study's own results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.markdown import table
from experiments.studies.inverse_rl.figures import CORNER, NOTABLE, QUANTITIES, SHOWN, STYLES, TITLES
from experiments.studies.inverse_rl.worlds import PICTURED


def page(summary: Mapping[str, Any]) -> str:
    """Markdown with the figures beside it."""
    settings, lake = summary["settings"], summary["lake"]
    water, potential, found = settings["lake"], lake["with_potential"], lake["recovered"]
    count = water["data"]["expert_trajectories"]
    corner = TITLES[PICTURED]
    rows, columns = summary["curves"][PICTURED]["grid"]
    return f"""\
# Inverse RL recovers reward from behavior

    lit-imitation study inverse_rl --out DIR       (--quick: the same path in less than a minute)
    make figures                                   (this page and its figures)

A clone knows what the expert does; a reward says what for, and so what to do where nobody demonstrated. `MaxEntIRL`
looks for the reward under which the demonstrations are as likely as can be. Here the true one is known, so that it can
be said how much of it comes back.

![True and recovered rewards as maps, with the arrows of their optimal policies](inverse_rl.png)

*Above:* each step at the goal pays {water["arguments"]["pay"]:g}, each in the lake costs as much, all others nothing,
and with probability {water["arguments"]["slip"]:g} a step is a random one. An expert demonstrates from anywhere,
{count:,} times {found["steps"] // count} steps ({SHOWN} of these are drawn, as far as the goal). The learner sees
states and actions, no reward and no lake: it has one weight a cell. *Below:* the upper left
{min(CORNER, rows)} × {min(CORNER, columns)} cells of {corner}, {rows} × {columns}. A cell pays 1 where exactly four of
the nine around and under it are blue, and costs 1 where five are. These nine colors are all that the learner reads: no
linear function of them counts to four and no further, a network can.

Arrows are the optimal policy of the reward that is drawn, one where there are several; dots stay. Hollow ones lose more
than {NOTABLE:.0%} of the largest reward by the true one, if all after them is optimal.

{_rewards(summary)}

"Cells" are all of the world, not only those drawn, "value" is that of the recovered reward's
optimal policy under the true one, as a share of the optimal value. The expert is no optimum but of maximum causal
entropy, as the learner takes it to be: it errs at random, least where it costs most. What it is after can be told from
that, and a policy that is optimal for it can do better than the expert does.

## What behavior does not tell

- **Constant and factor.** A reward with a constant added has the same optimal policies, with a positive factor too. For
  the figure each recovered reward r̂ was therefore brought to the true one as a·r̂ + b, a ≥ 0, by least squares. (By the
  lake a is {found["factor"]:.2f}, not just anything, since this expert's entropy is weighed as the learner supposes.)
- **A potential.** γΦ(s′) − Φ(s), added to the reward of each step, sums up to γⁿΦ(s_n) − Φ(s_0) along a trajectory,
  whatever is done on the way: what is optimal stays so (Ng, Harada & Russell 1999), and so does what a soft expert
  does. In (c) Φ is drawn at random for each cell (standard deviation {settings["potential"]:g}), and what is drawn is
  what the five actions pay there in the mean. It looks like another world: the Pearson distance from the true reward is
  {potential["pearson_distance"]:.2f}. But the arrows are those of (a) in {potential["same_actions"]:.0%} of the cells,
  and the EPIC distance, which no potential changes, is **{potential["epic_distance"]:.2f}**. That of the recovered
  reward (b) from the true one is **{found["epic_distance"]:.2f}**. No demonstration prefers (a) to (c). That (b) looks
  like (a) and not like (c) is owed to the model: a reward of the cell alone has no room here for a potential.

Distances are in [0, 1], 0.71 unrelated; `lit_imitation.EPIC` over possible transitions.

## What demonstrations are worth

![Expected value difference and share of the optimal value against the number of demonstrations](value_difference.png)

E[V* − V^π] under the true reward, every cell as likely a start, π optimal for the recovered one; and V^π as a share of
V*. Means over {settings["seeds"]} seeds with 95 % bootstrap intervals (too narrow with so few seeds); each seed is a
world of its own. "Fresh" is another world of the same kind, in which nothing was demonstrated and the reward is read
off its features. Dotted, the expert's own policy in the world where it demonstrates.

{_curves(summary, "expected_value_difference")}

{_curves(summary, "value_share")}

## How it is made

{_setup(summary)}

- **Objectworld and Binaryworld** are learned as the recipes `configs/maxent_irl/object_world.yaml` and
  `binary_world.yaml` have it, but for the number of demonstrations and the weights of their steps: by
  `step_weights: discounted` step t counts γᵗ, and `l2_coefficient` goes with that. The linear reward has the same
  settings, and the same demonstrations.
- **Seeds** begin with 1: by the world of seed 0 the recipes were tuned.
- **By the lake** reward and settings were chosen for the picture. The less there is to be had, the more an expert of
  maximum entropy wanders about.

Plotted numbers: [inverse_rl.csv](inverse_rl.csv), [value_difference.csv](value_difference.csv); headline values,
settings and versions: [inverse_rl.json](inverse_rl.json); vector graphics: [inverse_rl.svg](inverse_rl.svg),
[value_difference.svg](value_difference.svg).
"""


def _rewards(summary: Mapping[str, Any]) -> str:
    corner = TITLES[PICTURED]
    entries = {"(b) lake, a weight a cell": summary["lake"]["recovered"]}
    for letter, name in (("e", "deep"), ("f", "linear")):
        entries[f"({letter}) {corner}, {name}"] = summary["pictured"][name]
    rows = [
        [
            name,
            f"{entry['correlation']:.2f}",
            f"{entry['epic_distance']:.2f}",
            f"{entry['optimal_actions']:.0%}",
            f"**{entry['value_share']:.3f}**",
            f"{entry['expert_value_share']:.3f}",
        ]
        for name, entry in entries.items()
    ]
    head = ["", "correlation with the true reward", "EPIC distance", "cells with an optimal arrow", "value", "expert's"]
    return table(head, rows)


def _interval(entry: Mapping[str, Any]) -> str:
    low, high = entry["ci95"]
    return f"{entry['mean']:.3f} [{low:.3f}, {high:.3f}]"


def _curves(summary: Mapping[str, Any], quantity: str) -> str:
    counts = summary["settings"]["demonstrations"]
    rows = [
        [TITLES[world], style.label, *(_interval(entry) for entry in told[name][place][quantity])]
        for world, told in summary["curves"].items()
        for (name, place), style in STYLES.items()
    ]
    return table([QUANTITIES[quantity], "reward", *(f"{count:,}" for count in counts)], rows)


def _setup(summary: Mapping[str, Any]) -> str:
    def words(options: Mapping[str, Any]) -> str:
        return ", ".join(f"{name} {value}" for name, value in options.items())

    settings = summary["settings"]
    rows = [
        [
            TITLES[task["world"]],
            *(words(task[name]) for name in ("arguments", "data", "model", "deep")),
            str(task["epochs"]),
        ]
        for task in (settings["lake"], *settings["tasks"])
    ]
    return table(["", "the world", "`TabularDataModule`", "`MaxEntIRL`", "`MLPReward`", "epochs"], rows)
