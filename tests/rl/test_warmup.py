"""PPO's value warm-up leaves the policy unchanged, and the first step after it is no larger than usual."""

from __future__ import annotations

import pytest
import torch
from gymnasium.spaces import Box, Discrete

from lit_imitation.optim.optimization import Optimization
from lit_imitation.policies import CategoricalPolicy
from lit_imitation.rl import PPO
from lit_imitation.rollout import Round
from lit_imitation.transitions import Transitions

OBSERVATION, ACTION = Box(-1, 1, (3,)), Discrete(2)


def random_round(generator):
    shape = (32, 4)
    flag = torch.zeros(shape, dtype=torch.bool)
    rollout = Transitions(
        observation=torch.rand(*shape, 3, generator=generator),
        action=torch.randint(2, shape, generator=generator),
        reward=torch.randn(shape, generator=generator),
        terminated=flag,
        truncated=flag,
        next_observation=torch.rand(*shape, 3, generator=generator),
        batch_size=shape,
    )
    return Round(rollout, ~flag, [])


@pytest.mark.slow
@pytest.mark.integration
def test_first_step_after_warm_up_is_within_learning_rate():
    torch.manual_seed(0)
    policy = CategoricalPolicy(OBSERVATION, ACTION, hidden_sizes=[8])
    ppo = PPO(
        OBSERVATION,
        ACTION,
        policy,
        learning_rate=1e-3,
        optimization=Optimization(),
        epochs=50,
        batch_size=8,
        warmup_rounds=2,
    )
    ppo.optimizers()
    generator = torch.Generator().manual_seed(1)
    before = [parameter.clone() for parameter in policy.parameters()]
    for _ in range(2):  # 1,600 steps of the value function
        ppo.update(random_round(generator), 0.0)
    assert all(torch.equal(a, b) for a, b in zip(before, policy.parameters(), strict=True))
    ppo.epochs, ppo.batch_size = 1, 128  # one step
    ppo.update(random_round(generator), 0.0)
    moves = [(a - b).abs().max().item() for a, b in zip(before, policy.parameters(), strict=True)]
    assert 0.5e-3 < max(moves) <= 1.001e-3
