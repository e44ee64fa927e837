"""Transitions kept beyond the round that they come from, to be learned from again and again."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lit_imitation.errors import ConfigError
from lit_imitation.transitions import Transitions


class Replayed(NamedTuple):
    """Transitions `[B]` as they were drawn. A truncated one is like any other: a value follows."""

    observation: Tensor
    """`[B, *obs]`."""
    action: Tensor
    """`[B, *act]`."""
    reward: Tensor
    """`[B]`: the environment's own."""
    next_observation: Tensor
    """`[B, *obs]`: the true successor."""
    terminated: Tensor
    """`[B]` bool."""

    @classmethod
    def from_transitions(cls, transitions: Transitions) -> Replayed:
        """The fields of transitions `[*batch]` that are replayed."""
        assert transitions.next_observation is not None
        return cls(
            transitions.observation,
            transitions.action,
            transitions.reward,
            transitions.next_observation,
            transitions.terminated,
        )

    def rows(self, index: Tensor) -> Replayed:
        """Rows `index: [B]` of every field."""
        return Replayed(*(column.index_select(0, index) for column in self))

    def concatenate(self, other: Replayed) -> Replayed:
        """The rows of both."""
        return Replayed(*(torch.cat(columns) for columns in zip(self, other, strict=True)))


class Replay:
    """The last `capacity` transitions, one preallocated tensor a field, on the device where the first of them are.

    A ring: the oldest is written over. A million transitions take `bytes_per_transition` megabytes, for vectors of n
    observations and m actions 8n + 4m + 5: 105 MB on Hopper, 145 MB on HalfCheetah. Memory is allocated with the first
    round, and an operating system that commits pages when they are written hands it out as the buffer fills.

    Args:
        capacity: transitions.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ConfigError(f"learner.buffer_size is {capacity}; it must be at least 1")
        self.capacity = capacity
        self.position = self.size = 0
        self.columns: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        """Transitions held."""
        return self.size

    @property
    def bytes_per_transition(self) -> int:
        """Of memory; known once there is a transition."""
        return sum(column[0].numel() * column.element_size() for column in self.columns)

    def add(self, rollout: Transitions, valid: Tensor) -> None:
        """Take in those rows of a round `[time, env]` that are transitions, in the order of time."""
        rows = valid.nonzero(as_tuple=True)
        self._write([field[rows] for field in Replayed.from_transitions(rollout)])

    def draw(self, *shape: int, generator: torch.Generator | None = None) -> Tensor:
        """Indices for `rows`, `shape` of them, uniform with replacement; by default from torch's global stream."""
        return torch.randint(self.size, shape, device=self.columns[0].device, generator=generator)

    def rows(self, index: Tensor) -> Replayed:
        """The transitions at `index: [B]`."""
        return Replayed(*(column.index_select(0, index) for column in self.columns))

    def state(self) -> dict[str, Any]:
        """What is held, and where the next transition goes."""
        return {"position": self.position, "columns": [column[: self.size].clone() for column in self.columns]}

    def load_state(self, state: dict[str, Any], device: torch.device) -> None:
        """The inverse.

        Raises:
            ConfigError: it holds more than there is room for.
        """
        columns = [column.to(device) for column in state["columns"]]
        held = len(columns[0]) if columns else 0
        if held > self.capacity:
            raise ConfigError(
                f"the checkpoint holds {held} transitions; learner.buffer_size {self.capacity} is too small for them"
            )
        self.position = self.size = 0
        if held < self.capacity:  # in the order of time; that changes nothing unless a full ring has more room now
            columns = [column.roll(-state["position"], 0) for column in columns]
        if held:
            self._write(columns)
        if held == self.capacity:
            self.position = state["position"]

    def _write(self, fields: list[Tensor]) -> None:
        if not self.columns:
            self.columns = tuple(field.new_empty(self.capacity, *field.shape[1:]) for field in fields)
        count = len(fields[0])
        kept = min(count, self.capacity)
        index = torch.arange(self.position + count - kept, self.position + count, device=fields[0].device)
        for column, field in zip(self.columns, fields, strict=True):
            column.index_copy_(0, index % self.capacity, field[count - kept :])
        self.position = (self.position + count) % self.capacity
        self.size = min(self.size + count, self.capacity)
