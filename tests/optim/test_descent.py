"""One step of descent: the same gradient by either way, clipped, masked, of parameters that stay where they are."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lit_imitation.optim.descent import Descent
from lit_imitation.optim.optimization import Optimization


class Task(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.fixed = nn.Linear(3, 4), nn.Linear(4, 1), nn.Linear(3, 1)

    def forward(self, x, y):
        error = self.b(torch.tanh(self.a(x))) - y + self.fixed(x)
        return error.square().mean(), error.mean()[None]


@pytest.fixture
def task():
    torch.manual_seed(0)
    return Task().double()


X, Y = torch.randn(8, 3, dtype=torch.float64), torch.randn(8, 1, dtype=torch.float64)


def trained(task):
    return [*task.a.parameters(), *task.b.parameters()]


def test_steps_are_adams(task):
    from copy import deepcopy

    other = deepcopy(task)
    descent = Descent(task, trained(task), 0.01)
    adam = torch.optim.Adam(trained(other), 0.01)
    for _ in range(5):
        statistics = descent.step(X, Y)
        adam.zero_grad()
        loss, error = other(X, Y)
        loss.backward()
        norm = torch.stack([p.grad.norm() for p in trained(other)]).norm()
        torch.testing.assert_close(statistics, torch.stack([loss, *error, norm]).detach())
        adam.step()
    for mine, theirs in zip(task.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)
    assert torch.equal(descent.vector[: task.a.weight.numel()].view_as(task.a.weight), task.a.weight)


def test_both_ways_to_the_gradient_agree_with_finite_differences(task):
    descent = Descent(task, trained(task), 0.01)
    eager, _ = descent.gradient(X, Y)
    functional, _ = descent.loss_gradient.functional(descent.vector.detach(), descent.loss_gradient.constants, X, Y)
    torch.testing.assert_close(eager, functional)
    for i in range(0, len(eager), 3):
        values = []
        for sign in (1, -1):
            descent.vector.data[i] += sign * 1e-6
            values.append(float(task(X, Y)[0].detach()))
            descent.vector.data[i] -= sign * 1e-6
        assert (values[0] - values[1]) / 2e-6 == pytest.approx(float(eager[i]), abs=1e-7)


@pytest.mark.slow  # compiles
def test_compiled_is_the_same(task):
    descent = Descent(task, trained(task), 0.01, optimization=Optimization(max_grad_norm=0.1), compiled=True)
    compiled, statistics = descent.gradient(X, Y)
    descent.loss_gradient.compiled = None
    eager, others = descent.gradient(X, Y)
    torch.testing.assert_close(compiled, eager)
    torch.testing.assert_close(statistics, others)


@pytest.mark.parametrize("scale", [1.0, 1e-8])
def test_clipped_gradients_keep_their_direction_and_never_exceed_the_limit(task, scale):
    for parameter in task.b.parameters():
        parameter.data *= scale
    whole, _ = Descent(task, trained(task)[:2], 0.01).gradient(X, Y)
    clipped, _ = Descent(task, trained(task)[:2], 0.01, optimization=Optimization(max_grad_norm=0.05 * scale)).gradient(
        X, Y
    )
    assert float(clipped.norm()) <= 0.05 * scale
    assert float(torch.cosine_similarity(whole, clipped, 0, 1e-30)) == pytest.approx(1.0)


def test_long_gradients_are_shortened(task):
    free, _ = Descent(task, trained(task), 0.01).gradient(X, Y)
    clipped, statistics = Descent(task, trained(task), 0.01, optimization=Optimization(max_grad_norm=0.05)).gradient(
        X, Y
    )
    assert float(clipped.norm()) == pytest.approx(0.05, rel=1e-4)
    assert float(statistics[-1]) == pytest.approx(float(free.norm()))
    torch.testing.assert_close(clipped / clipped.norm(), free / free.norm())


def test_masked_parameters_and_strangers_stay(task):
    before = {name: value.clone() for name, value in task.state_dict().items()}
    descent = Descent(task, trained(task), 0.01)
    mask = descent.mask(task.b)
    for _ in range(3):
        descent.step(X, Y, mask=mask)
    for name, value in task.state_dict().items():
        assert torch.equal(value, before[name]) != name.startswith("b."), name


def test_a_loaded_state_is_in_the_vector(task):
    descent = Descent(task, trained(task), 0.01)
    torch.manual_seed(1)
    other = Task().double()
    task.load_state_dict(other.state_dict())
    torch.testing.assert_close(descent.vector.detach(), torch.cat([p.detach().flatten() for p in trained(other)]))


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 4, 11])
def test_compiled_steps_are_adams_too(task, count):
    """The first by Adam itself, chunks by its algorithm written out, later the rest one by one."""
    from copy import deepcopy

    other = deepcopy(task)
    plain = Descent(other, trained(other), 0.01, optimization=Optimization(max_grad_norm=0.5))
    compiled = Descent(task, trained(task), 0.01, optimization=Optimization(max_grad_norm=0.5), compiled=True)
    near = {"rtol": 1e-5, "atol": 1e-6}  # Adam counts its steps, and so corrects its moments, in float32
    x, y = (torch.randn(count, *part.shape, dtype=torch.float64) for part in (X, Y))
    for rate in (0.01, 0.003):  # as it is annealed
        for descent in (plain, compiled):
            descent.optimizer.param_groups[0]["lr"] = rate
        torch.testing.assert_close(compiled.steps(x, y), plain.steps(x, y), **near)
        torch.testing.assert_close(compiled.vector, plain.vector, **near)
    for name, value in plain.optimizer.state[plain.vector].items():
        torch.testing.assert_close(compiled.optimizer.state[compiled.vector][name], value, **near)
    mask = compiled.mask(task.a)
    before = compiled.vector.clone()
    torch.testing.assert_close(compiled.steps(x, y, mask=mask), plain.steps(x, y, mask=mask), **near)
    assert not torch.equal(before, compiled.vector)


@pytest.mark.integration
@pytest.mark.parametrize("count", [8, 11])
def test_chunks_are_all_that_the_first_round_compiles(task, count):
    """A round of a whole number of chunks then compiles nothing else, however often it comes."""
    from copy import deepcopy

    other = deepcopy(task)
    plain = Descent(other, trained(other), 0.01)
    descent = Descent(task, trained(task), 0.01, compiled=True)  # nothing is compiled before it is called
    descent.block.chunk = descent.block.functional

    def never(*_):
        raise AssertionError("one more function was compiled")

    descent.loss_gradient.compiled = never
    x, y = (torch.randn(count, *part.shape, dtype=torch.float64) for part in (X, Y))
    near = {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(descent.steps(x, y), plain.steps(x, y), **near)
    torch.testing.assert_close(descent.vector, plain.vector, **near)
    assert descent.adam_steps == plain.adam_steps == count
    if count % 8:
        with pytest.raises(AssertionError, match="one more"):
            descent.steps(x, y)
    else:
        descent.steps(x, y)
