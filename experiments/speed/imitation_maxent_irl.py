"""The `imitation` library's MCE IRL as a worker that times itself; runs in a virtual environment without our package.

The first request is `{"world": "FILE.npz", "horizon", "hidden_sizes", "dtype"}`; the file has dense transitions, the
start distribution, features, and the demonstrations' visits. Then `{"iterations": N}` is answered by
`{"seconds": […]}`, one value per iteration.

`python imitation_maxent_irl.py fixture FILE.npz` instead writes the library's results in its own random-transition
environment: values, policy and occupancy of the true reward, and of the reward that it recovers from that occupancy.
"""

import os
import sys
import time
import warnings
from importlib.metadata import version

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before NumPy and torch are imported

import numpy as np
import torch
from imitation.algorithms.mce_irl import MCEIRL, mce_occupancy_measures, mce_partition_fh
from imitation.rewards.reward_nets import BasicRewardNet
from imitation_serve import serve
from seals.base_envs import TabularModelPOMDP
from seals.diagnostics.random_trans import RandomTransitionEnv

torch.set_num_threads(1)
torch.manual_seed(0)


def learner(env, demonstrated, hidden_sizes, **arguments):
    """The library's MCE IRL with a reward of the state's features."""
    net = BasicRewardNet(
        env.observation_space,
        env.action_space,
        hid_sizes=hidden_sizes,
        use_action=False,
        use_done=False,
        use_next_state=False,
    )
    return MCEIRL(demonstrated, env, net, np.random.default_rng(0), log_interval=None, **arguments)


def fixture(path):
    """Write the library's results in its own environment."""
    env = RandomTransitionEnv(
        n_states=16, n_actions=3, branch_factor=4, horizon=10, random_obs=True, obs_dim=6, generator_seed=42
    )
    arrays = {
        "transitions": env.transition_matrix,
        "start": env.initial_state_dist,
        "features": env.observation_matrix,
        "reward": env.reward_matrix,
    }

    def add(name, reward):
        for discount in (1.0, 0.9):
            value, _, policy = mce_partition_fh(env, reward=reward, discount=discount)
            _, visits = mce_occupancy_measures(env, reward=reward, pi=policy, discount=discount)
            arrays.update(
                {f"{name}_{key}_{discount}": x for key, x in (("value", value), ("policy", policy), ("visits", visits))}
            )

    add("true", env.reward_matrix)
    irl = learner(env, arrays["true_visits_1.0"], [], linf_eps=2e-5, grad_l2_eps=1e-7)
    arrays["recovered_visits"] = irl.train(max_iter=20000)
    with torch.no_grad():
        observations = torch.as_tensor(env.observation_matrix, dtype=irl.reward_net.dtype)
        arrays["recovered_reward"] = irl.reward_net(observations, None, None, None).numpy().astype(np.float64)
    add("recovered", arrays["recovered_reward"])
    arrays["imitation_version"] = np.array(version("imitation"))
    np.savez_compressed(path, **arrays)


def start(request):
    """Make the learner, and time each of its iterations."""
    world = np.load(request["world"], allow_pickle=False)
    env = TabularModelPOMDP(
        transition_matrix=world["transitions"].astype(request["dtype"]),
        observation_matrix=world["features"].astype(np.float32),
        reward_matrix=np.zeros(len(world["start"])),
        horizon=request["horizon"],
        initial_state_dist=world["start"],
    )
    irl = learner(env, world["visits"], request["hidden_sizes"], linf_eps=0.0, grad_l2_eps=0.0)
    step, spent = irl._train_step, []

    def timed(*args):
        started = time.perf_counter()
        result = step(*args)
        spent.append(time.perf_counter() - started)
        return result

    irl._train_step = timed

    def train(request):
        spent.clear()
        irl.train(max_iter=request["iterations"])
        return {"seconds": list(spent)}

    return train


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    if sys.argv[1:2] == ["fixture"]:
        fixture(sys.argv[2])
    else:
        serve(start, ("imitation", "seals", "torch", "numpy", "scipy"))
