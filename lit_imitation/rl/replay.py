"""Replay buffer: transitions of past rounds, to be sampled many times."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lit_imitation.errors import ConfigError
from lit_imitation.transitions import Transitions


class ReplayBatch(NamedTuple):
    """A batch of transitions `[B]` from the buffer. Truncation is not stored: a truncated step bootstraps its value."""

    observation: Tensor
    """Observations, `[B, *obs]`."""
    action: Tensor
    """Actions, `[B, *act]`."""
    reward: Tensor
    """The environment's rewards, `[B]`."""
    next_observation: Tensor
    """True successors, `[B, *obs]`."""
    terminated: Tensor
    """Transitions that end an episode by termination, `[B]` bool."""

    @classmethod
    def from_transitions(cls, transitions: Transitions) -> ReplayBatch:
        """Take the stored fields of transitions `[*batch]`."""
        assert transitions.next_observation is not None
        return cls(
            transitions.observation,
            transitions.action,
            transitions.reward,
            transitions.next_observation,
            transitions.terminated,
        )

    def rows(self, index: Tensor) -> ReplayBatch:
        """Rows `index: [B]` of every field."""
        return ReplayBatch(*(column.index_select(0, index) for column in self))

    def concatenate(self, other: ReplayBatch) -> ReplayBatch:
        """Append the rows of another batch."""
        return ReplayBatch(*(torch.cat(columns) for columns in zip(self, other, strict=True)))


class Replay:
    """Ring buffer of the last `capacity` transitions, one preallocated tensor per field, on the first round's device.

    A million transitions take `bytes_per_transition` megabytes. For vectors of n observations and m actions that is
    8n + 4m + 5: 105 MB on Hopper, 145 MB on HalfCheetah. The first round allocates the memory. Where the operating
    system commits pages on write, memory use grows as the buffer fills.

    Args:
        capacity: Largest number of transitions kept.

    Raises:
        ConfigError: `capacity` is below 1.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ConfigError(f"learner.buffer_size is {capacity}; it must be at least 1")
        self.capacity = capacity
        self.position = self.size = 0
        self.columns: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        """Number of transitions held."""
        return self.size

    @property
    def bytes_per_transition(self) -> int:
        """Bytes of memory per transition; 0 before the first round."""
        return sum(column[0].numel() * column.element_size() for column in self.columns)

    def add(self, rollout: Transitions, valid: Tensor) -> None:
        """Store a round's valid rows, in the order of time.

        Args:
            rollout: The round, `[time, env]`, with successors.
            valid: Rows that are transitions, `[time, env]` bool.
        """
        rows = valid.nonzero(as_tuple=True)
        self._write([field[rows] for field in ReplayBatch.from_transitions(rollout)])

    def draw(self, *shape: int, generator: torch.Generator | None = None) -> Tensor:
        """Sample indices for `rows`, uniformly with replacement.

        Args:
            shape: Shape of the result.
            generator: Random stream; `None` is torch's global one.

        Returns:
            Indices, `[*shape]`.
        """
        return torch.randint(self.size, shape, device=self.columns[0].device, generator=generator)

    def rows(self, index: Tensor) -> ReplayBatch:
        """Transitions at `index: [B]`."""
        return ReplayBatch(*(column.index_select(0, index) for column in self.columns))

    def state(self) -> dict[str, Any]:
        """The transitions held and the position of the next one."""
        return {"position": self.position, "columns": [column[: self.size].clone() for column in self.columns]}

    def load_state(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore what `state` returned.

        Args:
            state: Result of `state`.
            device: Device to keep the transitions on.

        Raises:
            ConfigError: The state holds more than `capacity` transitions.
        """
        columns = [column.to(device) for column in state["columns"]]
        held = len(columns[0]) if columns else 0
        if held > self.capacity:
            raise ConfigError(
                f"the checkpoint holds {held} transitions; learner.buffer_size is {self.capacity}; set it to at least "
                f"{held}"
            )
        self.position = self.size = 0
        if held < self.capacity:  # restores the order of time where a ring that was full has more room now
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
