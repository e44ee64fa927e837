"""Sequence policies and demonstrated chunks for tests."""

from __future__ import annotations

import numpy as np
import torch
from gymnasium.spaces import Box

from lit_imitation.networks.film import Backbone
from lit_imitation.policies import (
    CVAEPolicy,
    DiffusionPolicy,
    FlowPolicy,
    MixturePolicy,
    QuantizedPolicy,
    VQBeTPolicy,
)
from lit_imitation.transitions import Transitions

VECTOR = Box(-np.inf, np.inf, (4,), np.float32)
ARM = Box(np.float32([-0.5, 2.0, -7.0]), np.float32([3.0, 2.5, -1.0]))
MATRIX = Box(-2, 1, (2, 3), np.float32)
UNBOUNDED = Box(-np.inf, np.inf, (2,), np.float32)
HEADS = {
    "mixture": (MixturePolicy, {"components": 3}),
    "mixture-censored": (MixturePolicy, {"components": 3, "censored": True}),
    "quantized": (QuantizedPolicy, {"codes": 5}),
    "quantized-residual": (QuantizedPolicy, {"codes": 4, "levels": 3, "focal_gamma": 2.0}),
    "vq-bet": (VQBeTPolicy, {"codes": 4, "latent_size": 3, "autoencoder_steps": 20}),
    "cvae": (CVAEPolicy, {"latent_size": 3, "reconstruction": "l1", "kl_weight": 0.05}),
    "cvae-gaussian": (CVAEPolicy, {"latent_size": 3, "backbone": "transformer"}),
    "diffusion": (DiffusionPolicy, {"steps": 4}),
    "diffusion-epsilon": (DiffusionPolicy, {"steps": 4, "prediction": "epsilon", "backbone": "unet"}),
    "flow": (FlowPolicy, {"steps": 3}),
    "flow-midpoint": (FlowPolicy, {"steps": 2, "solver": "midpoint", "backbone": "transformer"}),
}


class Recorder(Backbone):
    """Network that records chunks and times, and predicts a constant."""

    def __init__(self, value=0.0):
        super().__init__()
        self.value, self.calls = value, []

    def film(self, t, condition):
        return t

    def modulated(self, x, t):
        self.calls.append((x, t))
        return torch.full_like(x, self.value)


def make_head(name, action_space=ARM, observation_space=VECTOR, *, seed=0, **more):
    """Small policy of a kind of head; its weights are moved away from symmetric initial values."""
    cls, arguments = HEADS[name]
    torch.manual_seed(seed)
    policy = cls(observation_space, action_space, **({"hidden_sizes": (8, 8)} | arguments | more))
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return policy


def make_chunks(policy, count=40, seed=0):
    """Windows of observations `[N, n, *obs]` and chunks of actions `[N, H, *act]` from the policy's spaces."""
    observations, actions = policy.observation_space, policy.action_space
    observations.seed(seed)
    actions.seed(seed)
    windows = [[observations.sample() for _ in range(policy.n_obs_steps)] for _ in range(count)]
    chunks = [[actions.sample() for _ in range(policy.horizon)] for _ in range(count)]
    return torch.from_numpy(np.array(windows)), torch.from_numpy(np.array(chunks))


def trajectories(lengths, weight=None):
    rows = sum(lengths)
    truncated = torch.zeros(rows, dtype=torch.bool)
    truncated[torch.tensor(lengths).cumsum(0) - 1] = True
    return Transitions(
        observation=torch.arange(2.0 * rows).view(rows, 2),
        action=-torch.arange(rows).float()[:, None],
        reward=torch.zeros(rows),
        terminated=torch.zeros(rows, dtype=torch.bool),
        truncated=truncated,
        weight=weight,
        batch_size=[rows],
    )
