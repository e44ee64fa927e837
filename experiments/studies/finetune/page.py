"""The page of the study of fine-tuning; every number comes from the study's results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.markdown import estimate, options, table


def page(summary: Mapping[str, Any]) -> str:
    """The page in Markdown, with links to the figure in the same folder."""
    settings = {task["env_id"]: task for task in summary["settings"]["tasks"]}
    tasks = summary["tasks"]
    return f"""\
# Past the expert: imitation first, then reinforcement learning

Train a policy beyond a mediocre expert: clone it, then continue with PPO from the clone.

    python -m experiments study finetune --out DIR       (--quick: a miniature in less than a minute)
    make figures                                         (all studies, their figures and pages)

A clone is at best as good as its expert. But it is a policy, and `RL` can start from any policy (`model.start`). Here
PPO continues from the clone of a **mediocre expert** on the environment's own reward. It is compared with the clone
alone and with PPO from scratch, with the same networks, settings and number of environment steps.

![Return against environment steps](finetune.png)

Thick lines are means over seeds with 95 % bootstrap intervals (too narrow with so few seeds); thin lines are the
seeds. Each point is a validation of {_words(settings, "rounds", "eval_episodes")} episodes by the policy's mode. The
first point is the policy before training; an untrained policy may lie below the panel. The fine-tuned line is flat at
first because only the value function learns; these steps count.

{_returns(tasks)}

The table shows the policies at the end of training, by their mode, over {_words(settings, "episodes")} new episodes per
seed: means over seeds (for the expert over episodes) with 95 % bootstrap intervals. The differences below are paired by
seed; those during training are differences of the curves.

{_differences(tasks)}

"Over training" is the mean of the curve over all steps. "Steps to the expert" is where the mean curve first reaches the
return of the expert's mode. **An interval that contains 0 is a lead that so few seeds do not establish.** With enough
steps PPO from scratch also gets there, so the final lead depends on where training stops. What a clone saves is
environment steps, and the low returns of an untrained policy. The steps of the expert's own training are not counted:
the study assumes that an expert exists.

## How it is made

{_setup(settings, tasks)}

- **The expert** is PPO, trained by the study and stopped at the first validation of its mode that reaches the aim. It
  demonstrates with *sampled* actions, so the clone learns a distribution and PPO can explore. A clone of the mode alone
  is almost certain of every action and leaves PPO little to learn from. Sampled demonstrations return less than the
  mode, which is the expert's line in the figure.
- **The clone** is `BC` on each seed's demonstrations, with no held-out data and the network of PPO from scratch.
- **Fine-tuning** is `RL` with `start`: PPO as from scratch, plus `warmup_rounds`. The clone's input standardization
  stays.
- **Tuning**, with seed 100, which is not reported: only that the expert samples. PPO gained little from clones of its
  mode on LunarLander, even with an entropy bonus in cloning. PPO's settings were not searched: they are those of
  `experiments/tables/rl_returns.yaml` with batches of 128, annealed, and normalized on LunarLander too; both sides have
  the same. The expert's seed was chosen from four on LunarLander and two on Hopper by its returns alone, so that
  demonstrations are clearly better than random and clearly short of solving the task.

Plotted numbers: [finetune.csv](finetune.csv); headline values, settings and versions: [finetune.json](finetune.json);
vector graphics: [finetune.svg](finetune.svg).
"""


def _words(settings: Mapping[str, Any], *keys: str) -> str:
    """A setting of every task, once if all tasks share it."""
    values = []
    for task in settings.values():
        for key in keys:
            task = task[key]
        values.append(task)
    return " and ".join(str(value) for value in dict.fromkeys(values))


def _interval(entry: Mapping[str, Any], bold: bool = False) -> str:
    return estimate(entry["mean"], entry["ci95"], ",.1f", bold)


def _returns(tasks: Mapping[str, Any]) -> str:
    rows = [
        [
            env_id,
            str(task["seeds"]),
            f"{task['random_return']:,.1f}",
            _interval(task["expert"]),
            _interval(task["clone"]),
            _interval(task["scratch"]),
            _interval(task["finetuned"], bold=True),
        ]
        for env_id, task in tasks.items()
    ]
    return table(
        ["return", "seeds", "random", "expert (mode)", "clone alone", "PPO from scratch", "BC, then PPO"], rows
    )


def _differences(tasks: Mapping[str, Any]) -> str:
    rows = []
    for env_id, task in tasks.items():
        reached = [task["curves"][name]["steps_to_expert"] for name in ("finetuned", "scratch")]
        rows.append(
            [
                env_id,
                _interval(task["finetuned_minus_clone"]),
                *(_interval(entry) for entry in task["finetuned_minus_scratch_on_the_way"].values()),
                _interval(task["finetuned_minus_scratch"]),
                _interval(task["finetuned_minus_scratch_over_training"]),
                " / ".join("never" if steps is None else f"{steps:,.0f}" for steps in reached),
            ]
        )
    head = [
        "BC, then PPO", "− the clone", "− scratch, after ¼ of the steps", "after ½", "at the end", "over training",
        "steps to the expert: it / scratch",
    ]  # fmt: skip
    return table(head, rows)


def _setup(settings: Mapping[str, Any], tasks: Mapping[str, Any]) -> str:
    rows = []
    for env_id, task in settings.items():
        measured = tasks[env_id]
        rounds = task["rounds"]
        rows.append(
            [
                env_id,
                f"aim {task['aim']:g}, seed {task['expert_seed']}, {measured['expert']['env_steps']:,} steps",
                f"{task['demonstrations']} episodes, {measured['labels']:,.0f} labels, "
                f"return {measured['demonstrated_return']:,.1f}",
                f"{task['env_steps']:,} steps, {rounds['num_envs']} × {rounds['steps_per_round']} a round, "
                f"{options(task['ppo'])}",
                options(task["start"]),
            ]
        )
    return table(["", "expert", "demonstrations (mean over seeds)", "PPO", "and from the clone"], rows)
