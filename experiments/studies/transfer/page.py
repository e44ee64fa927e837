"""The page of the study of transfer; measured numbers come from the study's results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.markdown import estimate, options, table
from experiments.studies.transfer.figures import NAMES, TITLES

ORDER = ("airl_state", "airl_state_action", "gail", "true")
AT_THE_BARRIER = -20.0
"""Return in the mirrored maze above which a policy passes the barrier in time."""


def page(summary: Mapping[str, Any]) -> str:
    """The page in Markdown, with links to the figures in the same folder."""
    tasks = summary["tasks"]
    settings = {task["world"]: task for task in summary["settings"]["tasks"]}
    maze = _MAZE.format(seed=_first_seed(tasks["maze"])) if "maze" in tasks else ""
    numbers = "[transfer.csv](transfer.csv)" + (", [maze_rewards.csv](maze_rewards.csv)" if maze else "")
    vectors = "[transfer.svg](transfer.svg)" + (", [maze_rewards.svg](maze_rewards.svg)" if maze else "")
    return f"""\
# Transfer: a reward that works in another environment

Learn a reward with AIRL in one environment and train a policy on it in another.

    python -m experiments study transfer --out DIR       (--tasks maze: one task; --quick: a miniature)
    make figures                                         (all studies, their figures and pages)

An imitator knows what to do where the expert demonstrated. A reward says what is worth doing in other environments,
too. Here AIRL learns a reward from an expert in one environment. The reward is saved, loaded by `load_reward` and
frozen, and it is the only reward of a fresh policy (`RL(reward=…)`) in a second environment: a **maze** whose barrier
has moved to the other wall, and an **ant** with two legs of half the length and almost no power. A reward of the
state alone, r(s), can be separated from the dynamics. A reward r(s, a) can contain the expert's advantage, which
depends on the first environment's dynamics. GAIL's reward is tied to its policy, so we transfer the policy. (Fu, Luo
& Levine 2018, table 1.)

![Returns in the second environment, and how far the learned rewards are from the true ones](transfer.png)

{_returns(tasks)}

Returns are those of the second environment's true reward, by the policies' modes; means over seeds with 95 %
bootstrap intervals (too narrow with so few seeds; a single seed has none). "Gap" is the share of the distance from
the random policy to RL on the true reward. Gray lines in the figure mark no correlation, and the EPIC distance of
unrelated rewards.

{_words(tasks, settings)}
{_planned(tasks)}{maze}
## How good the rewards are

{_quality(tasks)}

Correlation is Pearson's, between learned and true reward over states. In the maze these are a grid over its box. For
the ant they are states of demonstrations and of random actions, and the true reward is the torso's forward velocity.
A reward of the action is averaged over uniform actions. The EPIC distance (`lit_imitation.EPIC`; 0 equal up to
potential, factor and constant, 0.71 unrelated, 1 opposite) is over transitions: in the maze from everywhere by all
actions, with the barrier moved; for the ant those of demonstrations and of random actions. GAIL's reward, the logit
of its last discriminator, is shown for comparison.{_better(tasks)}

## How it is made

{_setup(settings, tasks)}

- **The environments** are our own: `lit_imitation/PointMassMaze-v0` and `PointMassMazeMirrored-v0`, `WeakAnt-v0` and
  `CrippledAnt-v0`. Their docstrings say what comes from the paper, and which numbers are our choice. The maze's point
  moves without inertia, so its observed position is its full state.
- **The expert** is PPO in the first environment on the true reward r − α log π, trained by the study. It demonstrates
  with *sampled* actions, because AIRL assumes a maximum-entropy expert. One expert serves all seeds, each with its
  own demonstrations; the intervals do not cover other experts.
- **Expert and imitators are Gaussians squashed by tanh**, whose entropy is that of the executed actions; the fresh
  policies in the second environment are clipped Gaussians.
- **The learned reward is that of the last round.** (The paper uses iteration 100.)
- **RL on the true reward and on a learned one** have the same settings and number of steps.
- **Tuning** used the same expert and learners of seeds from 100 on, which are not shown. In the maze: the policies'
  class, the expert's α, the sizes of r and Φ, past rounds as negatives, the discriminator's steps and learning rate,
  and PPO, with 33 learned rewards in 27 configurations. For the ant, on seed 100: the expert's α, r's size and decay,
  the discriminator's steps and learning rate, and a start from a clone, with 7 learned rewards. After 500,000 steps a
  fresh policy on the ant's reward still improved, so it has a million. On seed 0 the reward was once shifted so that
  random actions earn nothing; this did not help (242 and 248), so it is not done.

