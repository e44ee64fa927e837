"""The moving average of weights: its recursion, its exchange with the weights, and its way through a checkpoint."""

from __future__ import annotations

import torch
from torch import nn

from lit_imitation.optim.averaging import WeightAverage


def averaged(decay=0.5):
    vector = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.Adam([vector])
    average = WeightAverage(optimizer, vector, decay)
    for value in (0.0, 4.0, 8.0):
        vector.grad = torch.zeros(2)
        optimizer.step()
        vector.data.fill_(value)
        average.update()
    return optimizer, vector, average


def test_average_follows_its_recursion():
    _, vector, average = averaged()
    assert average.weights().tolist() == [5.0, 5.0]  # ½ (½ · 0 + ½ · 4) + ½ · 8
    assert average.last().tolist() == vector.tolist() == [8.0, 8.0]


def test_swap_exchanges_weights_and_average():
    _, vector, average = averaged()
    average.swap()
    assert vector.tolist() == average.weights().tolist() == [5.0, 5.0]
    assert average.last().tolist() == [8.0, 8.0]
    average.swap()
    assert vector.tolist() == [8.0, 8.0]
    assert average.weights().tolist() == [5.0, 5.0]


def test_resumed_run_continues_from_last_weights():
    optimizer, vector, average = averaged()
    average.swap()  # as saved: the average as the weights, the last weights in the state
    resumed = WeightAverage(optimizer, vector, 0.5)
    resumed.resume()
    assert vector.tolist() == [8.0, 8.0]
    assert resumed.weights().tolist() == [5.0, 5.0]


def test_run_without_average_drops_that_of_the_checkpoint():
    optimizer, vector, _ = averaged()
    other = WeightAverage(optimizer, vector, None)
    other.resume()
    assert "average" not in optimizer.state[vector]
    assert other.weights() is None
    other.swap()
    assert vector.tolist() == [8.0, 8.0]
