"""The page of the study of sample efficiency; measured numbers come from the study's results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.markdown import estimate, options, table
from experiments.studies.sample_efficiency.architecture import WINDOW

OVERFITS = ": the discriminator overfits the expert's trajectories"
NAMES = {"bc": "BC", "dagger": "DAgger", "gail": "GAIL", "ppo": "PPO on the true reward"}


def page(summary: Mapping[str, Any]) -> str:
    """The page in Markdown, with links to the figures in the same folder."""
    settings = {task["env_id"]: task for task in summary["settings"]["tasks"]}
    tasks, aim = summary["tasks"], summary["settings"]["aim"]
    first = next(iter(settings.values()))
    return f"""\
# Sample efficiency: expert labels against environment steps

Choose a method by the resource you have: labels from an expert, or steps in an environment.

    python -m experiments study sample_efficiency --out DIR       (--quick: a miniature in about a minute)
    make figures                                                  (all studies, their figures and pages)

The less a method asks of the expert, the more environment steps it needs. **BC** uses demonstrations and no environment
steps. **DAgger** asks the expert about the states that it visits. **GAIL** uses few demonstrations and many steps.
**PPO** uses no expert, but it has the true reward, which the others do not see.

![Return against environment steps, and steps against labels](sample_efficiency.png)

*Left:* interquartile means over seeds with 95 % bootstrap intervals (too narrow with so few seeds); thin lines are
the seeds. BC, DAgger and GAIL of a seed have the same demonstrations: {_shown(settings)}. The axis is logarithmic,
because DAgger ends before the others are first measured. *Right:* environment steps at the first validation that
reaches {aim:g} of the expert, against the mean number of labels until then: demonstrated transitions, and for DAgger
also the answers of the expert. Dashes are GAIL's seeds. BC takes no steps: it is drawn at 0 if its final score is
{aim:g}, and otherwise at "never" with its score. Open marks never reached it. PPO needs no labels, and is a line.

{_scores(tasks, summary["pooled"])}

Normalized scores (0 random, 1 the expert) of the final policies, by their mode over {first["episodes"]} new episodes.
The last column pools seeds and environments, with an interval stratified by environment.

{_trade(tasks)}

The table has the environment steps to {aim:g} of the expert, interquartile means over seeds with intervals, and how
many seeds reached it: BC by its final episodes, the others at the first validation of 10 episodes that reaches it.
One lucky validation is enough, and the final score may be lower. A seed that never reaches it counts as later than
all others; the interquartile mean is omitted where it would include such a seed. {_budget(settings)}

## GAIL: the loop, and one run

![The loop of GAIL; accuracy of the discriminator, reward and return over training](gail_architecture.png)

*Left:* one round of `lit_imitation.GAIL` with `PPO`; small print has the names in a recipe. This run has no
`replay_rounds`. *Right:* the first seed above on {next(iter(settings))}. Accuracies are those on the expert's and the
learner's pairs during the discriminator's updates, and on the held-out trajectory, means over {WINDOW} rounds. Where
expert and learner cannot be distinguished, the accuracy approaches one half. The reward is the learner's, a mean over
as many rounds; thin lines are single rounds, and the outliers among them start an epoch, where all environments are
reset. The return is the environment's, which GAIL does not see: that of the mode in validation, and, thin, that of
the episodes with sampled actions that end in a round. {_accuracies(summary["gail_architecture"]["at_the_end"])}

## How it is made

{_setup(settings, tasks)}

- **The expert**, unless it is a scripted controller, demonstrates with sampled actions, as in GAIL's recipes. It
  answers DAgger with its mode. Its return is that of the mode, and so are the learners'.
- **BC** has the settings of `experiments/tables/bc_table.yaml`: 2×100 tanh, the same number of gradient steps of at
  most 64 transitions for any number of demonstrations, and an average of the last weights. On the right it also
  learns from whole trajectories.
- **DAgger, GAIL and PPO** have the settings of their recipes in `configs/`, with the steps above; nothing was tuned
  for the study. GAIL and DAgger hold out a tenth of their trajectories, at least one of two or more, and DAgger also
  of each round's; these count as labels.
- Steps are those of training, without the 10 episodes of each validation. The steps of the expert's own training are
  in no curve: the study assumes that an expert exists.

Plotted numbers: [sample_efficiency.csv](sample_efficiency.csv), [gail_architecture.csv](gail_architecture.csv);
headline values, settings and versions: [sample_efficiency.json](sample_efficiency.json); vector graphics:
[sample_efficiency.svg](sample_efficiency.svg), [gail_architecture.svg](gail_architecture.svg).
"""


def _interval(entry: Mapping[str, Any]) -> str:
    return estimate(entry["iqm"], entry["ci95"], ".2f")


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
    overfits = OVERFITS if learned is not None and kept is not None and kept <= learned - 0.1 else ""
    return f"The final accuracy is {known}{overfits}."


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
    head = ["environment", "method", "trajectories", "labels until then", "seeds that reach it", "environment steps"]
    return table(head, rows)


def _budget(settings: Mapping[str, Any]) -> str:
    steps = ", ".join(f"{task['env_steps']:,} on {env_id}" for env_id, task in settings.items())
    trained = [env_id for env_id, task in settings.items() if task["expert"] == "shipped"]
    own = f" The expert of {' and '.join(trained)} is PPO itself, trained for more steps." if trained else ""
    return f"GAIL and PPO train for {steps}.{own}"


def _steps(entry: Mapping[str, Any]) -> str:
    value, low, high = ("never" if v is None else f"{v:,.0f}" for v in (entry["iqm"], *entry["ci95"]))
    return "never" if value == low == high == "never" else f"{value} [{low}, {high}]"


def _setup(settings: Mapping[str, Any], tasks: Mapping[str, Any]) -> str:
    rows = []
    for env_id, task in settings.items():
        level = tasks[env_id]["expert"]
        shown = f"`{task['expert']}`, {level['mean']:,.1f} ± {level['std']:,.1f} over {level['episodes']} episodes"
        rounds, gail = task["rounds"], task["gail_rounds"]
        told = [
            options(one) or "the defaults"
            for one in (task["discriminator"] | task["gail_ppo"], task["ppo"], task["dagger"])
        ]
        rows.append(
            [
                env_id,
                shown,
                f"{task['env_steps']:,}",
                f"{gail['num_envs']} × {gail['steps_per_round']}; {told[0]}",
                f"{rounds['num_envs']} × {rounds['steps_per_round']}; {told[1]}",
                told[2],
                f"{task['clone_steps']:,}",
            ]
        )
    return table(
        ["", "expert, its return", "steps of GAIL and PPO", "a round of GAIL", "and of PPO", "DAgger", "steps of BC"],
        rows,
    )
