"""The `imitation` library's GAIL and AIRL as a worker that times itself; runs in a virtual environment of its own.

The first request says what to train:

    {"method": "GAIL" | "AIRL", "env_id", "demonstrations": "FILE.npz", "num_envs", "algorithm": {…}, "ppo": {…}}
    {"method": "GAIL", "env_id", "demonstrations": "FILE.npz", "num_envs", "tuned": "NAME"}

`algorithm` and `ppo` are arguments of the library's and of Stable-Baselines3's classes; `tuned` is the name of a
settings file that comes with the library. Then `{"seed": n}` makes a learner and is answered by `{"settings"}`, the
content of that file; `{"rounds": n}` trains it, answered by `{"seconds", "cpu_seconds", "env_steps"}`; and
`{"episodes": n}` plays its mode, answered by `{"returns"}`.
"""

import json
import os
import time
from importlib.resources import files

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import numpy as np
import torch
from imitation.algorithms.adversarial.airl import AIRL
from imitation.algorithms.adversarial.gail import GAIL
from imitation.data.types import Transitions
from imitation.policies.base import NormalizeFeaturesExtractor
from imitation.rewards.reward_nets import BasicRewardNet, BasicShapedRewardNet, NormalizedRewardNet
from imitation.util.networks import RunningNorm
from imitation.util.util import make_vec_env
from imitation_serve import serve
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy

torch.set_num_threads(1)


def read(path):
    """Demonstrations; their rows need not be consecutive."""
    arrays = np.load(path, allow_pickle=False)
    return Transitions(
        obs=arrays["observations"],
        acts=arrays["actions"],
        infos=np.array([{}] * len(arrays["actions"])),
        next_obs=arrays["next_observations"],
        dones=arrays["terminals"],
    )


def tuned(name, num_envs):
    """Settings from the library's own file, which names classes in a notation that only its scripts read."""
    text = files("imitation").joinpath(f"scripts/config/tuned_hps/{name}.json").read_text()
    given = json.loads(text)
    ppo = given["rl"]["rl_kwargs"] | {"n_steps": given["rl"]["batch_size"] // num_envs}
    # The classes that the file names; its form of the layers is no longer accepted by Stable-Baselines3.
    policy = {
        "activation_fn": torch.nn.ReLU,
        "features_extractor_class": NormalizeFeaturesExtractor,
        "features_extractor_kwargs": {"normalize_class": RunningNorm},
        "net_arch": given["policy"]["policy_kwargs"]["net_arch"][0],
    }
    return {"algorithm": given["algorithm_kwargs"], "ppo": ppo, "policy": policy, "file": given}


class Learner:
    """A trainer of the library, the number of its steps, and environments to evaluate it in."""

    def __init__(self, task, seed):
        torch.manual_seed(seed)
        rng = np.random.default_rng(seed)
        self.venv = make_vec_env(task["env_id"], rng=rng, n_envs=task["num_envs"])
        self.evaluation = make_vec_env(task["env_id"], rng=np.random.default_rng(seed + 1), n_envs=10)
        spaces = self.venv.observation_space, self.venv.action_space
        if "tuned" in task:
            settings = tuned(task["tuned"], task["num_envs"])
            reward = NormalizedRewardNet(BasicRewardNet(*spaces, normalize_input_layer=RunningNorm), RunningNorm)
        elif task["method"] == "AIRL":
            settings = task
            sizes = {"reward_hid_sizes": (64, 64), "potential_hid_sizes": (64, 64)}
            reward = BasicShapedRewardNet(*spaces, normalize_input_layer=RunningNorm, **sizes)
        else:
            settings = task
            reward = BasicRewardNet(*spaces, normalize_input_layer=RunningNorm, hid_sizes=(64, 64))
        generator = PPO(
            "MlpPolicy",
            self.venv,
            policy_kwargs=settings.get("policy"),
            device="cpu",
            seed=seed,
            **settings["ppo"],
        )
        self.file = settings.get("file")
        self.trainer = {"GAIL": GAIL, "AIRL": AIRL}[task["method"]](
            demonstrations=read(task["demonstrations"]),
            venv=self.venv,
            gen_algo=generator,
            reward_net=reward,
            allow_variable_horizon=True,
            **settings["algorithm"],
        )

    def train(self, rounds):
        """Train that many rounds; returns their seconds and environment steps."""
        before, wall, cpu = self.trainer.gen_algo.num_timesteps, time.perf_counter(), time.process_time()
        self.trainer.train(rounds * self.trainer.gen_train_timesteps)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        return {"seconds": wall, "cpu_seconds": cpu, "env_steps": self.trainer.gen_algo.num_timesteps - before}

    def evaluate(self, episodes):
        """Returns of that many episodes, by the environment's own reward."""
        returns, _ = evaluate_policy(
            self.trainer.policy, self.evaluation, episodes, deterministic=True, return_episode_rewards=True
        )
        return {"returns": [float(one) for one in returns]}

    def close(self):
        """Close the environments."""
        self.venv.close()
        self.evaluation.close()


def start(task):
    """Answer requests with the learner that the last `seed` made."""
    learner = None

    def answer(request):
        nonlocal learner
        if "seed" in request:
            if learner is not None:
                learner.close()
            learner = Learner(task, request["seed"])
            return {"settings": learner.file}
        if "rounds" in request:
            return learner.train(request["rounds"])
        return learner.evaluate(request["episodes"])

    return answer


serve(start, ("imitation", "torch", "stable-baselines3", "gymnasium", "mujoco", "numpy"))
