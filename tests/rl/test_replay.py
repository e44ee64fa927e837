"""The replay buffer against a plain list, for rounds of several lengths."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lit_imitation.errors import ConfigError
from lit_imitation.rl.replay import Replay
from lit_imitation.transitions import Transitions


def round_of(first, steps, envs=2, dead=()):
    number = first + torch.arange(steps * envs).view(steps, envs)
    valid = torch.ones(steps, envs, dtype=torch.bool)
    for t, env in dead:
        valid[t, env] = False
    observation = number[..., None] + torch.zeros(3)
    rollout = Transitions(
        observation=observation,
        action=number[..., None] + 0.5 + torch.zeros(2),
        reward=-number.float(),
        terminated=number % 3 == 0,
        truncated=number % 5 == 0,
        next_observation=observation + 1,
        batch_size=(steps, envs),
    )
    return rollout, valid


def held(replay):
    return sorted(replay.rows(torch.arange(len(replay))).observation[:, 0].int().tolist())


@pytest.mark.parametrize("capacity", [1, 7, 10, 64])
def test_buffer_holds_the_last_transitions(capacity):
    replay, expected, first = Replay(capacity), [], 0
    for steps in (1, 3, 2, 5, 9, 1, 1):
        rollout, valid = round_of(first, steps)
        replay.add(rollout, valid)
        expected += range(first, first + 2 * steps)
        first += 2 * steps
        expected = expected[-capacity:]
        assert held(replay) == expected
        assert len(replay) == len(expected)
    rows = replay.rows(replay.draw(200))
    number = rows.observation[:, 0].int()
    torch.testing.assert_close(rows.action, number[:, None] + 0.5 + torch.zeros(200, 2))
    torch.testing.assert_close(rows.reward, -number.float())
    torch.testing.assert_close(rows.next_observation, rows.observation + 1)
    assert torch.equal(rows.terminated, number % 3 == 0)


def test_invalid_rows_are_not_stored():
    replay = Replay(100)
    replay.add(*round_of(0, 4, dead=[(0, 1), (2, 0)]))
    assert held(replay) == [0, 2, 3, 5, 6, 7]
    replay.add(*round_of(8, 1, dead=[(0, 0), (0, 1)]))
    assert len(replay) == 6


def test_draws_are_uniform_and_repeat_with_torch_seed():
    replay = Replay(8)
    replay.add(*round_of(0, 2))
    torch.manual_seed(3)
    index = replay.draw(4000, 2)
    torch.manual_seed(3)
    assert torch.equal(index, replay.draw(4000, 2))
    share = torch.bincount(index.flatten(), minlength=8) / 8000
    np.testing.assert_allclose(share, [0.25] * 4 + [0] * 4, atol=0.02)


@pytest.mark.parametrize("rounds", [0, 1, 3, 4, 5])
def test_restored_buffer_continues_identically(rounds, tmp_path):
    replay = Replay(13)
    for i in range(rounds):
        replay.add(*round_of(8 * i, 4))
    torch.save(replay.state(), tmp_path / "state.pt")
    assert (tmp_path / "state.pt").stat().st_size < 6000
    other = Replay(13)
    other.load_state(torch.load(tmp_path / "state.pt", weights_only=True), torch.device("cpu"))
    for one in (replay, other):
        one.add(*round_of(1000, 3))
    assert (replay.position, len(replay)) == (other.position, len(other))
    index = torch.arange(len(replay))
    for mine, theirs in zip(replay.rows(index), other.rows(index), strict=True):
        assert torch.equal(mine, theirs)


def test_state_saves_only_stored_transitions(tmp_path):
    replay = Replay(100_000)
    replay.add(*round_of(0, 5))
    torch.save(replay.state(), tmp_path / "state.pt")
    assert (tmp_path / "state.pt").stat().st_size < 10_000


def test_state_loads_into_larger_buffer_only(tmp_path):
    replay = Replay(10)
    replay.add(*round_of(0, 4))
    replay.add(*round_of(8, 4))
    larger = Replay(20)
    larger.load_state(replay.state(), torch.device("cpu"))
    assert held(larger) == held(replay) == list(range(6, 16))
    larger.add(*round_of(100, 1))
    assert held(larger) == [*range(6, 16), 100, 101]
    larger.add(*round_of(102, 6))
    assert held(larger) == [*range(10, 16), *range(100, 114)]
    with pytest.raises(ConfigError, match="buffer_size is 9"):
        Replay(9).load_state(replay.state(), torch.device("cpu"))


def test_memory_per_transition_matches_documentation():
    replay = Replay(10)
    replay.add(*round_of(0, 1))
    assert replay.bytes_per_transition == 8 * 3 + 4 * 2 + 5
    assert sum(column.nbytes for column in replay.columns) == 10 * replay.bytes_per_transition
    with pytest.raises(ConfigError, match="buffer_size is 0"):
        Replay(0)


def test_buffer_of_one_transition_reports_its_memory():
    replay = Replay(1)
    replay.add(*round_of(0, 1, envs=1))
    # 3 + 3 numbers of observations, 2 of the action and the reward, float32, and a flag.
    assert replay.bytes_per_transition == sum(x[0].numel() * x.element_size() for x in replay.columns) >= 9 * 4
