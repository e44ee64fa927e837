"""The page of the horizon study; every number comes from the study's results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.markdown import estimate, table

NAMES: Mapping[str, str] = {
    "expert": "expert",
    "bc": "BC",
    "dagger": "DAgger",
    "recoverable": "BC, recoverable corridor",
}


def page(summary: Mapping[str, Any]) -> str:
    """The page in Markdown, with links to the figures in the same folder."""
    settings = summary["settings"]
    horizons = ", ".join(str(T) for T in settings["horizons"])
    labels = " and ".join(f"{n:,} (p = {p:g})" for p, n in settings["labels"])
    largest = max(cell["epsilon_T"] for cell in summary["corridor"])
    checks, lane, lander = summary["corridor_checks"], summary["lane_keeping"], summary["lunar_lander"]
    seeds = settings["seeds"]
    return f"""\
# The horizon study: why DAgger

Measure how the cost of imitation grows with the length of the task, for behavioral cloning and for DAgger.

    python -m experiments study horizon --out DIR        (--quick: a miniature in less than a minute)
    make figures                                         (all studies, their figures and pages)

A clone that errs at a rate ε on the expert's states can pay up to εT² over T steps: one error leads to states that
the expert never showed (Ross & Bagnell 2010). DAgger asks the expert for labels on the states that the learner
visits. It pays at most about uTε, where u bounds what a single error costs an expert that continues from there (Ross,
Gordon & Bagnell 2011). Here both are trained on **equally many labels** and their cost is measured by rollouts.
DAgger starts from a part of them as demonstrations and asks for the others in rounds, in the states that it reaches;
the policy of its last round is measured. BC passes as often over all of its data as DAgger over its growing dataset,
and so takes more gradient steps. Shaded bands and brackets are 95 % bootstrap intervals over seeds.

## Compounding error

![Errors per step and cost against T](compounding_error.png)

In `Corridor` every step shows a new, independent situation, and each has one right action. A wrong action leads to
the state *off*, which costs 1 per step; one action, *return*, leads back. Rare situations (probability p, shared by
{settings["situations"]} of them) may be absent from the demonstrations, and a policy errs exactly in those. So the
error rate ε is learned, not set, and it is measured on new states of the expert. Policies are tabular and trained
with log-loss (cross-entropy): T = {horizons}, {labels} labels, {settings["corridor_seeds"]} seeds; εT is at most
{largest:.2f}. The slope is that of log mean cost on log T. "Closed form" is the same slope for a learner that errs
with the measured ε, independently at every step. The broad gray lines in (d) are this closed form for the ε measured
at each T, for comparison; no curve is derived from it. Filled markers have the larger p.

{_corridor(summary)}

On its own training data BC errs on {checks["bc_training_error"]:.2%} of the labels. In the state *off*,
{checks["bc_returns_from_off"]:.0%} of the clones and {checks["dagger_returns_from_off"]:.0%} of DAgger's policies
choose *return*.

Measured costs:

{_costs(summary)}

On LaneKeeping and LunarLander the loss is the disagreement with the expert on the learner's own states. On
LaneKeeping it is |a − expert's a|. On LunarLander it is 1 for another action than the expert's; after a crash it is 1
in every remaining step, after a landing 0. The table has the slopes of its sum over the first T steps, {seeds} seeds.
They are below 1 where the first steps are the hardest, as from a start off the center of the lane:

{_others(summary)}

## What the bounds say, and what they do not

- **εT² is a worst case, and it is reached.** In the corridor, errors are independent per step and a clone does not
  recover. Both are needed. The *same clones* are linear in T when every action leads back from *off*. The quadratic
  cost does not come from cloning itself, but from cloning where errors are not corrected.
- **DAgger is not always linear.** Its bound has the factor u: where even the expert could not return, u grows with T
  and nothing is gained. It is linear only for a learner that can represent the expert on all states it visits, and
  labels spent off the expert's path are not spent on it.
- **Labels, not trajectories.** Here T varies at a fixed number of labels, so ε does not depend on T. Foster, Block &
  Misra (2024) fix the number of *trajectories*. They show that with log-loss, a deterministic expert and a stationary
  policy class (parameters shared by all steps) cloning is linear in T as well: longer trajectories have more labels,
  and ε falls. Nothing here contradicts this; it means that cloning does not always have to pay εT² with a constant ε.
