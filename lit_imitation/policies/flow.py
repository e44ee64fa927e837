"""Flow matching with straight paths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from gymnasium import Space
from torch import Tensor

from lit_imitation.policies.denoising import DenoisingPolicy
from lit_imitation.policies.sequence import mean_over_steps

Solver = Literal["euler", "midpoint"]
"""Solver of an ordinary differential equation."""


def evaluation_times(steps: int, solver: Solver) -> list[float]:
    """Times at which `integrate` asks for the velocity, in its order."""
    offsets = (0.0,) if solver == "euler" else (0.0, 0.5)
    return [(i + offset) / steps for i in range(steps) for offset in offsets]


def integrate(velocity: Callable[[Tensor, float], Tensor], x: Tensor, steps: int, solver: Solver) -> Tensor:
    """Solve dx/dt = v(x, t) from t = 0 to 1 by steps of equal length h.

    - `euler`: x ← x + h v(x, t), with an error of order h.
    - `midpoint`: x ← x + h v(x + h/2 v(x, t), t + h/2), with an error of order h² and two evaluations a step.

    Args:
        velocity: Function of x and t to v, of the shape of x.
        x: Value at t = 0.
        steps: Number of steps.
        solver: Solver.

    Returns:
        Value at t = 1.
    """
    h = 1.0 / steps
    for i in range(steps):
        slope = velocity(x, i * h)
        if solver == "midpoint":
            slope = velocity(torch.add(x, slope, alpha=h / 2), (i + 0.5) * h)
        x = torch.add(x, slope, alpha=h)
    return x


class FlowPolicy(DenoisingPolicy):
    """Flow matching with straight paths (Lipman et al. 2023, arXiv:2210.02747; Liu et al. 2023, arXiv:2209.03003).

    Between noise x_0 ~ N(0, I) and a demonstrated chunk x_1, the path is x_t = (1 − t) x_0 + t x_1, and its velocity
    x_1 − x_0. The loss is a regression on it at t ~ U(0, 1), with H the horizon:

        L(θ) = 1/H · E ‖ v_θ(x_t, t, o) − (x_1 − x_0) ‖²

    A plan solves dx/dt = v_θ(x, t, o) from noise at t = 0 to t = 1. See `DenoisingPolicy` for scaling and for
    deterministic plans; for one action dimension these are the median of the learned distribution.

    Args:
        observation_space: Box or Discrete observation space.
        action_space: Box action space.
        solver: `euler` evaluates the network once a step, `midpoint` twice.
        **arguments: Arguments of `DenoisingPolicy` and `SequencePolicy`.

    Raises:
        ConfigError: An argument is out of range.
        UnsupportedSpaceError: The action space is not a Box.
    """

    def __init__(
        self, observation_space: Space[Any], action_space: Space[Any], *, solver: Solver = "euler", **arguments: Any
    ) -> None:
        self.solver: Solver = solver
        super().__init__(observation_space, action_space, **arguments)

    def chunk_loss(self, condition: Tensor, u: Tensor, mask: Tensor) -> Tensor:
        """Squared error `[B]` of the velocity at a random time, see the class."""
        data = self.scaled(u)
        noise = torch.randn_like(data)
        t = torch.rand(len(data), dtype=data.dtype, device=data.device)
        velocity = self.network(torch.lerp(noise, data, t[:, None, None]), t, condition)
        return mean_over_steps((velocity - (data - noise)).square(), mask)

    def denoise(self, x: Tensor, condition: Tensor) -> Tensor:
        """Chunks at t = 1 of the paths that begin at noise `x: [B, H, act_dim]`."""
        modulations = iter(self.network.modulations(evaluation_times(self.steps, self.solver), condition))

        def velocity(x: Tensor, _: float) -> Tensor:
            return self.network.modulated(x, next(modulations))

        return integrate(velocity, x, self.steps, self.solver)
