"""`ChunkActor`: executes planned chunks of actions, for each environment on its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lit_imitation.windows import WindowSize

Plan = Callable[[Tensor], Tensor]
"""Chunks `[B, H, *act]` from windows of observations `[B, n, *obs]`."""


class ChunkActor:
    """Actor of a policy that plans ahead: keeps each environment's last observations and its planned actions.

    Without ensembling, an environment executes `size.actions` actions of a plan, then asks for the next one; only
    the environments whose plan is used up are planned for. At the start of an episode the first observation stands
    for those before it.

    With temporal ensembling (Zhao et al. 2023, arXiv:2304.13705, section IV.C) every step is planned, and the action
    of a step is the mean of what all plans say about it, with weight exp(−m i) for the i-th oldest of them.

    Args:
        plan: Plans chunks of actions.
        size: Lengths of the windows.
        device: Device of the policy.
        ensemble_decay: m ≥ 0; a larger one trusts older plans more. None for no ensembling.
        flatten: Turns dictionaries of observations into arrays, see `Policy.flatten`.
    """

    memoryless = False

    def __init__(
        self,
        plan: Plan,
        size: WindowSize,
        device: torch.device | None,
        ensemble_decay: float | None = None,
        flatten: Callable[[Any], NDArray[Any]] = np.asarray,
    ) -> None:
        self.flatten = flatten
        self.plan, self.size, self.device, self.ensemble_decay = plan, size, device, ensemble_decay
        self.history: Tensor | None = None
        """`[B, n, *obs]`: the last observations of each environment."""
        self.chunks: Tensor | None = None
        """`[B, a, *act]`: planned actions; with ensembling, weighted sums of those of this step and the next ones."""
        self._starts = torch.zeros(0, dtype=torch.bool)
        self._used = torch.zeros(0, dtype=torch.long)

    def reset(self, mask: NDArray[np.bool_], /) -> None:
        """Forget observations and plans of the environments in `mask: [B]`."""
        starts = torch.from_numpy(np.array(mask, dtype=np.bool_))
        if len(starts) != len(self._starts):
            self.history = self.chunks = None
            starts = torch.ones_like(starts)
            self._starts = starts
        else:
            self._starts = self._starts | starts

    def __call__(self, observation: NDArray[Any], /) -> NDArray[Any]:
        """As `act`."""
        return self.act(observation)

    @torch.no_grad()
    def act(self, observation: NDArray[Any], /) -> NDArray[Any]:
        """Actions `[B, *act]` at the next observations `[B, *obs]` of all environments."""
        seen = torch.from_numpy(np.ascontiguousarray(self.flatten(observation))).to(self.device)
        if len(seen) != len(self._starts):
            self.reset(np.ones(len(seen), dtype=np.bool_))
        self._remember(seen)
        action = self._next() if self.ensemble_decay is None else self._ensemble(self.ensemble_decay)
        self._starts = torch.zeros_like(self._starts)
        played: NDArray[Any] = action.cpu().numpy()
        return played

    def _remember(self, seen: Tensor) -> None:
        """Append observations `[B, *obs]` to the history; where an episode starts, they fill it."""
        count = self.size.observations
        first = seen[:, None].expand(-1, count, *seen.shape[1:])
        if self.history is None:
            self.history = first.clone()
            return
        self.history = torch.cat([self.history[:, 1:], seen[:, None]], 1)
        starts = self._starts.to(seen.device)
        self.history[starts] = first[starts]

    def _next(self) -> Tensor:
        """The next planned action of each environment, `[B, *act]`; plans where there is none left."""
        assert self.history is not None
        if self.chunks is None:
            self._used = torch.full((len(self.history),), self.size.actions)
        due = self._starts | (self._used >= self.size.actions)
        if due.any():
            current = self.size.observations - 1
            planned = self.plan(self.history[due.to(self.history.device)])[:, current : current + self.size.actions]
            if self.chunks is None:
                self.chunks = planned
            else:
                self.chunks[due.to(planned.device)] = planned
            self._used[due] = 0
        assert self.chunks is not None
        rows = torch.arange(len(self._used), device=self.chunks.device)
        action = self.chunks[rows, self._used.to(self.chunks.device)]
        self._used += 1
        return action

    def _ensemble(self, decay: float) -> Tensor:
        """The weighted mean of what this plan and earlier ones say about the current step, `[B, *act]`."""
        assert self.history is not None
        planned = self.plan(self.history)[:, self.size.observations - 1 :]
        shape = (len(planned), planned.shape[1], *[1] * (planned.ndim - 2))
        if self.chunks is None:
            self.chunks = torch.zeros_like(planned)
            self._plans = planned.new_zeros(shape)
            self._weights = planned.new_zeros(shape)
        for sums in (self.chunks, self._plans, self._weights):
            sums[self._starts.to(sums.device)] = 0.0
        weight = torch.exp(-decay * self._plans)
        self.chunks += weight * planned
        self._weights += weight
        self._plans += 1.0
        action = self.chunks[:, 0] / self._weights[:, 0]
        for name in ("chunks", "_plans", "_weights"):  # the next step's come first now
            sums = getattr(self, name)
            setattr(self, name, torch.cat([sums[:, 1:], torch.zeros_like(sums[:, :1])], 1))
        return action
