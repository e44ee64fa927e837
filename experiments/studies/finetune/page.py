"""The page that shows the study of fine-tuning, every number in it from the study's own results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.markdown import table


def page(summary: Mapping[str, Any]) -> str:
    """Markdown with the figure beside it."""
    settings = {task["env_id"]: task for task in summary["settings"]["tasks"]}
    tasks = summary["tasks"]
    return f"""\
# Past the expert: imitation first, reinforcement after

    lit-imitation study finetune --out DIR       (--quick: the same path in less than a minute)
    make figures                                 (this page and its figure)

A clone is as good as its expert at best. But it is a policy, and `RL` starts from any (`model.start`): here PPO goes on
from the clone of a **mediocre expert** on the environment's own reward, and is set against the clone alone and against
PPO from scratch, with the same networks and settings and as many environment steps.

![Return against environment steps](finetune.png)

Thick lines are means over seeds with 95 % bootstrap intervals (too narrow with so few seeds), thin lines the seeds;
{_words(settings, "rounds", "eval_episodes")} episodes at each point, played with the policy's mode. The first point is
the policy before the first step; that of an untrained one can lie below the panel. The fine-tuned line is flat at first
while only the value function learns; those steps count.

{_returns(tasks)}

The policies at the end of training, by their mode, over {_words(settings, "episodes")} episodes a seed that no curve
has seen; means over seeds, and for the expert over episodes, with 95 % bootstrap intervals. Differences below are
paired by seed; those on the way are of the curves.

{_differences(tasks)}

"Over training" is the mean of the curve over all steps (the area below it). "Steps to the expert" is where the mean
curve first reaches the expert's mode. **An interval that holds 0 is a lead that so few seeds do not establish.** Given
enough steps PPO from scratch gets there as well, so what is left of the lead depends on where one stops; what a clone
saves is steps in the environment, and the returns of a bad policy on the way. The steps of the expert's own training
are in no curve: an expert is what one has.

## How it is made

{_setup(settings, tasks)}

- **The expert** is PPO, trained by the study itself and stopped at the first validation of its mode that reaches the
  aim. It demonstrates by *drawing* its actions. The clone so learns a distribution, and PPO has something to explore
  with: a clone of the mode alone is next to certain of every action, and PPO has little to learn from. What it shows
  is worse than its mode, which is the expert's line in the figure, and so is what the clone is measured by.
- **The clone** is `BC` on the demonstrations of each seed, none held out, a network like that of PPO from scratch.
- **Fine-tuning** is `RL` with `start`: PPO as from scratch, with `warmup_rounds`. The clone's input standardization
  stays.
- **What was tuned**, with seed 100, which is not among those reported: that the expert draws. PPO made little of clones
  of its mode on LunarLander, with an entropy bonus in cloning too. PPO's settings were not searched: they are those of
  `experiments/tables/rl_returns.yaml` with batches of 128, annealed, and normalized on LunarLander too; the same on either
  side. The seed of the expert was chosen out of four on LunarLander and two on Hopper by its returns alone, for
  demonstrations clearly better than random and clearly short of solving the task.

Plotted numbers: [finetune.csv](finetune.csv); headline values, settings and versions: [finetune.json](finetune.json);
vector graphics: [finetune.svg](finetune.svg).
"""


def _words(settings: Mapping[str, Any], *keys: str) -> str:
    """A setting of every task: once if it is the same for all."""
    values = []
    for task in settings.values():
        for key in keys:
            task = task[key]
        values.append(task)
    return " and ".join(str(value) for value in dict.fromkeys(values))


def _interval(entry: Mapping[str, Any]) -> str:
    low, high = entry["ci95"]
    return f"{entry['mean']:,.1f} [{low:,.1f}, {high:,.1f}]"


def _returns(tasks: Mapping[str, Any]) -> str:
    rows = [
        [
            env_id,
            str(task["seeds"]),
            f"{task['random_return']:,.1f}",
            _interval(task["expert"]),
            _interval(task["clone"]),
            _interval(task["scratch"]),
            f"**{task['finetuned']['mean']:,.1f}**{_interval(task['finetuned']).partition(' ')[2].join((' ', ''))}",
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
        rounds, ppo = task["rounds"], ", ".join(f"{name} {value}" for name, value in task["ppo"].items())
        start = ", ".join(f"{name} {value}" for name, value in task["start"].items())
        rows.append(
            [
                env_id,
                f"aim {task['aim']:g}, seed {task['expert_seed']}, {measured['expert']['env_steps']:,} steps",
                f"{task['demonstrations']} episodes, {measured['labels']:,.0f} labels, "
                f"return {measured['demonstrated_return']:,.1f}",
                f"{task['env_steps']:,} steps, {rounds['num_envs']} × {rounds['steps_per_round']} a round, {ppo}",
                start,
            ]
        )
    return table(["", "expert", "demonstrations (mean over seeds)", "PPO", "and from the clone"], rows)
