"""`OfflineDataModule`: successors, terminal rows and rewards."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lit_imitation import OfflineDataModule
from lit_imitation.errors import ConfigError, DemonstrationError
from lit_imitation.transitions import Transitions


def record(ends: list[tuple[int, bool]], rewards: np.ndarray | None = None) -> Transitions:
    """Trajectories of some lengths that terminated or were cut off; observations count the rows."""
    count = sum(length for length, _ in ends)
    over, cut = np.zeros(count, bool), np.zeros(count, bool)
    for last, (_, terminated) in zip(np.cumsum([length for length, _ in ends]) - 1, ends, strict=True):
        (over if terminated else cut)[last] = True
    return Transitions.from_numpy(
        {
            "observation": np.arange(count, dtype=np.float32)[:, None], "action": np.arange(count) % 2,
            "reward": np.ones(count) if rewards is None else rewards, "terminated": over, "truncated": cut,
        }
    )  # fmt: skip


def ready(data: Transitions, **more) -> OfflineDataModule:
    module = OfflineDataModule(demonstrations=data, **more)
    module.trainer = SimpleNamespace(
        world_size=1, global_rank=0, num_devices=1, state=SimpleNamespace(fn="fit"),
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
    )  # fmt: skip
    module.setup("fit")
    return module


def test_terminal_rows_stay_and_cut_ones_are_dropped():
    train = ready(record([(3, True), (3, False), (1, True), (1, False)])).train
    rows = sorted(zip(*(one.flatten().tolist() for one in (train.observation, train.next_observation)), strict=True))
    assert rows == [(0, 1), (1, 2), (2, 2), (3, 4), (4, 5), (6, 6)]
    assert sorted(train.observation[train.terminated].flatten().tolist()) == [2, 6]
    assert sorted(train.observation[train.truncated].flatten().tolist()) == [4]


def test_recorded_successors_keep_every_row():
    data = record([(3, True), (2, False)])
    data.next_observation = data.observation + 0.5
    train = ready(data).train
    assert len(train) == 5
    torch.testing.assert_close(train.next_observation, train.observation + 0.5)


def test_rewards_are_normalized_scaled_and_shifted():
    rewards = np.array([1.0, 2.0, 3.0, 0.5, 0.5])
    data = record([(3, True), (2, True)], rewards)
    found = ready(data, reward_normalization="returns", reward_scale=2.0, reward_shift=-1.0).train
    order = found.observation.flatten().argsort()
    expected = torch.from_numpy(rewards).float() * 1000 / (6 - 1) * 2 - 1
    torch.testing.assert_close(found.reward[order], expected)
    assert data.reward.tolist() == rewards.tolist()


def test_weights_are_left_out_with_a_notice(capfd):
    data = record([(3, True), (3, True)])
    data.weight = torch.ones(6)
    assert ready(data).train.weight is None
    assert "its weights are not used" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("data", "arguments", "error", "text"),
    [
        (record([(3, True)], np.zeros(3)), {}, ConfigError, "all rewards are 0 or missing"),
        (record([(2, True), (2, True)]), {"reward_normalization": "returns"}, ConfigError, "have the same return"),
        (record([(1, False), (1, False)]), {}, DemonstrationError, "no next_observations"),
        (record([(2, True)]), {"reward_scale": 0.0}, ConfigError, "data.reward_scale is 0.0; it must be above 0"),
        (record([(2, True)]), {"reward_shift": float("nan")}, ConfigError, "data.reward_shift is nan"),
        (record([(2, True)]), {"return_temperature": 1.0}, ConfigError, "data.return_temperature weighs trajectories"),
        (record([(2, True)]), {"memory": "stream"}, ConfigError, "keeps transitions in memory"),
    ],
)
def test_unfit_data_and_options_are_named(data, arguments, error, text):
    with pytest.raises(error, match=text):
        ready(data, **arguments)
