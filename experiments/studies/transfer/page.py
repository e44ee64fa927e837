"""The page that shows the study of transfer; what it measured comes from the study's own results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.markdown import table
from experiments.studies.transfer.figures import NAMES, TITLES

ORDER = ("airl_state", "airl_state_action", "gail", "true")
AT_THE_BARRIER = -20.0
"""Return in the mirrored maze above which a policy gets past the barrier in time."""


def page(summary: Mapping[str, Any]) -> str:
    """Markdown with the figures beside it."""
    tasks = summary["tasks"]
    settings = {task["world"]: task for task in summary["settings"]["tasks"]}
    maze = _MAZE.format(seed=_first_seed(tasks["maze"])) if "maze" in tasks else ""
    numbers = "[transfer.csv](transfer.csv)" + (", [maze_rewards.csv](maze_rewards.csv)" if maze else "")
    vectors = "[transfer.svg](transfer.svg)" + (", [maze_rewards.svg](maze_rewards.svg)" if maze else "")
    return f"""\
# A reward that transfers

    lit-imitation study transfer --out DIR       (--tasks maze: that alone; --quick: the same path in about a minute)
    make figures                                 (this page and its figures)

An imitator knows what to do where it was shown; a reward says what is worth doing, elsewhere too. Here AIRL learns a
reward from an expert in one environment. It is saved, loaded by `load_reward`, frozen, and is all that a fresh policy
is paid by `RL(reward=…)` in a second environment: a **maze** whose barrier has moved to the other wall, and an **ant**
two of whose legs are half as long and all but powerless. r(s), a function of the state alone, can be told from what the
dynamics make of it; r(s, a) can hold the expert's advantage, in which the first environment's dynamics are. GAIL has no
reward but beside its learner, so its policy goes over as it is. (Fu, Luo & Levine 2018, table 1.)

![Returns in the second environment, and how far the learned rewards are from the true ones](transfer.png)

{_returns(tasks)}

Returns are of the second environment's true reward, by the policies' modes; means over seeds with 95 % bootstrap
intervals (too narrow with so few seeds; one seed has none). "Gap" is the share of the way from the random policy to RL
on the true reward. Grey lines in the figure: no correlation, and the EPIC distance of unrelated rewards.

{_words(tasks, settings)}
{_planned(tasks)}{maze}
## How good the rewards are

{_quality(tasks)}

Correlation is Pearson's, of the learned reward with the true one over states: a grid over the maze's box; for the ant
states of demonstrations and of random actions, and the torso's forward velocity. A reward of the action is averaged
over actions drawn uniformly. The EPIC distance (`lit_imitation.EPIC`; 0 the same but for potential, factor and
constant, 0.71 unrelated, 1 the opposite) is over transitions: in the maze from anywhere, by any action, with the
barrier moved; for the ant of demonstrations and of random actions. GAIL's reward, the logit of its last discriminator,
is there to compare.{_better(tasks)}

## How it is made

{_setup(settings, tasks)}

- **The environments** are our own: `lit_imitation/PointMassMaze-v0` and `PointMassMazeMirrored-v0`, `WeakAnt-v0` and
  `CrippledAnt-v0`; their docstrings say what they take from the paper, and where its numbers had to decide. The maze's
  point moves without inertia, so that its position, which is observed, is all of its state.
- **The expert** is PPO in the first environment on the true reward r − α log π, trained by the study, and demonstrates
  by *drawing* its actions: a maximum-entropy expert is what AIRL takes it to be. One expert serves all seeds, each with
  demonstrations of its own; intervals say nothing of other experts.
- **Expert and imitators are Gaussians squashed by tanh**, whose entropy is that of the actions played; the fresh
  policies in the second environment are clipped Gaussians.
- **The learned reward is that of the last round.** (The paper takes iteration 100.)
- **RL on the true reward and on a learned one** have the same settings and as many steps.
- **What was tuned**, with the same expert, on learners of seeds from 100 on, which are not among those shown: in the
  maze the policies' class, the expert's α, the sizes of r and Φ, past rounds as negatives, the discriminator's steps
  and learning rate, and PPO: 33 learned rewards in 27 configurations. For the ant, on seed 100, the expert's α, r's size
  and decay, the discriminator's steps and learning rate, and a start from a clone: 7 learned rewards. There, after
  500,000 steps, a fresh policy on the reward still rose, so it has a million. On seed 0 the reward was once shifted so
  that random play earns nothing: no gain (242 and 248), so it is not.

