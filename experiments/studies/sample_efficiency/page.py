"""The page that shows the study of sample efficiency; what it measured comes from the study's own results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.markdown import table
from experiments.studies.sample_efficiency.architecture import WINDOW

BY_HEART = ", whose trajectories it knows less well than those that it learns from, by heart"
NAMES = {"bc": "BC", "dagger": "DAgger", "gail": "GAIL", "ppo": "PPO on the true reward"}


def page(summary: Mapping[str, Any]) -> str:
    """Markdown with the figures beside it."""
    settings = {task["env_id"]: task for task in summary["settings"]["tasks"]}
    tasks, aim = summary["tasks"], summary["settings"]["aim"]
    first = next(iter(settings.values()))
    return f"""\
# Sample efficiency: labels of the expert against steps of the environment

    lit-imitation study sample_efficiency --out DIR       (--quick: the same path in about a minute)
    make figures                                          (this page and its figures)

The less a method asks of the expert, the more it asks of the environment. **BC** takes demonstrations and no step at
all; **DAgger** asks the expert about the states that it comes to; **GAIL** takes few demonstrations and acts much;
**PPO** takes no expert, but the true reward, which none of the others sees.

![Return against environment steps, and steps against labels](sample_efficiency.png)

*Left:* interquartile means over seeds with 95 % bootstrap intervals (too narrow with so few seeds), thin lines the
seeds. BC, DAgger and GAIL of a seed are shown the same: {_shown(settings)}. The axis is logarithmic, for DAgger is
done before the others are first measured. *Right:* environment steps at the first validation that reaches {aim:g} of
the expert, against the mean of the labels by then: transitions demonstrated, and for DAgger also those that it asked
about. Dashes are GAIL's seeds. BC takes no steps: it stands at 0 if its score at the end is {aim:g} and else at
"never", the score beside it; open marks never got there. PPO needs no label, and is a line.

{_scores(tasks, summary["pooled"])}

Normalized scores, 0 at random and 1 the expert, of the policies at the end by their mode over {first["episodes"]}
episodes that no curve has seen; the last column pools seeds and environments, its interval stratified by environment.

{_trade(tasks)}

Environment steps to {aim:g} of the expert, interquartile means over seeds with intervals, and how many seeds were
there: BC by the episodes at the end, the others at the first validation, of 10 episodes, that reaches it, so that one
lucky validation is enough, and who was there may end below. A seed that never is there counts as later than all others,
and where the interquartile mean has to average it there is none. {_budget(settings)}

## GAIL, the loop and a run of it

![The loop of GAIL; accuracy of the discriminator, reward and return over training](gail_architecture.png)

*Left:* one round, as `lit_imitation.GAIL` with `PPO` goes through it; names in small print are those of a recipe.
Past rounds (`replay_rounds`) are none here. *Right:* the first seed above on {next(iter(settings))}. Accuracy is that
of each side, as the discriminator learns, and on the trajectory that is held out, means over {WINDOW} rounds; where
expert and learner cannot be told apart, it goes to one half. The reward is what the learner is paid, a mean over as
many rounds, thin the rounds themselves: those stand out that begin an epoch, where all environments are reset. The
return is the environment's, which no part of GAIL sees: of the mode in validation, and thin that of the episodes which
end in a round, of drawn actions. {_accuracies(summary["gail_architecture"]["at_the_end"])}

## How it is made

{_setup(settings, tasks)}

- **The expert**, where it is not a scripted controller, draws its actions in demonstrations, as in the recipes of
  GAIL; it answers DAgger with its mode. Its return is that of the mode, and so are the learners'.
- **BC** is `experiments/tables/bc_table.yaml`'s: 2×100 tanh, equally many gradient steps of at most 64 however many the
  demonstrations, the average of the last steps' weights. On the right it also learns from whole trajectories.
- **DAgger, GAIL and PPO** have the settings of their recipes in `configs/`, with the steps above; they were not
  searched for the study. GAIL and DAgger hold a tenth of their trajectories out, at least one of two or more, DAgger of
  each round's too; those count as labels.
- Steps are those of training. Validation, of 10 episodes a time, is not counted. The steps in which an expert was
  trained are in no curve: an expert is what one has.

