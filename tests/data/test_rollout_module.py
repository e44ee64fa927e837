"""RolloutDataModule: the rounds of an epoch."""

from __future__ import annotations

from types import SimpleNamespace

import counting
import numpy as np
import pytest
import torch

from lit_imitation import RolloutDataModule
from lit_imitation.errors import ConfigError
from lit_imitation.utils.seeding import derive_seed


class Explorer:
    def __init__(self):
        self.drawn = []

    def __call__(self, observation):
        self.drawn.append(torch.from_numpy(counting.act(observation)))
        return counting.act(observation)


def module(epoch=0, rank=0, world=1, num_envs=4, **settings):
    """DataModule with the parts of a Trainer that it needs."""
    data = RolloutDataModule("Counting-v0", num_envs=num_envs, backend="sync", seed=3, **settings)
    data.trainer = SimpleNamespace(
        global_rank=rank,
        world_size=world,
        current_epoch=epoch,
        fast_dev_run=False,
        fit_loop=SimpleNamespace(max_epochs=100, max_steps=-1),
        lightning_module=SimpleNamespace(explorer=Explorer),
    )
    return data


def played(data):
    return torch.cat([one.rollout for one in data.train_dataloader()])


def test_epoch_has_rounds_per_epoch_of_steps_per_round():
    data = module(steps_per_round=7, rounds_per_epoch=3)
    loader = data.train_dataloader()
    assert len(loader) == 3
    assert [one.rollout.batch_size for one in loader] == [(7, 4)] * 3
    data.teardown("fit")


def test_episodes_depend_only_on_epoch_and_process():
    settings = {"steps_per_round": 5, "rounds_per_epoch": 2}
    data = module(**settings)
    first = played(data)
    data.trainer.current_epoch = 1
    second = played(data)  # in the same open environments
    fresh = module(epoch=1, **settings)  # like in a resumed run
    other = module(rank=1, world=2, num_envs=8, **settings)
    assert torch.equal(second.observation, played(fresh).observation)
    for one in (second, played(other)):
        assert not set(first.observation[..., 0].flatten().tolist()) & set(one.observation[..., 0].flatten().tolist())
    tag = counting.expected(1, 1, derive_seed(3, "rounds", 0, 0))["observation"][0]
    np.testing.assert_array_equal(first.observation[0, 0], tag)
    for each in (data, fresh, other):
        each.teardown("fit")


def test_epoch_is_read_at_the_first_round():
    """Lightning calls `iter` before it restores the counters of a resumed run."""
    data = module(epoch=0, steps_per_round=5, rounds_per_epoch=1)
    iterator = iter(data.train_dataloader())
    data.trainer.current_epoch = 4
    later = module(epoch=4, steps_per_round=5, rounds_per_epoch=1)
    assert torch.equal(next(iterator).rollout.observation, played(later).observation)
    for each in (data, later):
        each.teardown("fit")


@pytest.mark.parametrize(("env_steps", "epochs"), [(1, 1), (60, 1), (61, 2), (600, 10)])
def test_env_steps_are_rounded_up_to_whole_epochs(env_steps, epochs):
    data = module(env_steps=env_steps, steps_per_round=5, rounds_per_epoch=3)
    data.setup("test")
    assert data.trainer.fit_loop.max_epochs == 100
    data.setup("fit")
    assert data.trainer.fit_loop.max_epochs == epochs
    data.trainer.fit_loop.max_epochs, data.trainer.fast_dev_run = 1, 1
    data.setup("fit")
    assert data.trainer.fit_loop.max_epochs == 1


def test_environments_are_divided_among_processes():
    data = module(world=2, num_envs=6, steps_per_round=5, rounds_per_epoch=1)
    data.setup("fit")
    assert next(iter(data.train_dataloader())).rollout.batch_size == (5, 3)
    data.teardown("fit")
    with pytest.raises(ConfigError, match=r"data.num_envs 5 cannot be divided equally among 2"):
        module(world=2, num_envs=5).setup("fit")


@pytest.mark.parametrize("name", ["env_steps", "steps_per_round", "rounds_per_epoch", "num_envs"])
def test_values_below_one_are_refused(name):
    with pytest.raises(ConfigError, match=rf"data.{name} is 0; it must be at least 1"):
        RolloutDataModule("Counting-v0", **{name: 0})
