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

    The network F is preconditioned (Karras et al. 2022, section 5, arXiv:2206.00364): with the root mean square s of
    the data and r² = (1 − t)² + t² s², the mean square of x_t,

        v_θ(x, t, o) = (t s² − (1 − t)) / r² · x + s / r · F_θ(x / r, t, o).

    The first term is the regression of the velocity on x alone, and F's input and target have mean square 1 at all
    t. F thus need not carry the noise x_0 through its layers, whose error would end up in the actions.

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
        t = torch.rand(len(data), 1, 1, dtype=data.dtype, device=data.device)
        x, (on_x, on_network, deviation) = torch.lerp(noise, data, t), self.preconditioning(t)
        velocity = on_x * x + on_network * self.network(x / deviation, t.flatten(), condition)
        return mean_over_steps((velocity - (data - noise)).square(), mask)

    def preconditioning(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Factors of x and of F, and r, `[..., act_dim]` each, at times `t: [..., 1]`."""
        variance = (1.0 - t).square() + (t * self.data_rms).square()
        deviation = variance.sqrt()
        return (t * self.data_rms.square() - (1.0 - t)) / variance, self.data_rms / deviation, deviation

    def denoise(self, x: Tensor, condition: Tensor) -> Tensor:
        """Chunks at t = 1 of the paths that begin at noise `x: [B, H, act_dim]`."""
        times = evaluation_times(self.steps, self.solver)
        modulations = self.network.modulations(times, condition)
        factors = self.preconditioning(x.new_tensor(times)[:, None])
        each = iter(zip(modulations, *factors, strict=True))

        def velocity(x: Tensor, _: float) -> Tensor:
            modulation, on_x, on_network, deviation = next(each)
            return torch.addcmul(on_x * x, on_network, self.network.modulated(x / deviation, modulation))

        return integrate(velocity, x, self.steps, self.solver)