- **Not every task has the gap.** On LaneKeeping the observation does not contain the lane, and a clone that drifts
  off reaches positions it has never seen. Whether clones recover on another task has to be measured. On LunarLander a
  flight costs BC {_interval(lander["bc"]["cost"], 1)} and DAgger {_interval(lander["dagger"]["cost"], 1)}; the
  returns are {_interval(lander["bc"]["return"], 1)} and {_interval(lander["dagger"]["return"], 1)}, the expert's is
  {lander["expert"]["return"]["mean"]:.1f}.
- **Choices made on reported seeds.** The width of the lane and the sizes of networks and rounds on LaneKeeping and
  LunarLander were chosen on seeds 0 to 2, which are among those reported; with a lane 1.5 times as wide far fewer
  clones leave it. Read these two tasks as examples, and the corridor as the measurement of an exponent.

## Where the cars drive

![Trajectories of expert, BC and DAgger between the hazards](trajectories.png)

The figure has the first {max(1, 30 // seeds)} drives of each of {seeds} seeds, with the same starts and disturbances
for all three; the table has {settings["lane_episodes"]} drives per seed.

{_lane(lane)}

## Which states are visited

![Distributions of visited states](state_distributions.png)

Panels (a) to (d) show LaneKeeping, with the edges of the lane as thin lines. Panel (e) shows the angle in flight on
LunarLander, {settings["lander_episodes"]} flights per seed.

{_lander(lander)}

Plotted numbers: [compounding_error.csv](compounding_error.csv), [trajectories.csv](trajectories.csv),
[state_distributions.csv](state_distributions.csv); headline values, settings and versions:
[horizon.json](horizon.json); vector graphics: [compounding_error.svg](compounding_error.svg),
[trajectories.svg](trajectories.svg), [state_distributions.svg](state_distributions.svg).
"""


def _interval(entry: Mapping[str, Any], digits: int = 2, percent: bool = False) -> str:
    value = entry["mean"] if "mean" in entry else entry["slope"]
    return estimate(value, entry["ci95"], f".{digits}%" if percent else f",.{digits}f")


def _corridor(summary: Mapping[str, Any]) -> str:
    rows = [
        [
            part.removeprefix("corridor p="),
            NAMES[name],
            f"{entry['epsilon']:.5f}",
            estimate(entry["slope"], entry["ci95"], ".2f", bold=True),
            f"{entry['closed_form_slope']:.2f}",
        ]
        for part, entries in summary["slopes"].items()
        if part.startswith("corridor")
        for name, entry in entries.items()
    ]
    return table(["p", "learner", "measured ε", "slope in T", "closed form"], rows)


def _costs(summary: Mapping[str, Any]) -> str:
    horizons = summary["settings"]["horizons"]
    cells = {(cell["p"], cell["learner"], cell["T"]): cell for cell in summary["corridor"]}
    rows = [
        [f"{p:g}", NAMES[name], *(_interval(cells[p, name, T]["cost"], 4) for T in horizons)]
        for p, name in dict.fromkeys((p, name) for p, name, _ in cells)
    ]
    return table(["p", "learner", *(f"T = {T}" for T in horizons)], rows)


def _others(summary: Mapping[str, Any]) -> str:
    rows = [
        [title, *(_interval(summary["slopes"][part][name]) for name in ("bc", "dagger"))]
        for part, title in (("lane_keeping", "LaneKeeping"), ("lunar_lander", "LunarLander"))
    ]
    return table(["", "BC", "DAgger"], rows)


def _lane(lane: Mapping[str, Any]) -> str:
    rows = [
        [
            NAMES[name],
            f"{entry['labels']:,}" if entry["labels"] else "",
            _interval(entry["share_that_leaves"], 1, percent=True),
            _interval(entry["steps_in_hazard"], 1),
            _interval(entry["error_on_demonstrations"], 3),
            _interval(entry["error_on_own_states"], 3),
        ]
        for name, entry in lane.items()
    ]
    head = ["driver", "labels", "cars that leave the lane", "steps in hazard", "error on BC's data", "on own states"]
    return table(head, rows)


def _lander(lander: Mapping[str, Any]) -> str:
    rows = [
        [
            NAMES[name],
            f"{entry['labels']:,}" if entry["labels"] else "",
            _interval(entry["return"], 1),
            _interval(entry["crashed"], 1, percent=True),
            _interval(entry["cost"], 1),
            _interval(entry["error_on_demonstrations"], 3),
        ]
        for name, entry in lander.items()
    ]
    return table(["pilot", "labels", "return", "crashes", "cost of a flight", "error on BC's data"], rows)
