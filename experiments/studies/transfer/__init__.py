"""The study of transfer: a reward learned in one environment, used in another (Fu, Luo & Levine 2018, section 7).

Experts demonstrate in the first environment, where AIRL and GAIL imitate them. AIRL's reward is frozen, and a fresh
policy is trained on it in the second environment, whose barrier has moved or whose ant has two crippled legs. GAIL's
reward is tied to its policy, so its policy is transferred.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments.studies.common import Result, Run, execute, with_interval, write
from experiments.studies.transfer import learners
from experiments.studies.transfer.figures import maze_rewards, returns_and_quality
from experiments.studies.transfer.page import page
from experiments.studies.transfer.planning import planned
from experiments.studies.transfer.worlds import WORLDS
from lit_imitation.errors import ConfigError
from lit_imitation.rollout.random_return import random_return
from lit_imitation.utils.versions import versions

AIRLS = ("airl_state", "airl_state_action")
IMITATORS = (*AIRLS, "gail")
PAPER = {
    "maze": {"airl_state": -8.82, "airl_state_action": -31.2, "gail": -29.9, "true": -8.45},
    "ant": {"airl_state": 130.3, "airl_state_action": -41.4, "gail": -58.8, "true": 315.5},
}
"""Mean returns in the second environment, table 1 of the paper."""


@dataclass(frozen=True)
class Task:
    """Settings of one pair of environments."""

    world: str
    """A key of `WORLDS`."""
    seeds: Mapping[str, int]
    """Number of seeds of each row: airl_state, airl_state_action, gail and true."""
    rounds: Mapping[str, Any]
    """Arguments of the DataModules of all runs."""
    expert_steps: int
    """Environment steps of the expert."""
    imitation_steps: int
    """Environment steps of GAIL and AIRL."""
    transfer_steps: int
    """Environment steps of a fresh policy in the second environment."""
    ppo: Mapping[str, Any]
    """Arguments of `PPO` on a fixed reward, true or learned."""
    temperature: float
    """Weight of the entropy in the expert's objective."""
    learner: Mapping[str, Any]
    """Arguments of `PPO` with a discriminator, and of the expert."""
    airl: Mapping[str, Any]
    """Arguments of `AIRLDiscriminator`."""
    gail: Mapping[str, Any]
    """Arguments of `Discriminator`."""
    steps: Mapping[str, Any]
    """Arguments of `AIRL` and `GAIL`."""
    of_actions: Mapping[str, Any] = field(default_factory=dict)
    """Differences in `airl` where r reads the action too."""
    demonstrations: int = 50
    """Number of expert episodes."""
    expert_seed: int = 1
    episodes: int = 50
    """Number of episodes measured at the end of each run."""


MAZE = Task(
    "maze",
    seeds=dict.fromkeys((*IMITATORS, "true"), 5),
    rounds={"num_envs": 20, "steps_per_round": 100, "rounds_per_epoch": 30, "eval_episodes": 20},
    expert_steps=240_000,
    imitation_steps=300_000,
    transfer_steps=420_000,
    ppo={
        "batch_size": 500, "learning_rate": 1e-3, "epochs": 5, "gamma": 0.995, "gae_lambda": 0.98,
        "entropy_coefficient": 0.3, "initial_std": 5.0,
    },
    temperature=0.2,
    learner={"batch_size": 250, "learning_rate": 1e-3, "epochs": 5, "gae_lambda": 0.9},
    airl={"hidden_sizes": [16], "potential_hidden_sizes": [128, 128], "activation": "relu"},
    gail={"hidden_sizes": [32, 32], "activation": "relu", "reward": "logit"},
    steps={"discriminator_steps": 16, "discriminator_batch_size": 512, "discriminator_learning_rate": 1e-3},
    demonstrations=1000,
)  # fmt: skip
ANT = Task(
    "ant",
    seeds={"airl_state": 3, "airl_state_action": 1, "gail": 3, "true": 1},
    rounds={"num_envs": 32, "steps_per_round": 128, "rounds_per_epoch": 25, "eval_episodes": 8},
    expert_steps=1_000_000,
    imitation_steps=1_000_000,
    transfer_steps=1_000_000,
    ppo={"batch_size": 256, "target_kl": 0.02, "initial_std": 0.5, "compile": True},
    temperature=0.1,
    learner={"batch_size": 256, "target_kl": 0.02, "compile": True},
    airl={"hidden_sizes": [], "potential_hidden_sizes": [256, 256], "activation": "relu", "reward_decay": 0.05},
    of_actions={"hidden_sizes": [32], "reward_decay": 0.0},
    gail={"reward": "logit", "gradient_penalty": 1.0},
    steps={
        "discriminator_steps": 16,
        "discriminator_batch_size": 1024,
        "discriminator_learning_rate": 1e-3,
        "replay_rounds": 5,
    },
    demonstrations=20,
    episodes=32,
)


