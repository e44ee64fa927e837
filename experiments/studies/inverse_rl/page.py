"""The page of the study of inverse RL; every number comes from the study's results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.markdown import estimate, options, table
from experiments.studies.inverse_rl.figures import CORNER, NOTABLE, QUANTITIES, SHOWN, STYLES, TITLES
from experiments.studies.inverse_rl.worlds import PICTURED


def page(summary: Mapping[str, Any]) -> str:
    """The page in Markdown, with links to the figures in the same folder."""
    study, lake = summary["settings"], summary["lake"]
    water, potential, found = study["lake"], lake["with_potential"], lake["recovered"]
    count = water["data"]["expert_trajectories"]
    corner = TITLES[PICTURED]
    rows, columns = summary["curves"][PICTURED]["grid"]
    return f"""\
# Inverse RL: recover a reward from behavior

See how much of a known reward `MaxEntIRL` recovers from demonstrations, and which parts no demonstration can reveal.

    python -m experiments study inverse_rl --out DIR       (--quick: a miniature in less than a minute)
    make figures                                           (all studies, their figures and pages)

A clone copies what the expert does. A reward says why, and so what to do in states without demonstrations. `MaxEntIRL`
finds the reward under which the demonstrations are most likely. Here the true reward is known, so the recovered one can
be compared with it.

![True and recovered rewards as maps, with the arrows of their optimal policies](inverse_rl.png)

*Above:* each step at the goal pays {water["arguments"]["pay"]:g}, each step in the lake costs as much, all others pay
nothing, and a step is random with probability {water["arguments"]["slip"]:g}. An expert demonstrates from random
starts, {count:,} times {found["steps"] // count} steps ({SHOWN} of them are drawn, up to the goal). The learner sees
states and actions, but neither reward nor lake: it has one weight per cell. *Below:* the upper left
{min(CORNER, rows)} × {min(CORNER, columns)} cells of {corner}, {rows} × {columns}. A cell pays 1 if exactly four of
the nine cells around and including it are blue, and costs 1 if five are. The learner reads only these nine colors. No
linear function of them can tell exactly four from more; a network can.

Arrows are the optimal policy of the reward that is drawn, one of them where there are several; a dot means to stay.
Hollow arrows lose more than {NOTABLE:.0%} of the largest reward under the true reward, if all later steps are optimal.

{_rewards(summary)}

"Cells" are all cells of the world, not only those drawn. "Value" is the value of the recovered reward's optimal
policy under the true reward, as a share of the optimal value. The expert has maximum causal entropy, as the learner
assumes: it errs at random, and least where errors cost most. These errors reveal its reward, so a policy that is
optimal for the recovered reward can do better than the expert.

## What behavior does not reveal

- **Constant and factor.** Adding a constant to a reward, or scaling it by a positive factor, keeps the same optimal
  policies. For the figure each recovered reward r̂ is therefore mapped to a·r̂ + b, a ≥ 0, by least squares to the
  true one. (By the lake a is {found["factor"]:.2f}, because the learner assumes this expert's weight of the entropy.)
- **A potential.** Adding γΦ(s′) − Φ(s) to the reward of each step adds γⁿΦ(s_n) − Φ(s_0) to a trajectory, for any
  actions. Optimal policies do not change (Ng, Harada & Russell 1999), and neither does a soft expert's behavior. In
  (c) Φ is random for each cell (standard deviation {study["potential"]:g}), and the map shows the mean reward of
  the five actions. It looks like another world: its Pearson distance from the true reward is
  {potential["pearson_distance"]:.2f}. But its arrows are those of (a) in {potential["same_actions"]:.0%} of the
  cells, and its EPIC distance, which ignores potentials, is **{potential["epic_distance"]:.2f}**. The EPIC distance
  of the recovered reward (b) is **{found["epic_distance"]:.2f}**. No demonstration prefers (a) to (c). That (b) looks
  like (a) and not like (c) comes from the model: a reward of the cell alone cannot represent a potential.

Distances lie in [0, 1], and unrelated rewards have 0.71; they are `lit_imitation.EPIC` over possible transitions.

## How many demonstrations are needed

![Expected value difference and share of the optimal value against the number of demonstrations](value_difference.png)

The figure has E[V* − V^π] under the true reward, with starts uniform over the cells and π optimal for the recovered
reward, and V^π as a share of V*. Means over {study["seeds"]} seeds with 95 % bootstrap intervals (too narrow with so
few seeds); each seed has a world of its own. "Fresh" is another world of the same kind without demonstrations, whose
reward is computed from its features. The dotted line is the expert's own policy in the world of its demonstrations.

{_curves(summary, "expected_value_difference")}

{_curves(summary, "value_share")}

## How it is made

{_setup(summary)}

- **Objectworld and Binaryworld** have the settings of the recipes `configs/maxent_irl/object_world.yaml` and
  `binary_world.yaml`, except for the number of demonstrations, the weights of steps (`step_weights: discounted`
  weights step t by γᵗ), and the `l2_coefficient` that goes with them. The linear reward has the same settings and the
  same demonstrations.
- **Seeds** start at 1, because the recipes were tuned on the world of seed 0.
- **By the lake**, reward and settings were chosen for the figure. The smaller the rewards, the more an expert of
  maximum entropy wanders.

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


def _curves(summary: Mapping[str, Any], quantity: str) -> str:
    counts = summary["settings"]["demonstrations"]
    rows = [
        [TITLES[world], style.label, *(estimate(entry["mean"], entry["ci95"]) for entry in told[name][place][quantity])]
        for world, told in summary["curves"].items()
        for (name, place), style in STYLES.items()
    ]
    return table([QUANTITIES[quantity], "reward", *(f"{count:,}" for count in counts)], rows)


def _setup(summary: Mapping[str, Any]) -> str:
    of_study = summary["settings"]
    rows = [
        [
            TITLES[task["world"]],
            *(options(task[name]) for name in ("arguments", "data", "model", "deep")),
            str(task["epochs"]),
        ]
        for task in (of_study["lake"], *of_study["tasks"])
    ]
    return table(["", "the world", "`TabularDataModule`", "`MaxEntIRL`", "`MLPReward`", "epochs"], rows)
