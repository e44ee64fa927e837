"""Networks with spectral normalization."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_imitation.networks.mlp import MLP, Activation


class SpectralMLP(MLP):
    """MLP with spectral normalization (Miyato et al. 2018, arXiv:1802.05957), which is 1-Lipschitz.

    Within a gradient step the singular vectors are constants. `power_iteration` updates them after each step.

    Args:
        sizes: Input, hidden and output sizes.
        activation: Name of the activation in `torch.nn.functional`.
    """

    def __init__(self, sizes: Sequence[int], activation: Activation) -> None:
        super().__init__(sizes, activation)
        for i, layer in enumerate(self.layers):
            rows, columns = layer.weight.shape  # type: ignore[misc]
            for name, size in (("left", rows), ("right", columns)):
                self.register_buffer(f"{name}_{i}", F.normalize(torch.randn(size), dim=0))
        self.power_iteration(30)

    @torch.no_grad()
    def power_iteration(self, times: int = 5) -> None:
        """Update the singular vectors by `times` power iterations, in place."""
        for i, layer in enumerate(self.layers):
            left, right = getattr(self, f"left_{i}"), getattr(self, f"right_{i}")
            for _ in range(times):
                right.copy_(F.normalize(layer.weight.mT @ left, dim=0))
                left.copy_(F.normalize(layer.weight @ right, dim=0))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs `[B, sizes[-1]]` of inputs `[B, sizes[0]]`."""
        *hidden, last = range(len(self.layers))
        for i in hidden:
            x = self._activate(F.linear(x, self._weight(i), self.layers[i].bias))  # type: ignore[arg-type]
        return F.linear(x, self._weight(last), self.layers[last].bias)  # type: ignore[arg-type]

    def _weight(self, i: int) -> Tensor:
        weight: Tensor = self.layers[i].weight  # type: ignore[assignment]
        # `dot` would require equal dtypes, which autocast does not guarantee.
        norm: Tensor = (getattr(self, f"left_{i}") * (weight @ getattr(self, f"right_{i}"))).sum()
        return weight / norm
