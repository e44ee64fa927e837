"""Cross-entropy, gradient penalty and statistics of discriminators against torch and by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from lit_imitation.rewards.losses import STATISTICS, cross_entropy, discriminator_statistics, gradient_penalty


def test_cross_entropy_weighs_both_sides_equally():
    expert, learner = torch.randn(5), torch.randn(7)
    sides = [F.binary_cross_entropy_with_logits(expert, torch.ones(5))]
    sides.append(F.binary_cross_entropy_with_logits(learner, torch.zeros(7)))
    torch.testing.assert_close(cross_entropy(expert, learner), sum(sides) / 2)


@pytest.mark.parametrize("columns", [None, 2])
def test_penalty_of_linear_score_is_known(columns):
    """The slope of w · x is ‖w‖ everywhere, here 5, or 4 in the first two columns."""
    w = torch.tensor([4.0, 0.0, 3.0])
    expert, learner = torch.randn(2, 6, 3)
    penalty = gradient_penalty(lambda x: x @ w, expert, learner, torch.rand(6), columns)
    assert float(penalty) == pytest.approx(16.0 if columns is None else 9.0)


def test_penalty_is_taken_on_the_lines():
    """The slope of ½ x² is |x|."""
    expert, learner, place = torch.tensor([[3.0], [5.0]]), torch.tensor([[1.0], [1.0]]), torch.tensor([1.0, 0.25])
    penalty = gradient_penalty(lambda x: 0.5 * x.square().sum(-1), expert, learner, place)
    assert float(penalty) == pytest.approx(((3.0 - 1.0) ** 2 + (2.0 - 1.0) ** 2) / 2)


def test_statistics_are_named():
    expert, learner = torch.tensor([2.0, -1.0]), torch.tensor([-3.0, -1.0])
    found = discriminator_statistics(expert, learner, torch.tensor(0.5), torch.tensor(0.25))
    expected = {
        "discriminator_accuracy_expert": 0.5,
        "discriminator_accuracy_learner": 1.0,
        "discriminator_logit_expert": 0.5,
        "discriminator_logit_learner": -2.0,
        "jensen_shannon": math.log(2.0) - 0.5,
        "gradient_penalty": 0.25,
    }
    assert dict(zip(STATISTICS, found.tolist(), strict=True)) == pytest.approx(expected)