Plotted numbers: {numbers}; headline values, settings and versions: [transfer.json](transfer.json); vector graphics:
{vectors}.
"""


_MAZE = """
![The maze's true reward, the learned ones, and the paths of their policies](maze_rewards.png)

The figure shows seed 0. The dotted barrier is that of the first maze, the solid one that of the second. The orange line
is the first episode in the second maze, of a policy trained on that reward, or of GAIL's own policy. Rewards are
standardized, because factor and constant are arbitrary. The true returns of seed 0, by planning and by PPO: {seed}.
"""


def _words(tasks: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    lines = []
    for world, task in tasks.items():
        share = {row: f"{task['rows'][row]['share_of_gap']['mean']:.0%}" for row in ORDER}
        lines.append(
            f"- **{TITLES[world].capitalize()}**: r(s) recovers {share['airl_state']} of the gap, r(s, a) "
            f"{share['airl_state_action']}, GAIL's policy {share['gail']}.{_more(world, task, settings[world])}"
        )
    return "\n".join(lines)


def _more(world: str, task: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Details of one task beyond the shares of the gap."""
    if world == "ant":
        more = (
            f" r(s, a) differs from r(s) in {', '.join(settings['of_actions'])} too." if settings["of_actions"] else ""
        )
        return (
            f"{more} True returns are those of our ant, without a reward for staying upright and with a control cost "
            "of 0.01 ‖a‖²; the paper's ant may differ, so its returns are only for orientation."
        )
    past = [
        f"{sum(value > AT_THE_BARRIER for value in task['rows'][row]['seeds'])} of {len(task['rows'][row]['seeds'])}"
        for row in ORDER[:3]
    ]
    (_, high), (low, _) = (task["rows"][row]["ci95"] for row in ("airl_state_action", "airl_state"))
    overlap = " The intervals of r(s) and r(s, a) overlap." if low < high else ""
    return (
        f" {past[0]} policies of r(s), {past[1]} of r(s, a) and {past[2]} of GAIL pass the barrier (a return above "
        f"{AT_THE_BARRIER:.0f}).{overlap}"
    )


def _first_seed(task: Mapping[str, Any]) -> str:
    both = [(row, task["planned"][row]["seeds"][0], task["rows"][row]["seeds"][0]) for row in ORDER[:2]]
    return "; ".join(f"{NAMES[row]} {planned:,.1f} and {found:,.1f}" for row, planned, found in both)


def _planned(tasks: Mapping[str, Any]) -> str:
    """The value of the maze's rewards with exact planning in place of RL."""
    if "maze" not in tasks:
        return ""
    found = tasks["maze"]["planned"]
    names = NAMES | {"gail": "GAIL", "true": "the true reward"}
    rows = [[names[row], _interval(found[row], 1)] for row in ORDER]
    lost = [found[row]["mean"] - tasks["maze"]["rows"][row]["mean"] for row in ORDER[:2]]
    return f"""
Does the reward or the RL limit the return? In the mirrored maze the optimal policy of a reward can also be computed, by
value iteration on a grid of 70 × 70 cells and 25 actions; for GAIL this uses its last discriminator, frozen. The true
returns of these policies:

{table(["planned on, in the mirrored maze", "return"], rows)}

So RL loses {lost[0]:.1f} with r(s) and {lost[1]:.1f} with r(s, a) of the return that AIRL's policies miss; the reward
accounts for the difference that remains.
"""


def _interval(entry: Mapping[str, Any], digits: int) -> str:
    several = len(entry["seeds"]) > 1  # a single seed has no interval
    return estimate(entry["mean"], entry["ci95"] if several else None, f",.{digits}f")


def _returns(tasks: Mapping[str, Any]) -> str:
    rows = []
    for row in ORDER:
        cells = [NAMES[row]]
        for task in tasks.values():
            entry = task["rows"][row]
            cells += [
                _interval(entry, 1), str(len(entry["seeds"])), f"{entry['share_of_gap']['mean']:.0%}",
                f"{entry['paper']:g}",
            ]  # fmt: skip
        rows.append(cells)
    rows.append(
        [NAMES["random"], *(cell for t in tasks.values() for cell in (f"{t['random_return']:,.1f}", "", "0%", ""))]
    )
    head = [cell for world in tasks for cell in (TITLES[world], "seeds", "gap", "paper")]
    return table(["", *head], rows)


def _quality(tasks: Mapping[str, Any]) -> str:
    rows = [
        [
            TITLES[world],
            NAMES[row].partition(", policy")[0],
            _interval(task["imitation"][row], 1),
            _interval(entry["correlation"], 2),
            _interval(entry["epic"], 2),
        ]
        for world, task in tasks.items()
        for row, entry in task["quality"].items()
    ]
    return table(["", "", "imitator's return in the first environment", "correlation", "EPIC distance"], rows)


def _better(tasks: Mapping[str, Any]) -> str:
    """The tasks on which the reward that transfers less is closer to the true one."""
    worlds = []
    for world, task in tasks.items():
        state, action = (
            {key: task["quality"][row][key]["mean"] for key in ("correlation", "epic")}
            | {"return": task["rows"][row]["mean"]}
            for row in ORDER[:2]
        )
        closer = action["correlation"] > state["correlation"] and action["epic"] < state["epic"]
        if closer and action["return"] < state["return"]:
            worlds.append(TITLES[world])
    if not worlds:
        return ""
    where = "; ".join(worlds)
    return f" (On this task r(s, a) is closer by both measures, but a fresh policy returns less with it: {where}.)"


def _setup(settings: Mapping[str, Any], tasks: Mapping[str, Any]) -> str:
    def of_actions(task: Mapping[str, Any]) -> str:
        return f", but for r(s, a) {options(task['of_actions'])}" if task.get("of_actions") else ""

    rows = []
    for world, task in settings.items():
        measured, rounds = tasks[world], task["rounds"]
        rows.append(
            [
                TITLES[world],
                f"{task['expert_steps']:,} steps, α {task['temperature']}, return {measured['expert']:,.1f}; "
                f"{task['demonstrations']} demonstrations, return {measured['demonstrated_return']:,.1f}; random "
                f"{measured['random_return_in_source']:,.1f}",
                f"{task['imitation_steps']:,} steps, {rounds['num_envs']} × {rounds['steps_per_round']} a "
                f"round; {options(task['steps'])}; AIRL: {options(task['airl'])}{of_actions(task)}; GAIL: "
                f"{options(task['gail'])}; PPO: {options(task['learner'])}",
                f"{task['transfer_steps']:,} steps; PPO: {options(task['ppo'])}",
            ]
        )
    return table(["", "expert", "imitation in the first environment", "RL in the second"], rows)
