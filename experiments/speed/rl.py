"""Environment steps per second while learning: our PPO and SAC, Stable-Baselines3's, and the bare environment.

Everything runs on one thread, pinned to one core (EnvPool steps in a thread of its own, which then need not be woken on
another core). The contenders take turns and a ratio is taken within each turn. The work is equal: number of
environments, rounds, epochs, minibatches and network sizes. Ours is the command `fit` with logging, without evaluation
and checkpoints. The first rounds of both sides, in which ours compiles its gradient, are not counted.
Stable-Baselines3 steps Gymnasium's environments one after the other (`make_vec_env`), ours uses `backend: auto`.

The last comparison runs the recipe `configs/ppo/hopper.yaml` unchanged against the bare `env.step` of its environments.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import torch
import yaml
from lightning import Callback

from experiments.markdown import table
from experiments.speed.common import ROOT, machine, measured, ratios, run_fit, save
from lit_imitation import make
from lit_imitation.data import rollout_module
from lit_imitation.training.lightning_cli import CLI

RECIPE = ROOT / "configs" / "ppo" / "hopper.yaml"
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
    """The time at each round's end, and the environment steps until then."""

    def __init__(self) -> None:
        self.ended: list[float] = []
        self.env_steps: list[int] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any, **kwargs: Any) -> None:
        """Record both."""
        self.ended.append(time.perf_counter())
        self.env_steps.append(pl_module.env_steps)


def fit(config: dict[str, Any], warmup: int) -> dict[str, float]:
    """Seconds per round of a run of `fit` after the first `warmup` rounds, in total and per part, and its transitions.

    `reward` includes the discriminator's steps where there is one.
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

    class Timed(CLI):
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
                learner.relabel_rewards = timed(learner.relabel_rewards, "reward")
                learner.learner.update = timed(learner.learner.update, "update")

            learner.build = building

        def after_fit(self) -> None:
            pass

    rollout_module.rounds = timed_rounds  # type: ignore[assignment]
    torch._dynamo.reset()  # a process compiles one function for a limited number of objects
    try:
        run_fit(config, Timed)
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
    """Seconds per round of the recipe, and of the same number of steps of the bare environment."""
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
        runs = measured(contenders, options.repeats, name)
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
    print(f"\n{table(rows[0], rows[1:])}")
    print(f"\nconfigs/ppo/hopper.yaml runs at {share['median']:.2f} of the bare environment's rate")
    print(f"(target ≥ {BARE_LIMIT}); parts of a round: {result['recipe']['seconds'][-1]}")
    print(f"\nwritten: {save('rl', result)}")