@dataclass(frozen=True)
class Settings:
    """Settings; the defaults are the full study."""

    tasks: tuple[Task, ...] = (MAZE, ANT)

    def with_seeds(self, seeds: int) -> Settings:
        """These settings with another number of seeds in each row."""
        return replace(self, tasks=tuple(replace(t, seeds=dict.fromkeys(t.seeds, seeds)) for t in self.tasks))

    def with_tasks(self, names: Sequence[str]) -> Settings:
        """These settings with only the named tasks.

        Raises:
            ConfigError: A task is unknown.
        """
        known = {task.world: task for task in self.tasks}
        for name in names:
            if name not in known:
                raise ConfigError(f"--tasks {name}: the study of transfer has {', '.join(known)}")
        return replace(self, tasks=tuple(task for name, task in known.items() if name in names))


QUICK = Settings(
    tasks=tuple(
        replace(
            task,
            seeds=dict.fromkeys(task.seeds, 2 if task.world == "maze" else 1),
            rounds={"num_envs": 8, "steps_per_round": steps, "rounds_per_epoch": 2, "eval_episodes": 4},
            expert_steps=8 * steps * 4,
            imitation_steps=8 * steps * 4,
            transfer_steps=8 * steps * 4,
            ppo=dict(task.ppo) | {"compile": False, "epochs": 2},
            learner=dict(task.learner) | {"compile": False, "epochs": 2},
            demonstrations=4,
            episodes=4,
        )
        for task, steps in ((MAZE, 100), (ANT, 32))
    )
)
"""A miniature in about a minute; its numbers mean nothing."""


def run(out: Path, settings: Settings, jobs: int = 1) -> dict[str, Any]:
    """Train the missing runs, draw the figures, and write `out/transfer.json` and the page `out/transfer.md`.

    `out/runs` keeps the result of every run, so an interrupted study resumes.

    Returns:
        The content of `transfer.json`.

    Raises:
        MissingExtraError: An environment is not installed.
    """
    directory = out / "runs"
    experts = [
        _reinforced(task, "source", task.expert_seed, task.expert_steps, task.learner, "expert", task.temperature)
        for task in settings.tasks
    ]
    taught = execute(experts, directory, jobs)
    first = [
        {
            row: [_first(task, row, seed, expert, directory) for seed in range(count)]
            for row, count in task.seeds.items()
        }
        for task, expert in zip(settings.tasks, experts, strict=True)
    ]
    second = [
        {row: [_second(task, row, seed, one, directory) for seed, one in enumerate(runs[row])] for row in AIRLS}
        for task, runs in zip(settings.tasks, first, strict=True)
    ]
    learned, transferred = _all(first, directory, jobs), _all(second, directory, jobs)
    plans = [_plans(task, runs, directory) for task, runs in zip(settings.tasks, first, strict=True)]
    exact = _all(plans, directory, jobs)
    tasks = {
        task.world: summarize(task, expert, *results)
        for task, expert, results in zip(
            settings.tasks, taught, zip(learned, transferred, exact, strict=True), strict=True
        )
    }
    summary = {"study": "transfer", "settings": asdict(settings), "tasks": tasks, "versions": versions()}
    returns_and_quality(tasks, out / "transfer")
    for task, imitated, moved in zip(settings.tasks, learned, transferred, strict=True):
        if task.world == "maze":
            drawn = {row: (imitated[row][0], moved.get(row, imitated[row])[0]) for row in IMITATORS}
            maze_rewards(drawn, out / "maze_rewards")
    write(out, summary, page)
    return summary


def _all(groups: Sequence[Mapping[str, Sequence[Run]]], directory: Path, jobs: int) -> list[dict[str, list[Result]]]:
    """The results of all runs, by task and row."""
    results = iter(execute([run for group in groups for runs in group.values() for run in runs], directory, jobs))
    return [{row: [next(results) for _ in runs] for row, runs in group.items()} for group in groups]


