"""The parameters of a module as one vector."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


def flatten_parameters(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Lay the parameters into one vector `[parameters]` and turn them into views of it."""
    vector = torch.cat([parameter.detach().flatten() for parameter in parameters])
    parts = torch.split(vector, [parameter.numel() for parameter in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.data = part.view(parameter.shape)
    return vector


class ParameterVector:
    """Some parameters of a module, which become views of one vector.

    Args:
        module: Module that has the parameters, on its final device.
        parameters: Parameters to choose, in any order.
    """

    def __init__(self, module: nn.Module, parameters: Iterable[nn.Parameter]) -> None:
        chosen = {id(parameter) for parameter in parameters}
        named = {name: one for name, one in module.named_parameters() if id(one) in chosen}
        self.names, self.parameters = list(named), list(named.values())
        self.shapes, self.sizes = [one.shape for one in named.values()], [one.numel() for one in named.values()]
        self.vector = nn.Parameter(flatten_parameters(self.parameters))

    def views(self, vector: Tensor) -> list[Tensor]:
        """Parts of a vector `[parameters]` in the shapes of the parameters."""
        parts = torch.split(vector, self.sizes)
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def position(self, parameter: nn.Parameter) -> int:
        """Position of a parameter in `parameters`."""
        return next(i for i, one in enumerate(self.parameters) if one is parameter)

    def mask(self, module: nn.Module) -> Tensor:
        """Vector `[parameters]` that is 1 for the parameters of `module` and 0 for the others."""
        chosen = {id(parameter) for parameter in module.parameters()}
        parts = [
            torch.full((size,), float(id(one) in chosen)) for one, size in zip(self.parameters, self.sizes, strict=True)
        ]
        return torch.cat(parts).to(self.vector.device)
