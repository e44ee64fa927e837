"""Gradients of one process and of several, and when they stop."""

from __future__ import annotations

import pytest
import torch

from lit_imitation.optim import processes
from lit_imitation.optim.processes import GradientExchange
from lit_imitation.utils import interruption


def stop(agreed):
    raise InterruptedError(agreed)


def test_one_process_keeps_its_gradient_and_stops_at_once(monkeypatch):
    exchange, gradient = GradientExchange(), torch.ones(3)
    assert exchange.mean(gradient) is gradient
    monkeypatch.setattr(interruption, "raise_if_stopped", stop)
    with pytest.raises(InterruptedError, match="False"):
        exchange.check_stop()


@pytest.mark.parametrize("told", [False, True])
def test_several_processes_average_and_stop_together(told, monkeypatch):
    """The other process has twice this one's gradient; it may have been told to stop."""
    monkeypatch.setattr(processes, "world_size", lambda: 2)
    other = torch.tensor([2.0, 4.0, float(told)])
    monkeypatch.setattr(processes, "all_reduce", lambda mine: mine + other)
    monkeypatch.setattr(interruption, "raise_if_stopped", stop)
    exchange = GradientExchange()
    exchange.check_stop()  # nothing is known before the first step
    assert exchange.mean(torch.tensor([1.0, 2.0])).tolist() == [1.5, 3.0]
    if told:
        with pytest.raises(InterruptedError, match="True"):
            exchange.check_stop()
    else:
        exchange.check_stop()
