"""Parameters as views of one vector."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lit_imitation.optim.vector import ParameterVector


@pytest.fixture
def module():
    return nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))


def test_parameters_are_views_of_the_vector(module):
    chosen = [module[1].weight, module[0].weight]
    layout = ParameterVector(module, chosen)
    assert layout.names == ["0.weight", "1.weight"]  # in the module's order
    layout.vector.data.copy_(torch.arange(8.0))
    assert module[0].weight.flatten().tolist() == [0, 1, 2, 3, 4, 5]
    for view, parameter in zip(layout.views(layout.vector.detach()), layout.parameters, strict=True):
        assert torch.equal(view, parameter)


def test_position_and_mask_select_parameters(module):
    layout = ParameterVector(module, module.parameters())
    assert [layout.position(one) for one in module.parameters()] == [0, 1, 2, 3]
    assert layout.mask(module[1]).tolist() == [0.0] * 8 + [1.0] * 3