Plotted numbers: [sample_efficiency.csv](sample_efficiency.csv), [gail_architecture.csv](gail_architecture.csv);
headline values, settings and versions: [sample_efficiency.json](sample_efficiency.json); vector graphics:
[sample_efficiency.svg](sample_efficiency.svg), [gail_architecture.svg](gail_architecture.svg).
"""


def _interval(entry: Mapping[str, Any]) -> str:
    low, high = entry["ci95"]
    return f"{entry['iqm']:.2f} [{low:.2f}, {high:.2f}]"


def _shown(settings: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{task['trajectories']} {'trajectory' if task['trajectories'] == 1 else 'trajectories'} of {env_id}, one "
        f"transition in {task['subsample']}"
        for env_id, task in settings.items()
    )


def _accuracies(means: Mapping[str, float | None]) -> str:
    sides = (("expert", "the expert"), ("learner", "the learner"), ("held_out", "the held-out expert"))
    values = [(text, means[f"discriminator_accuracy_{name}"]) for name, text in sides]
    known = ", ".join(f"{value:.2f} on {text}" for text, value in values if value is not None)
    learned, kept = means["discriminator_accuracy_expert"], means["discriminator_accuracy_held_out"]
    by_heart = "" if learned is None or kept is None or kept > learned - 0.1 else BY_HEART
    return f"In the end the accuracy is {known}{by_heart}."


def _scores(tasks: Mapping[str, Any], pooled: Mapping[str, Any]) -> str:
    rows = [
        [name, *(_interval(task["scores"][method]) for task in tasks.values()), f"**{_interval(pooled[method])}**"]
        for method, name in NAMES.items()
    ]
    return table(["score at the end", *tasks, "both" if len(tasks) == 2 else "all"], rows)


def _place(entry: Mapping[str, Any]) -> tuple[int, int, int]:
    return list(NAMES).index(entry["method"]), -entry["subsample"], entry["trajectories"]


def _trade(tasks: Mapping[str, Any]) -> str:
    rows = []
    for env_id, task in tasks.items():
        for entry in sorted(task["trade"], key=_place):
            part = "whole" if entry["subsample"] == 1 else f"1 step in {entry['subsample']}"
            shown = f"{entry['trajectories']}, {part}" if entry["trajectories"] else "none"
            there = f"{entry['seeds_there']} of {entry['seeds']}"
            if entry["method"] == "bc":
                needed = "0" if entry["there"] else f"never: score {_interval(entry['score'])}"
                labels = f"{entry['labels']:,.0f}"
            else:
                needed = _steps(entry["env_steps"])
                labels = "–" if entry["labels"]["mean"] is None else f"{entry['labels']['mean']:,.0f}"
            rows.append([env_id, NAMES[entry["method"]], shown, labels, there, needed])
    return table(["environment", "method", "trajectories", "labels by then", "seeds there", "environment steps"], rows)


def _budget(settings: Mapping[str, Any]) -> str:
    steps = ", ".join(f"{task['env_steps']:,} on {env_id}" for env_id, task in settings.items())
    trained = [env_id for env_id, task in settings.items() if task["expert"] == "shipped"]
    own = f" The expert of {' and '.join(trained)} is PPO itself after more steps than that." if trained else ""
    return f"GAIL and PPO have {steps}.{own}"


def _steps(entry: Mapping[str, Any]) -> str:
    value, low, high = ("never" if v is None else f"{v:,.0f}" for v in (entry["iqm"], *entry["ci95"]))
    return "never" if value == low == high == "never" else f"{value} [{low}, {high}]"


def _setup(settings: Mapping[str, Any], tasks: Mapping[str, Any]) -> str:
    rows = []
    for env_id, task in settings.items():
        level = tasks[env_id]["expert"]
        shown = f"`{task['expert']}`, {level['mean']:,.1f} ± {level['std']:,.1f} over {level['episodes']} episodes"
        rounds, gail = task["rounds"], task["gail_rounds"]
        options = [
            ", ".join(f"{name} {value}" for name, value in one.items()) or "the defaults"
            for one in (task["discriminator"] | task["gail_ppo"], task["ppo"], task["dagger"])
        ]
        rows.append(
            [
                env_id,
                shown,
                f"{task['env_steps']:,}",
                f"{gail['num_envs']} × {gail['steps_per_round']}; {options[0]}",
                f"{rounds['num_envs']} × {rounds['steps_per_round']}; {options[1]}",
                options[2],
                f"{task['clone_steps']:,}",
            ]
        )
    return table(
        ["", "expert, its return", "steps of GAIL and PPO", "a round of GAIL", "and of PPO", "DAgger", "steps of BC"],
        rows,
    )
