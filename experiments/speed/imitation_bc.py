"""The `imitation` library's BC as a worker that times itself; runs in a virtual environment without our package.

The first request is `{"data": "FILE.npz", "batch_size", "hidden_sizes"}`; then `{"steps": N}` is answered by
`{"seconds_per_step": t}`.
"""

import os
import time

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import gymnasium
import numpy as np
import torch
from imitation.algorithms.bc import BC
from imitation.data.types import Transitions
from imitation_serve import serve
from stable_baselines3.common.policies import ActorCriticPolicy

torch.set_num_threads(1)
torch.manual_seed(0)


def start(request):
    """Make the trainer."""
    arrays = np.load(request["data"], allow_pickle=False)
    observations, actions = arrays["observations"], arrays["actions"]
    demonstrations = Transitions(
        obs=observations,
        acts=actions,
        infos=np.array([{}] * len(actions)),
        next_obs=observations,  # its batches have this field, but BC does not read it
        dones=arrays["terminals"] | arrays["timeouts"],
    )
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, observations.shape[1:], np.float32)
    action_space = gymnasium.spaces.Discrete(int(actions.max()) + 1)
    policy = ActorCriticPolicy(
        observation_space,
        action_space,
        lr_schedule=lambda _: 1e-3,
        # As a user writes two hidden layers; the library adds a value function of the same size, which stays untrained.
        net_arch=request["hidden_sizes"],
        activation_fn=torch.nn.ReLU,
    )
    trainer = BC(
        observation_space=observation_space,
        action_space=action_space,
        rng=np.random.default_rng(0),
        policy=policy,
        demonstrations=demonstrations,
        batch_size=request["batch_size"],
        device="cpu",
    )

    def train(request):
        started = time.perf_counter()
        trainer.train(n_batches=request["steps"])
        return {"seconds_per_step": (time.perf_counter() - started) / request["steps"]}

    return train


serve(start, ("imitation", "torch", "stable-baselines3", "gymnasium", "numpy"))
