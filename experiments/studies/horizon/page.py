"""The page that shows the horizon study, every number in it from the study's own results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.markdown import table

NAMES: Mapping[str, str] = {
    "expert": "expert",
    "bc": "BC",
    "dagger": "DAgger",
    "recoverable": "BC, recoverable corridor",
}


def page(summary: Mapping[str, Any]) -> str:
    """Markdown with the three figures beside it."""
    settings = summary["settings"]
    horizons = ", ".join(str(T) for T in settings["horizons"])
    labels = " and ".join(f"{n:,} (p = {p:g})" for p, n in settings["labels"])
    largest = max(cell["epsilon_T"] for cell in summary["corridor"])
    checks, lane, lander = summary["corridor_checks"], summary["lane_keeping"], summary["lunar_lander"]
    seeds = settings["seeds"]
    return f"""\
# The horizon study: why DAgger

    lit-imitation study horizon --out DIR        (--quick: the same path in less than a minute)
    make figures                                 (this page and its figures)

A clone that errs at a rate ε on the expert's states can pay up to εT² over T steps, for one error leads to states in
which it never saw the expert act (Ross & Bagnell 2010). DAgger, which has the expert label the states that the learner
visits, pays at most about uTε, where u bounds what a single error costs an expert who goes on from there (Ross, Gordon
& Bagnell 2011). Here both are trained on **equally many labels** and their cost is measured by rollouts: DAgger starts
from a part of them as demonstrations and asks for the others in rounds, at the states that it drives itself into; the
policy of its last round is measured. BC passes as often over all of its data as DAgger over its growing ones, and so
takes more gradient steps. Shaded bands and brackets are 95 % bootstrap intervals over seeds.

## Compounding error

![Errors per step and cost against T](compounding_error.png)

`Corridor` sets the agent one situation a step, drawn independently of all before, and each has one right action; a
wrong one leads to *off*, which costs 1 a step and from where one action, *return*, leads back. Situations that are rare
(probability p, shared by {settings["situations"]} of them) may be missing from the demonstrations, and a policy errs
exactly in those: the error rate ε is learned, not set, and measured on fresh states of the expert's. Tabular policies
trained with log-loss (cross-entropy), T = {horizons}, {labels} labels, {settings["corridor_seeds"]} seeds;
εT is at most {largest:.2f}. The slope is that of log mean cost on log T. "Closed form" is the same slope for a learner
that errs with the measured ε, independently at every step. In (d) it is the broad gray lines (from the ε measured at
each T), to compare with: no curve is taken from it. Filled markers are the larger p.

{_corridor(summary)}

On its own training data BC errs on {checks["bc_training_error"]:.2%} of the labels. In off,
{checks["bc_returns_from_off"]:.0%} of the clones choose *return*, and {checks["dagger_returns_from_off"]:.0%} of
DAgger's policies.

Measured costs:

{_costs(summary)}

On LaneKeeping and LunarLander the loss is the disagreement with the expert on the learner's own states: |a − expert's
a|, and 1 for another action than the expert's (after a crash 1 in every step left, after a landing 0). Slopes of its
sum over the first T steps, {seeds} seeds (below 1 where the first steps are the hardest, as from a start off the
center of the lane):

{_others(summary)}

## What the bounds claim, and what they do not

- **εT² is a worst case, and it is reached**: in the corridor errors are independent per step and a clone does not find
  back. Both are needed. The *same clones* measured where every action leads back from off are linear in T: what
  is quadratic is not cloning but cloning where an error is not made good.
- **Nor is DAgger always linear.** Its bound has the factor u: where not even the expert could return, u grows with T
  and nothing is gained. It is also linear only for a learner that can represent the expert on all states it visits,
  and labels spent off the expert's path are labels not spent on it.
- **Per labels, not per trajectories.** Here T varies at a fixed number of labels, so ε does not depend on T. Foster,
  Block & Misra (2024) fix the number of *trajectories* and show that with log-loss, a deterministic expert and a
  stationary policy class (parameters shared by all steps) cloning is linear in T as well: longer trajectories bring
  more labels, and ε falls. Nothing here contradicts that; it says that εT² with a constant ε is not the price that
  cloning has to pay in general.
- **Not every task has the gap.** On LaneKeeping the observation does not tell where the lane is, and a clone that
  drifts off it meets positions of which it knows nothing. Whether a task is like that, or its clones find back by
  themselves, is to be measured. On LunarLander a flight costs BC {_interval(lander["bc"]["cost"], 1)} and DAgger
  {_interval(lander["dagger"]["cost"], 1)}; the returns are {_interval(lander["bc"]["return"], 1)} and
  {_interval(lander["dagger"]["return"], 1)}, the expert's {lander["expert"]["return"]["mean"]:.1f}.
- **How these two were set up.** The width of the lane and the sizes of networks and rounds on LaneKeeping and
  LunarLander were chosen while looking at seeds 0 to 2, which are among those reported; with a lane half as wide again
  far fewer clones leave it. Read them as examples of what happens, the corridor as the measurement of an exponent.

## Where the cars go

![Trajectories of expert, BC and DAgger between the hazards](trajectories.png)

The first {max(1, 30 // seeds)} drives of each of {seeds} seeds, with the same starts and disturbances for all three;
the table is of {settings["lane_episodes"]} drives a seed.

{_lane(lane)}

## What states are visited

![Distributions of visited states](state_distributions.png)

Panels (a) to (d) are of LaneKeeping, with the edges of the lane as thin lines; (e) is of LunarLander, the angle
while in flight, {settings["lander_episodes"]} flights a seed.

{_lander(lander)}

Numbers behind the figures: [compounding_error.csv](compounding_error.csv), [trajectories.csv](trajectories.csv),
[state_distributions.csv](state_distributions.csv); headline values, settings and versions:
[horizon.json](horizon.json). Vector graphics: [compounding_error.svg](compounding_error.svg),
[trajectories.svg](trajectories.svg), [state_distributions.svg](state_distributions.svg).
"""


def _interval(entry: Mapping[str, Any], digits: int = 2, percent: bool = False) -> str:
    low, high = entry["ci95"]
    value = entry["mean"] if "mean" in entry else entry["slope"]
    form = f".{digits}%" if percent else f",.{digits}f"
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"


def _corridor(summary: Mapping[str, Any]) -> str:
    rows = [
        [
            part.removeprefix("corridor p="),
            NAMES[name],
            f"{entry['epsilon']:.5f}",
            f"**{entry['slope']:.2f}** [{entry['ci95'][0]:.2f}, {entry['ci95'][1]:.2f}]",
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
