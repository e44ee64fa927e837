"""The `imitation` library's BC as a subprocess that times itself; runs in an environment of its own, without ours.

One JSON a line: first from stdin what to train on, `{"data": "FILE.npz", "batch_size", "hidden_sizes"}`, answered by
`{"versions": …}`; then for each `{"steps": N}` the answer `{"seconds_per_step": t}`.
"""

import contextlib
import json
import os
import sys
import time
from importlib.metadata import version

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import gymnasium
import numpy as np
import torch
from imitation.algorithms.bc import BC
from imitation.data.types import Transitions
from stable_baselines3.common.policies import ActorCriticPolicy

torch.set_num_threads(1)
torch.manual_seed(0)

answers = sys.stdout
request = json.loads(sys.stdin.readline())
arrays = np.load(request["data"], allow_pickle=False)
observations, actions = arrays["observations"], arrays["actions"]
demonstrations = Transitions(
    obs=observations,
    acts=actions,
    infos=np.array([{}] * len(actions)),
    next_obs=observations,  # not read by cloning, but its batches have it
    dones=arrays["terminals"] | arrays["timeouts"],
)
observation_space = gymnasium.spaces.Box(-np.inf, np.inf, observations.shape[1:], np.float32)
action_space = gymnasium.spaces.Discrete(int(actions.max()) + 1)
policy = ActorCriticPolicy(
    observation_space,
    action_space,
    lr_schedule=lambda _: 1e-3,
    # What its user writes for two hidden layers; the library adds a value function of the same size, which it carries
    # along without training it.
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
packages = ("imitation", "torch", "stable-baselines3", "gymnasium", "numpy")
print(json.dumps({"versions": {name: version(name) for name in packages}}), file=answers, flush=True)

for line in sys.stdin:
    steps = json.loads(line)["steps"]
    with contextlib.redirect_stdout(sys.stderr):  # it prints its statistics; stdout is for answers
        start = time.perf_counter()
        trainer.train(n_batches=steps)
        seconds = time.perf_counter() - start
    print(json.dumps({"seconds_per_step": seconds / steps}), file=answers, flush=True)
