"""Stable-Baselines3's side of `rl_returns.py`: one task and seed, as its user would train it, written as one JSON.

python -m experiments.scores.sb3_returns TASK SEED DIRECTORY
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecNormalize

EPISODES = 100


def train(name: str, seed: int) -> dict[str, Any]:
    """Train, then play 100 episodes with the mode of the final policy."""
    torch.set_num_threads(1)
    task = yaml.safe_load((Path(__file__).parents[1] / "tables" / "rl_returns.yaml").read_text())[name]
    parameters = dict(task["hyperparameters"])
    envs: Any = make_vec_env(task["env_id"], task["num_envs"], seed=seed)
    if task["normalize"]:
        envs = VecNormalize(envs, gamma=parameters["gamma"])
    if parameters.pop("anneal", False):
        rate = parameters["learning_rate"]
        parameters["learning_rate"] = lambda remaining: rate * remaining
    algorithm = {"ppo": PPO, "sac": SAC}[task["algorithm"]]
    model = algorithm("MlpPolicy", envs, seed=seed, device="cpu", **parameters)
    start = time.perf_counter()
    model.learn(task["env_steps"])
    seconds = time.perf_counter() - start
    training = [episode["r"] for episode in model.ep_info_buffer]
    judge: Any = make_vec_env(task["env_id"], 10, seed=10_000 + seed)
    if task["normalize"]:
        judge = VecNormalize(judge, training=False, norm_reward=False)
        judge.obs_rms = envs.obs_rms
    returns, _ = evaluate_policy(model, judge, EPISODES, return_episode_rewards=True)
    return {
        "task": name,
        "seed": seed,
        "return_mean": float(np.mean(returns)),
        "return_std": float(np.std(returns)),
        "training_return": float(np.mean(training)),
        "env_steps": model.num_timesteps,
        "seconds": seconds,
        "versions": {p: version(p) for p in ("stable-baselines3", "torch", "gymnasium", "mujoco")},
    }


if __name__ == "__main__":
    task_name, seed_text, directory = sys.argv[1:]
    file = Path(directory) / f"{task_name}-{seed_text}.json"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(train(task_name, int(seed_text)), indent=1)
        file.with_suffix(".tmp").write_text(text)
        file.with_suffix(".tmp").rename(file)
        print(file, flush=True)
