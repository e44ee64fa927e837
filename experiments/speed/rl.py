"""Environment steps a second while learning: our PPO and SAC beside Stable-Baselines3's and the bare environment.

One thread, on one core to which all is pinned (EnvPool steps in a thread of its own, which then need not be woken on
another); the contenders take turns and a ratio is taken within each turn. Equal work: the same environments' number,
rounds, epochs, minibatches and network sizes. Ours is `fit` as the command runs it, logging on, evaluation and
checkpoints off; its first rounds, in which the gradient is compiled, are left out, as are theirs. Stable-Baselines3
steps Gymnasium's environments one after the other (`make_vec_env`), ours what `backend: auto` takes.

The last comparison runs the recipe `configs/ppo/hopper.yaml` as it is against the bare `env.step` of its environments.

`python -m experiments.speed.rl [--repeats 5]` writes `experiments/results/rl.json`.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import argparse
import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
import yaml
from lightning import Callback

from experiments.scores.readme import refresh
from experiments.speed.common import machine, ratios, save, table, turns
from lit_imitation import make
from lit_imitation.data import rollout_module
from lit_imitation.training import lightning_cli

HERE = Path(__file__).parent
RECIPE = HERE.parents[1] / "configs" / "ppo" / "hopper.yaml"
PPO = {"num_envs": 8, "steps_per_round": 256}
COMPARISONS: dict[str, dict[str, Any]] = {
    "PPO, CartPole-v1": {"env_id": "CartPole-v1", "learner": "PPO", "rounds": 8, "warmup": 3, "limit": 3.0, **PPO},
    "PPO, Hopper-v5": {"env_id": "Hopper-v5", "learner": "PPO", "rounds": 8, "warmup": 3, "limit": 3.0, **PPO},
    "SAC, Hopper-v5": {
        "env_id": "Hopper-v5",
        "learner": "SAC",
        "rounds": 30,
        "warmup": 8,
        "limit": 2.5,
        "num_envs": 1,
        "steps_per_round": 50,
    },
}
LEARNING_STARTS = 300
BARE_LIMIT = 0.5


class Clock(Callback):
    """When each round ended, and the environment steps by then."""

    def __init__(self) -> None:
        self.ended: list[float] = []
        self.env_steps: list[int] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any, **kwargs: Any) -> None:
        """Note it."""
        self.ended.append(time.perf_counter())
        self.env_steps.append(pl_module.env_steps)


def run(config: dict[str, Any], cli: type[lightning_cli.CLI]) -> None:
    """The command `fit` by this kind of `CLI`, without a word and in a directory that is gone afterwards."""
    torch._dynamo.reset()  # a process compiles a function for so many objects only
    given = lightning_cli.CLI
    lightning_cli.CLI = cli  # type: ignore[misc]
    directory = tempfile.mkdtemp()
    try:
        with (
            open(os.devnull, "w") as nowhere,
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            config["trainer"]["default_root_dir"] = directory
            lightning_cli.run("fit", ["--config", yaml.safe_dump(config)])
    finally:
        lightning_cli.CLI = given  # type: ignore[misc]
        shutil.rmtree(directory, ignore_errors=True)


def fit(config: dict[str, Any], warmup: int) -> dict[str, float]:
    """Seconds of a round in a run of `fit` after the first `warmup`, in all and within its parts, and its transitions.

    `reward` is the time that rewarding the round takes, with the discriminator's steps where there is one.
    """
    spent: dict[str, list[float]] = {"rollout": [], "reward": [], "update": []}
    clock = Clock()
    rounds = rollout_module.rounds

    def timed_rounds(*args: Any) -> Iterator[Any]:
        played = rounds(*args)
        while True:
            start = time.perf_counter()
            one = next(played, None)
            if one is None:
                return
            spent["rollout"].append(time.perf_counter() - start)
            yield one

    class Timed(lightning_cli.CLI):
        def before_fit(self) -> None:
            self.trainer.callbacks.append(clock)
            learner: Any = self.model

            def timed(work: Callable[..., Any], name: str) -> Callable[..., Any]:
                def clocked(*args: Any) -> Any:
                    start = time.perf_counter()
                    result = work(*args)
                    spent[name].append(time.perf_counter() - start)
                    return result

                return clocked

            build = learner.build

            def building(*args: Any) -> None:
                build(*args)
                learner.rewarded = timed(learner.rewarded, "reward")
                learner.learner.update = timed(learner.learner.update, "update")

            learner.build = building

        def after_fit(self) -> None:
            pass

    rollout_module.rounds = timed_rounds  # type: ignore[assignment]
    try:
        run(config, Timed)
    finally:
        rollout_module.rounds = rounds
    counted = len(clock.ended) - warmup
    parts = {name: sum(seconds[warmup:]) / counted for name, seconds in spent.items()}
    whole = (clock.ended[-1] - clock.ended[warmup - 1]) / counted
    steps = (clock.env_steps[-1] - clock.env_steps[warmup - 1]) / counted
    return {"round": whole, **parts, "overhead": whole - sum(parts.values()), "env_steps": steps}


def ours(task: dict[str, Any]) -> dict[str, float]:
    """Seconds of our round."""
    parameters: dict[str, Any] = {"compile": True}
    if task["learner"] == "SAC":
        parameters |= {"learning_starts": LEARNING_STARTS}
    learner = {"class_path": f"lit_imitation.{task['learner']}", "init_args": parameters}
    data = {name: task[name] for name in ("env_id", "num_envs", "steps_per_round")}
    data |= {"rounds_per_epoch": task["rounds"] + task["warmup"], "eval_episodes": 0}
    config = {
        "model": {"class_path": "lit_imitation.RL", "init_args": {"learner": learner}},
        "data": {"class_path": "lit_imitation.RolloutDataModule", "init_args": data},
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "enable_checkpointing": False},
    }
    return fit(config, task["warmup"])


def theirs(task: dict[str, Any]) -> dict[str, float]:
    """Seconds of as many steps in Stable-Baselines3."""
    from stable_baselines3 import PPO, SAC
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import VecNormalize

    stamps: list[float] = []
    round_steps = task["num_envs"] * task["steps_per_round"]

    class Stamp(BaseCallback):
        def _on_step(self) -> bool:
            if self.num_timesteps % round_steps == 0:
                stamps.append(time.perf_counter())
            return True

    envs: Any = make_vec_env(task["env_id"], task["num_envs"], seed=0)
    total = (task["rounds"] + task["warmup"]) * round_steps
    if task["learner"] == "PPO":
        envs = VecNormalize(envs)  # as ours standardizes observations and scales rewards
        model: Any = PPO("MlpPolicy", envs, n_steps=task["steps_per_round"], batch_size=64, device="cpu", seed=0)
    else:
        model = SAC("MlpPolicy", envs, learning_starts=LEARNING_STARTS, device="cpu", seed=0)
    model.learn(total, callback=Stamp())
    envs.close()
    counted = len(stamps) - task["warmup"]
    return {"round": (stamps[-1] - stamps[task["warmup"] - 1]) / counted}


def bare(env_id: str, num_envs: int, steps: int) -> float:
    """Seconds of `steps` steps of the bare environments, with random actions."""
    envs = make(env_id, num_envs, 0)
    envs.action_space.seed(0)
    actions = [envs.action_space.sample() for _ in range(steps)]
    envs.reset(seed=0)
    start = time.perf_counter()
    for action in actions:
        envs.step(action)
    seconds = time.perf_counter() - start
    envs.close()
    return seconds


def recipe_share() -> tuple[dict[str, float], float]:
    """A round of the recipe, and its steps in the bare environment."""
    config = yaml.safe_load(RECIPE.read_text())
    data = config["data"]["init_args"]
    data.pop("env_steps")
    data |= {"rounds_per_epoch": 40, "eval_episodes": 0}
    config["trainer"] = {"max_epochs": 1, "accelerator": "cpu", "enable_checkpointing": False}
    parts = fit(config, 10)
    return parts, bare(data["env_id"], data["num_envs"], 10 * data["steps_per_round"]) / 10


def main() -> None:
    """Measure, print tables, write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("comparisons", nargs="*", default=list(COMPARISONS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = machine() | {"comparisons": {}}
    rows = [["a round", "ours, s", "rollout", "update", "overhead", "SB3, s", "× as fast", "target"]]
    for name in options.comparisons:
        task = COMPARISONS[name]
        contenders = {"ours": lambda task=task: ours(task), "sb3": lambda task=task: theirs(task)}
        runs: dict[str, list[dict[str, float]]] = {"ours": [], "sb3": []}
        for side, contender in turns(contenders, options.repeats):
            runs[side].append(contender())
            print(name, side, runs[side][-1], flush=True)
        ratio = ratios([run["round"] for run in runs["sb3"]], [run["round"] for run in runs["ours"]])
        steps = task["num_envs"] * task["steps_per_round"]
        result["comparisons"][name] = {"env_steps_per_round": steps, "seconds": runs, "sb3_over_ours": ratio}
        parts = [
            f"{median(run[part] for run in runs['ours']):.3f}" for part in ("round", "rollout", "update", "overhead")
        ]
        rows.append(
            [
                name,
                *parts,
                f"{median(r['round'] for r in runs['sb3']):.3f}",
                f"{ratio['median']:.2f}",
                f"≥ {task['limit']}",
            ]
        )
    pairs = [recipe_share() for _ in range(options.repeats)]
    share = ratios([seconds for _, seconds in pairs], [parts["round"] for parts, _ in pairs])
    result["recipe"] = {"seconds": [parts | {"bare": seconds} for parts, seconds in pairs], "share_of_bare": share}
    print(f"\n{table(rows)}\n\nconfigs/ppo/hopper.yaml runs at {share['median']:.2f} of the bare environment's rate")
    print(f"(target ≥ {BARE_LIMIT}); parts of a round: {result['recipe']['seconds'][-1]}")
    print(f"\nwritten: {save('rl', result)}")
    refresh()


if __name__ == "__main__":
    main()
