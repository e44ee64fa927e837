"""Windows of trajectories: the same as a plain loop over steps, with the padding of Diffusion Policy."""

from __future__ import annotations

import pytest
import torch
from gymnasium.spaces import Box
from heads import trajectories

from lit_imitation import FlowPolicy
from lit_imitation.data.expert_module import examples_of
from lit_imitation.errors import DemonstrationError
from lit_imitation.windows import WindowedTransitions, WindowSize

LENGTHS = [12, 5, 9, 1]


def plain_windows(lengths, size):
    """Rows of observations and actions, and what is padding, by the published loop."""
    begin = 0
    for length in lengths:
        before, after = size.observations - 1, size.actions - 1
        for first in range(-before, length - size.horizon + after + 1):
            steps = range(first, first + size.horizon)
            inside = [min(max(step, 0), length - 1) for step in steps]
            seen = [begin + one for one in inside[: size.observations]]
            yield seen, [begin + one for one in inside], [a == b for a, b in zip(steps, inside, strict=True)]
        begin += length


@pytest.mark.parametrize(
    "size",
    [WindowSize(), WindowSize(2, 8, 4), WindowSize(1, 4, 4), WindowSize(3, 3, 1), WindowSize(2, 16, 8)],
    ids=str,
)
def test_windows_match_plain_loop(size):
    data = trajectories(LENGTHS)
    windows = WindowedTransitions(data, size)
    expected = list(plain_windows(LENGTHS, size))
    assert len(windows) == len(expected)
    found = windows[torch.arange(len(windows))]
    for row, (seen, steps, mask) in enumerate(expected):
        assert torch.equal(found.observation[row], data.observation[seen])
        assert torch.equal(found.action[row], data.action[steps])
        assert found.mask[row].tolist() == mask
        assert all(mask[size.observations - 1 : size.horizon - size.actions + 1])


def test_windows_of_one_step_are_the_transitions():
    data = trajectories(LENGTHS)
    found = WindowedTransitions(data, WindowSize())[torch.arange(len(data))]
    assert torch.equal(found.observation[:, 0], data.observation)
    assert torch.equal(found.action[:, 0], data.action)
    assert found.mask.all()


def test_weight_is_that_of_the_current_step():
    data = trajectories(LENGTHS, torch.arange(float(sum(LENGTHS))))
    windows = WindowedTransitions(data, WindowSize(2, 4, 2))
    found = windows[torch.arange(len(windows))]
    assert torch.equal(found.weight, found.observation[:, -1, 0] / 2)


def test_blocks_of_indices_give_blocks_of_windows():
    windows = WindowedTransitions(trajectories(LENGTHS), WindowSize(2, 4, 2))
    order = torch.randperm(len(windows))[:6].view(2, 3)
    block = windows[order]
    assert block.batch_size == (2, 3)
    assert block.observation.shape == (2, 3, 2, 2)
    assert block.action.shape == (2, 3, 4, 1)
    assert torch.equal(block[1].action, windows[order[1]].action)
    assert torch.equal(windows[2:5].action, windows[torch.arange(2, 5)].action)


def test_chunks_are_actions_of_windows():
    data, size = trajectories(LENGTHS), WindowSize(2, 4, 2)
    windows = WindowedTransitions(data, size)
    every = windows[torch.arange(len(windows))]
    assert torch.equal(windows.chunks(), every.action)
    assert torch.equal(data.observation[windows.current()], every.observation[:, -1])


def test_trajectories_too_short_for_a_window_are_counted_or_refused():
    size = WindowSize(1, 16, 8)
    assert WindowedTransitions(trajectories(LENGTHS), size).left_out == 2
    with pytest.raises(DemonstrationError, match="the longest has 5 steps; set a smaller horizon"):
        WindowedTransitions(trajectories([5, 3]), size)


def test_trajectories_left_out_are_told(capsys):
    class Module:
        policy = FlowPolicy(Box(-1, 1, (2,)), Box(-1, 1, (1,)), horizon=16, n_action_steps=8, hidden_sizes=[4])

    class Trainer:
        lightning_module = Module()

    data = trajectories(LENGTHS)
    assert isinstance(examples_of(data, Trainer()), WindowedTransitions)
    told = capsys.readouterr()
    assert "2 of 4 trajectories are shorter than a window (horizon 16)" in told.out + told.err
    Module.policy = FlowPolicy(Box(-1, 1, (2,)), Box(-1, 1, (1,)), hidden_sizes=[4])
    assert examples_of(data, Trainer()) is data