def _reinforced(
    task: Task,
    where: str,
    seed: int,
    env_steps: int,
    ppo: Mapping[str, Any],
    name: str,
    temperature: float | None = None,
) -> Run:
    arguments = {
        "world": task.world, "where": where, "rounds": dict(task.rounds) | {"env_steps": env_steps},
        "ppo": dict(ppo), "episodes": task.episodes, "seed": seed, "temperature": temperature,
    }  # fmt: skip
    return Run(f"{task.world}-{name}", learners.reinforced, arguments)


def _first(task: Task, row: str, seed: int, expert: Run, directory: Path) -> Run:
    """A run without a learned reward: an imitator in the source, or RL on the true reward in the target."""
    if row == "true":
        return _reinforced(task, "target", seed, task.transfer_steps, task.ppo, f"true-seed{seed}")
    arguments = {
        "world": task.world, "method": row, "rounds": dict(task.rounds) | {"env_steps": task.imitation_steps},
        "ppo": dict(task.learner), "discriminator": _discriminator(task, row),
        "steps": dict(task.steps), "teacher": dict(expert.arguments), "demonstrations": task.demonstrations,
        "episodes": task.episodes, "seed": seed,
    }  # fmt: skip
    return Run(f"{task.world}-{row}-seed{seed}", learners.adversarial, arguments, {"expert": expert.file(directory)})


def _discriminator(task: Task, row: str) -> dict[str, Any]:
    if row == "gail":
        return dict(task.gail)
    return dict(task.airl) | (dict(task.of_actions) if row == "airl_state_action" else {})


def _second(task: Task, row: str, seed: int, imitator: Run, directory: Path) -> Run:
    """The run of a fresh policy in the target, on the reward of `imitator`."""
    run = _reinforced(task, "target", seed, task.transfer_steps, task.ppo, f"{row}-transfer-seed{seed}")
    return run._replace(
        arguments=dict(run.arguments) | {"origin": dict(imitator.arguments)},
        inputs={"reward": imitator.file(directory)},
    )


def _plans(task: Task, first: Mapping[str, Sequence[Run]], directory: Path) -> dict[str, list[Run]]:
    """Planning runs on every learned reward of the maze and on the true one; the ant's states are not finite."""
    if task.world != "maze":
        return {}
    plans: dict[str, list[Run]] = {}
    for row, runs in first.items():
        plans[row] = []
        for seed, one in enumerate(runs[:1] if row == "true" else runs):
            run = Run(f"{task.world}-{row}-planned-seed{seed}", planned, {"episodes": task.episodes, "seed": seed})
            if row != "true":
                run = run._replace(
                    arguments=dict(run.arguments) | {"origin": dict(one.arguments)},
                    inputs={"reward": one.file(directory)},
                )
            plans[row].append(run)
    return plans


def summarize(
    task: Task,
    expert: Result,
    learned: Mapping[str, Sequence[Result]],
    transferred: Mapping[str, Sequence[Result]],
    exact: Mapping[str, Sequence[Result]],
) -> dict[str, Any]:
    """Summary of one pair of environments."""
    pair = WORLDS[task.world]
    zero = random_return(pair.target)
    measured = dict(learned) | dict(transferred)
    final = {row: [float(result["returns"].mean()) for result in measured[row]] for row in learned}
    one = float(np.mean(final["true"]))
    rows = {
        row: with_interval(values) | {
            "share_of_gap": with_interval((np.array(values) - zero) / (one - zero)),
            "paper": PAPER[task.world][row],
        }
        for row, values in final.items()
    }  # fmt: skip
    return {
        "source": pair.source,
        "target": pair.target,
        "random_return": zero,
        "random_return_in_source": random_return(pair.source),
        "expert": float(expert["returns"].mean()),
        "demonstrated_return": float(np.mean([result["shown_returns"].mean() for result in learned["gail"]])),
        "rows": rows,
        "imitation": {
            row: with_interval([result["source_returns"].mean() for result in learned[row]]) for row in IMITATORS
        },
        "policy": {row: with_interval([result["returns"].mean() for result in learned[row]]) for row in AIRLS},
        "planned": {
            row: with_interval([result["returns"].mean() for result in results]) for row, results in exact.items()
        },
        "quality": {
            row: {
                name: with_interval([float(result[name]) for result in learned[row]])
                for name in ("correlation", "epic")
            }
            for row in IMITATORS
        },
    }
