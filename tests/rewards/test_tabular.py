"""Tabular rewards."""

from __future__ import annotations

import pytest
import torch
from gymnasium.spaces import Box, Discrete

from lit_imitation import ConvolutionalReward, GridWorld, LinearReward, MLPReward, Transitions
from lit_imitation.errors import UnsupportedSpaceError

KINDS = [
    (kind, inputs)
    for kind in (LinearReward, MLPReward, ConvolutionalReward)
    for inputs in ("state", "state_action", "transition")
    if (kind, inputs) != (ConvolutionalReward, "transition")
]


@pytest.mark.parametrize(("kind", "inputs"), KINDS)
def test_table_has_precision_of_model(kind, inputs):
    world = GridWorld(3)
    model = kind(Discrete(9), Discrete(5), 4, (3, 3), inputs=inputs)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    single = model.table(world)
    assert (single.values.dtype, single.inputs) == (torch.float32, inputs)
    assert torch.equal(single.values, model.table(world.to(dtype=torch.float32)).values)
    double = model.double().table(world.to(dtype=torch.float32)).values
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single.values, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("spaces", [(Box(0, 1, (2,)), Discrete(2)), (Discrete(4), Box(0, 1, (2,)))])
def test_table_needs_discrete_spaces(spaces):
    with pytest.raises(UnsupportedSpaceError, match="LinearReward is a table of Discrete states and actions"):
        LinearReward(*spaces, 0)


def test_terminal_state_reward_is_received_on_entry():
    model = LinearReward(Discrete(3), Discrete(2), 0)
    model.weights[0].data[:, 0] = torch.tensor([1.0, 10.0, 100.0])
    steps = Transitions(
        observation=torch.tensor([0, 1, 0]),
        action=torch.tensor([0, 0, 1]),
        reward=torch.zeros(3),
        terminated=torch.tensor([False, True, False]),
        truncated=torch.tensor([False, False, True]),
        next_observation=torch.tensor([1, 2, 2]),
        batch_size=[3],
    )
    assert model.reward(steps).tolist() == [1.0, 110.0, 1.0]
    assert model.reward(steps.replace(next_observation=None)).tolist() == [1.0, 10.0, 1.0]
