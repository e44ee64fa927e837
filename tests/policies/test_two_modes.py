"""Each head learns demonstrations that go left or right; regression takes their mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from lit_imitation.policies import (
    CVAEPolicy,
    DeterministicPolicy,
    DiffusionPolicy,
    FlowPolicy,
    MixturePolicy,
    QuantizedPolicy,
    VQBeTPolicy,
)

pytestmark = pytest.mark.slow

OBSERVATION, ACTION = Box(-1, 1, (2,), np.float32), Box(-1, 1, (1,), np.float32)
HEADS = {
    "mixture": (MixturePolicy, {}),
    "quantized": (QuantizedPolicy, {}),
    "quantized-residual": (QuantizedPolicy, {"codes": 6, "levels": 2}),
    "vq-bet": (VQBeTPolicy, {"codes": 6, "focal_gamma": 0.0}),
    "cvae": (CVAEPolicy, {"latent_size": 2}),
    "diffusion": (DiffusionPolicy, {}),
    "diffusion-epsilon": (DiffusionPolicy, {"prediction": "epsilon"}),
    "flow": (FlowPolicy, {}),
}
STEPS = 1000


def train(cls, share=0.5, **arguments):
    """Policy trained on actions ±(0.5 + 0.1 x), with noise, of which `share` are positive."""
    torch.manual_seed(0)
    policy = cls(OBSERVATION, ACTION, hidden_sizes=(64, 64), **arguments)
    observation = torch.rand(2000, 2) * 2 - 1
    side = (torch.rand(2000) < share).float() * 2 - 1
    action = (side * (0.5 + 0.1 * observation[:, 0]) + 0.02 * torch.randn(2000))[:, None]
    policy.fit_normalizer(observation, action)
    optimizer = torch.optim.Adam(policy.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, STEPS)
    for _ in range(STEPS):
        rows = torch.randint(2000, (256,))
        optimizer.zero_grad()
        policy.mean_loss(observation[rows], action[rows]).backward()
        optimizer.step()
        schedule.step()
    return policy


def shares(policy):
    """Shares of samples within 0.1 of the left and the right mode."""
    torch.manual_seed(1)
    observation = torch.rand(4000, 2) * 2 - 1
    action = policy(observation, deterministic=False)[:, 0]
    mode = 0.5 + 0.1 * observation[:, 0]
    return [float(((action - side * mode).abs() < 0.1).float().mean()) for side in (-1, 1)]


@pytest.mark.parametrize("share", [0.5, 0.8])
@pytest.mark.parametrize("name", HEADS)
def test_samples_have_shares_of_both_modes(name, share):
    cls, arguments = HEADS[name]
    left, right = shares(train(cls, share, **arguments))
    neither = 1 - left - right
    total_variation = 0.5 * (abs(left - (1 - share)) + abs(right - share) + neither)
    assert total_variation < 0.1


def test_regression_averages_the_modes():
    assert shares(train(DeterministicPolicy)) == [0.0, 0.0]
