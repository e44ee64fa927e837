"""Two processes compute the same as one process with the data of both."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fork_server import run_ranks
from gymnasium.spaces import Box, Discrete

from lit_imitation import PPO, SAC, Discriminator, Transitions
from lit_imitation.optim.descent import Descent
from lit_imitation.optim.optimization import Optimization
from lit_imitation.rewards.features import Samples
from lit_imitation.rollout import Round
from lit_imitation.utils.distributed import rank, world_size

OBSERVATION, ARM, BUTTONS = Box(-np.inf, np.inf, (3,), np.float32), Box(-1.0, 1.0, (2,), np.float32), Discrete(3)
STEPS, ENVS = 20, 4


def a_round(seed, discrete):
    """This process's part of a round in `ENVS` environments; processes differ only in their environments."""
    generator = torch.Generator().manual_seed(seed)
    shape = (STEPS, ENVS)
    flags = torch.rand(2, *shape, generator=generator) < 0.1
    rollout = Transitions(
        observation=5 + 3 * torch.randn(*shape, 3, generator=generator),
        action=torch.randint(3, shape, generator=generator)
        if discrete
        else torch.randn(*shape, 2, generator=generator),
        reward=torch.randn(shape, generator=generator),
        terminated=flags[0],
        truncated=flags[1],
        next_observation=5 + 3 * torch.randn(*shape, 3, generator=generator),
        batch_size=shape,
    )
    return Round(rollout[:, rank() :: world_size()], torch.ones(STEPS, ENVS // world_size(), dtype=torch.bool), [])


def by_ppo():
    torch.manual_seed(0)
    batch = STEPS * ENVS // world_size()  # a whole round, so that the order does not matter
    ppo = PPO(
        OBSERVATION,
        ARM,
        hidden_sizes=[8],
        epochs=3,
        batch_size=batch,
        learning_rate=0.01,
        optimization=Optimization(0.0, 0.1),
    )
    ppo.optimizers()
    logged = [ppo.update(a_round(seed, False), 0.0) for seed in range(3)]
    return dict(ppo.state_dict()) | {"grad_norm": logged[-1]["grad_norm"]}


def by_sac():
    torch.manual_seed(0)
    settings = {"batch_size": 8, "learning_rate": 0.01, "learning_starts": 0, "random_steps": 0}
    updates = 0.1 * world_size()  # the same number of steps, each with the rows of both processes
    sac = SAC(OBSERVATION, BUTTONS, hidden_sizes=[8], updates_per_step=updates, normalize_observations=True, **settings)
    sac.optimizers()
    sac.replay.draw = lambda steps, size, generator=None: torch.arange(len(sac.replay)).expand(steps, -1)
    for seed in range(2):
        sac.update(a_round(seed, True), 0.0)
    assert sac.gradient_steps == 16
    return dict(sac.state_dict())


def by_discriminator():
    torch.manual_seed(0)
    model = Discriminator(OBSERVATION, ARM, hidden_sizes=[8], spectral_norm=True)
    descent = Descent(model, model.parameters(), 0.02, optimization=Optimization(max_grad_norm=0.5))
    generator = torch.Generator().manual_seed(5)
    rows = [torch.randn(40, 3, generator=generator), torch.randn(40, 2, generator=generator)]
    never = torch.zeros(40, dtype=torch.bool)
    expert = Samples(rows[0], rows[1], rows[0], never, never)
    learner = Samples(rows[0].flip(0) + 1, rows[1].flip(0), rows[0], never, never)
    size = 16 // world_size()
    for _ in range(10):
        pairs = [samples.rows(samples.sample_indices(size)) for samples in (expert, learner)]
        descent.step(*Samples.concatenate(pairs), torch.zeros(2 * size), torch.zeros(size))
    return dict(model.state_dict())


@pytest.mark.integration
@pytest.mark.parametrize("learned", [by_ppo, pytest.param(by_sac, marks=pytest.mark.slow), by_discriminator])
def test_two_processes_learn_like_one_with_all_data(learned, tmp_path):
    alone = learned()
    first, second = run_ranks(learned, 2, tmp_path)
    for name, value in alone.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], value, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.integration
def test_processes_draw_different_noise(tmp_path):
    """With one stream, all processes would use the same noise for different states."""
    first, second = run_ranks(noises, 2, tmp_path)
    assert not torch.equal(first["noise"], second["noise"])
    assert not torch.equal(first["index"], second["index"])


def noises():
    torch.manual_seed(0)
    sac = SAC(OBSERVATION, ARM, hidden_sizes=[8], batch_size=8, learning_starts=0, random_steps=0)
    sac.optimizers()
    seen = {}
    step, rows = sac.critic_descent.step, sac.replay.rows
    sac.critic_descent.step = lambda *columns: seen.setdefault("noise", columns[-1]) is None or step(*columns)
    sac.replay.rows = lambda index: seen.setdefault("index", index) is None or rows(index)
    sac.update(a_round(0, False), 0.0)
    return seen
