"""One-hot codes are those of torch, also in traces, and refuse values out of range."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.fx.experimental.proxy_tensor import make_fx

from lit_imitation.networks.one_hot import one_hot


@pytest.mark.parametrize("counts", [[4], [2, 5, 3], [1]])
def test_codes_match_torch(counts):
    index = torch.stack([torch.arange(30) % count for count in counts], 1)
    expected = torch.cat([F.one_hot(index[:, i], count) for i, count in enumerate(counts)], -1).float()
    found = one_hot(index, counts)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
    other = index.flip(0)
    assert torch.equal(make_fx(lambda x: one_hot(x, counts))(index)(other), one_hot(other, counts))


@pytest.mark.parametrize("value", [-1, 3])
def test_values_out_of_range_raise(value):
    with pytest.raises(RuntimeError, match="out of bounds"):
        one_hot(torch.tensor([[0, 0], [1, value]]), [2, 3])