Plotted numbers: {numbers}; headline values, settings and versions: [transfer.json](transfer.json); vector graphics:
{vectors}.
"""


_MAZE = """
![The maze's true reward, the learned ones, and where they lead](maze_rewards.png)

Seed 0. Dotted, the barrier where the reward was learned; solid, where it is used. Orange, the first episode there: of a
policy trained on that reward, and of GAIL's own policy. Rewards are standardized, since factor and constant are free.
The true returns of seed 0, planned for and by PPO: {seed}.
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
    """What shares of a gap do not say."""
    if world == "ant":
        more = (
            f" r(s, a) differs from r(s) in {', '.join(settings['of_actions'])} too." if settings["of_actions"] else ""
        )
        return (
            f"{more} True returns are those of our ant, which pays nothing for staying upright and 0.01 ‖a‖² for "
            "control; the paper's may differ, and stand beside them for orientation."
        )
    past = [
        f"{sum(value > AT_THE_BARRIER for value in task['rows'][row]['seeds'])} of {len(task['rows'][row]['seeds'])}"
        for row in ORDER[:3]
    ]
    (_, high), (low, _) = (task["rows"][row]["ci95"] for row in ("airl_state_action", "airl_state"))
    overlap = " The intervals of r(s) and r(s, a) overlap." if low < high else ""
    return (
        f" Past the barrier (a return above {AT_THE_BARRIER:.0f}) get {past[0]} policies of r(s), {past[1]} of r(s, a) "
        f"and {past[2]} of GAIL.{overlap}"
    )


def _first_seed(task: Mapping[str, Any]) -> str:
    both = [(row, task["planned"][row]["seeds"][0], task["rows"][row]["seeds"][0]) for row in ORDER[:2]]
    return "; ".join(f"{NAMES[row]} {planned:,.1f} and {found:,.1f}" for row, planned, found in both)


def _planned(tasks: Mapping[str, Any]) -> str:
    """What the rewards of the maze are worth where nobody has to find their maximum."""
    if "maze" not in tasks:
        return ""
    found = tasks["maze"]["planned"]
    names = NAMES | {"gail": "GAIL", "true": "the true reward"}
    rows = [[names[row], _interval(found[row], 1)] for row in ORDER]
    lost = [found[row]["mean"] - tasks["maze"]["rows"][row]["mean"] for row in ORDER[:2]]
    return f"""
Is it the reward or the search? In the mirrored maze a reward can also be planned for exactly, by value iteration on a
grid of 70 × 70 cells and 25 actions; GAIL's last discriminator is frozen for that. True returns of what comes out:

{table(["planned for, in the mirrored maze", "return"], rows)}

So of what AIRL's policies miss, the search loses {lost[0]:.1f} with r(s) and {lost[1]:.1f} with r(s, a); the rest is
the reward.
"""


def _interval(entry: Mapping[str, Any], digits: int) -> str:
    if len(entry["seeds"]) == 1:  # whose interval would be a point
        return f"{entry['mean']:,.{digits}f}"
    low, high = entry["ci95"]
    return f"{entry['mean']:,.{digits}f} [{low:,.{digits}f}, {high:,.{digits}f}]"


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
    """Where the reward that transfers less is the closer one."""
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
    return f" (Where r(s, a) is the closer one by both measures, and yet worth less to a fresh policy: {where}.)"


def _setup(settings: Mapping[str, Any], tasks: Mapping[str, Any]) -> str:
    def words(options: Mapping[str, Any]) -> str:
        return ", ".join(f"{name} {value}" for name, value in options.items())

    def of_actions(task: Mapping[str, Any]) -> str:
        return f", but for r(s, a) {words(task['of_actions'])}" if task.get("of_actions") else ""

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
                f"round; {words(task['steps'])}; AIRL: {words(task['airl'])}{of_actions(task)}; GAIL: "
                f"{words(task['gail'])}; PPO: {words(task['learner'])}",
                f"{task['transfer_steps']:,} steps; PPO: {words(task['ppo'])}",
            ]
        )
    return table(["", "expert", "imitation in the first environment", "RL in the second"], rows)
