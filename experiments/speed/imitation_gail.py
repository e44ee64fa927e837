"""The `imitation` library's GAIL and AIRL as a subprocess that times itself; runs in an environment of its own.

One JSON a line. The first from stdin says what to train, and is answered by `{"versions": …}`:

    {"method": "GAIL" | "AIRL", "env_id", "demonstrations": "FILE.npz", "num_envs", "algorithm": {…}, "ppo": {…}}
    {"method": "GAIL", "env_id", "demonstrations": "FILE.npz", "num_envs", "tuned": "NAME"}

`algorithm` and `ppo` are arguments of the library's and of Stable-Baselines3's classes, `tuned` the name of a file of
settings that the library brings along. Then `{"seed": n}` makes a learner, and is answered by `{"settings"}`, what that
file holds; `{"rounds": n}` trains it on, answered by `{"seconds", "cpu_seconds", "env_steps"}`; and `{"episodes": n}`
plays its mode, answered by `{"returns"}`.
"""

import contextlib
import json
import os
import sys
import time
from importlib.metadata import version
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
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy

torch.set_num_threads(1)


def read(path):
    """Demonstrations whose rows need not follow one another."""
    arrays = np.load(path, allow_pickle=False)
    return Transitions(
        obs=arrays["observations"],
        acts=arrays["actions"],
        infos=np.array([{}] * len(arrays["actions"])),
        next_obs=arrays["next_observations"],
        dones=arrays["terminals"],
    )


def tuned(name, num_envs):
    """Settings out of the library's own file, which names classes in a notation that only its scripts read."""
    text = files("imitation").joinpath(f"scripts/config/tuned_hps/{name}.json").read_text()
    given = json.loads(text)
    ppo = given["rl"]["rl_kwargs"] | {"n_steps": given["rl"]["batch_size"] // num_envs}
    # The classes that the file names; it gives the layers in a form that Stable-Baselines3 no longer takes.
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
        """That many rounds, and how long they took."""
        before, wall, cpu = self.trainer.gen_algo.num_timesteps, time.perf_counter(), time.process_time()
        self.trainer.train(rounds * self.trainer.gen_train_timesteps)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        return {"seconds": wall, "cpu_seconds": cpu, "env_steps": self.trainer.gen_algo.num_timesteps - before}

    def evaluate(self, episodes):
        """Returns of that many, of the environment's own reward."""
        returns, _ = evaluate_policy(
            self.trainer.policy, self.evaluation, episodes, deterministic=True, return_episode_rewards=True
        )
        return {"returns": [float(one) for one in returns]}

    def close(self):
        """Close the environments."""
        self.venv.close()
        self.evaluation.close()


answers = sys.stdout
task = json.loads(sys.stdin.readline())
packages = ("imitation", "torch", "stable-baselines3", "gymnasium", "mujoco", "numpy")
print(json.dumps({"versions": {name: version(name) for name in packages}}), file=answers, flush=True)

learner = None
for line in sys.stdin:
    request = json.loads(line)
    with contextlib.redirect_stdout(sys.stderr):  # it prints its statistics; stdout is for answers
        if "seed" in request:
            if learner is not None:
                learner.close()
            learner = Learner(task, request["seed"])
            answer = {"settings": learner.file}
        elif "rounds" in request:
            answer = learner.train(request["rounds"])
        else:
            answer = learner.evaluate(request["episodes"])
    print(json.dumps(answer), file=answers, flush=True)
