"""Stable-Baselines3 with the settings of one of our recipes: one seed, trained and evaluated, written as one JSON.

python -m experiments.peer_sb3 RECIPE SEED FILE
"""

from __future__ import annotations

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

from lit_imitation.utils.files import atomic_write

EPISODES = 100
NAMES = {"epochs": "n_epochs", "entropy_coefficient": "ent_coef", "updates_per_step": "gradient_steps"}
"""Our names of hyper-parameters and theirs, where they differ."""
OURS_ALONE = ("compile", "optimization", "normalize_observations", "normalize_rewards")


def train(recipe: dict[str, Any], seed: int) -> dict[str, Any]:
    """Train, then play 100 episodes with the mode of the final policy."""
    torch.set_num_threads(1)
    data, learner = recipe["data"]["init_args"], recipe["model"]["init_args"]["learner"]
    given = learner["init_args"]
    parameters = {NAMES.get(name, name): value for name, value in given.items() if name not in OURS_ALONE}
    algorithm = {"PPO": PPO, "SAC": SAC}[learner["class_path"].rpartition(".")[2]]
    normalize = given.get("normalize_observations", False)
    envs: Any = make_vec_env(data["env_id"], data["num_envs"], seed=seed)
    if normalize:
        envs = VecNormalize(envs, gamma=parameters["gamma"])
    if algorithm is PPO:
        parameters["n_steps"] = data["steps_per_round"]
    schedule = given.get("optimization", {}).get("schedule", "linear" if algorithm is PPO else "constant")
    if schedule == "linear":
        rate = parameters["learning_rate"]
        parameters["learning_rate"] = lambda remaining: rate * remaining
    model = algorithm("MlpPolicy", envs, seed=seed, device="cpu", **parameters)
    start = time.perf_counter()
    model.learn(data["env_steps"])
    seconds = time.perf_counter() - start
    training = [episode["r"] for episode in model.ep_info_buffer]
    evaluation: Any = make_vec_env(data["env_id"], 10, seed=10_000 + seed)
    if normalize:
        evaluation = VecNormalize(evaluation, training=False, norm_reward=False)
        evaluation.obs_rms = envs.obs_rms
    returns, _ = evaluate_policy(model, evaluation, EPISODES, return_episode_rewards=True)
    return {
        "seed": seed,
        "return_mean": float(np.mean(returns)),
        "return_std": float(np.std(returns)),
        "training_return": float(np.mean(training)),
        "env_steps": model.num_timesteps,
        "seconds": seconds,
        "versions": {p: version(p) for p in ("stable-baselines3", "torch", "gymnasium", "mujoco")},
    }


if __name__ == "__main__":
    recipe_file, seed_text, result_file = sys.argv[1:]
    trained = train(yaml.safe_load(Path(recipe_file).read_text(encoding="utf-8")), int(seed_text))
    atomic_write(Path(result_file), json.dumps(trained, indent=1))
