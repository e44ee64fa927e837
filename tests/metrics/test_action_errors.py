"""Error of each dimension of actions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lit_imitation.metrics.action_errors import ActionErrors


@pytest.mark.parametrize("dims", [1, 3])
def test_errors_are_means_over_all_batches(dims):
    errors = torch.rand(10, dims, generator=torch.Generator().manual_seed(0))
    metric = ActionErrors()
    for _ in range(2):  # a reset forgets the shape too
        for part in (errors[:7], errors[7:]):
            metric.update(part)
        np.testing.assert_allclose(metric.compute().reshape(-1), errors.numpy().mean(0), rtol=1e-6)
        metric.reset()
    assert metric.total.shape == ()
