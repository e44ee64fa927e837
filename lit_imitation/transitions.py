"""`Transitions`, the record passed between environments, experts, data and methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import Space
from gymnasium.spaces import Box
from numpy.typing import NDArray
from tensordict import TensorClass
from torch import Tensor

Inputs = Literal["state", "state_action", "transition"]
"""Inputs of a reward function: s, (s, a) or (s, s′)."""


def cast_observation(observation: NDArray[Any], space: Space[Any]) -> NDArray[Any]:
    """Cast observations to the dtype of `Transitions`: float32 or uint8 for a Box, int64 for other spaces."""
    if not isinstance(space, Box):
        return observation.astype(np.int64, copy=False)
    return observation if observation.dtype == np.uint8 else observation.astype(np.float32, copy=False)


def cast_action(action: NDArray[Any], space: Space[Any]) -> NDArray[Any]:
    """Cast actions to float16 where their Box has that dtype; other actions are returned unchanged."""
    return action.astype(np.float16) if space.dtype == np.float16 and action.dtype != np.float16 else action


class Transitions(TensorClass):
    """Environment steps: `[N]`, or `[time, env]` for a round of rollouts.

    A flat record `[N]` holds whole trajectories one after another, in time order. An episode ends at each row where
    `terminated` or `truncated` is true, and the last row always ends one.

    `terminated` marks a terminal state (value 0). `truncated` marks an episode cut off early, by a time limit for
    example; the value of `next_observation` still counts.
    """

    observation: Tensor
    """`[N, *obs]` observations: float32, uint8 where the space is uint8, int64 for discrete spaces."""
    action: Tensor
    """`[N, *act]` float32, or `[N]` int64 for discrete actions, in the environment's own units."""
    reward: Tensor
    """`[N]` float32 reward of the environment."""
    terminated: Tensor
    """`[N]` bool: the next state is terminal."""
    truncated: Tensor
    """`[N]` bool: the episode was cut off here."""
    next_observation: Tensor | None = None
    """`[N, *obs]` true successors: at the end of an episode its final observation, not the next episode's first."""
    next_action: Tensor | None = None
    """`[N, *act]` action taken in the successor, for offline learning; without meaning where the episode ends."""
    weight: Tensor | None = None
    """`[N]` float32 weight of each transition in a loss; None means 1 for all."""
    log_prob: Tensor | None = None
    """`[N]` float32 log π(action | observation) under the policy that acted, if recorded."""

    @property
    def done(self) -> Tensor:
        """`[N]` bool: the episode ends here, terminated or truncated."""
        return self.terminated | self.truncated

    @classmethod
    def from_numpy(cls, arrays: Mapping[str, np.ndarray[Any, Any]], **tensors: Tensor) -> Transitions:
        """Build a record from arrays keyed by field name; float64 becomes float32, integers become int64.

        uint8 observations keep their dtype. `tensors` are stored unchanged.
        """
        for name, array in arrays.items():
            if name in ("terminated", "truncated"):
                array = array.astype(np.bool_)
            elif array.dtype != np.uint8 or name not in ("observation", "next_observation"):
                array = array.astype(np.float32 if array.dtype.kind == "f" else np.int64, copy=False)
            tensors[name] = torch.from_numpy(np.ascontiguousarray(array))
        for name in ("reward", "weight", "log_prob"):
            if name in tensors:
                tensors[name] = tensors[name].float()
        return cls(**tensors, batch_size=tensors["reward"].shape)  # type: ignore[arg-type]

    @classmethod
    def concatenate(cls, records: Sequence[Transitions]) -> Transitions:
        """Concatenate flat records, keeping the optional fields that all of them have."""
        records = [record.clone(recurse=False) for record in records]
        for name in ("next_observation", "next_action", "weight", "log_prob"):
            if any(getattr(record, name) is None for record in records):
                for record in records:
                    setattr(record, name, None)
        return torch.cat(records)  # type: ignore[arg-type, return-value]

    def episode_lengths(self) -> Tensor:
        """`[episodes]` int64 number of transitions in each trajectory of a flat record."""
        ends = self.done.nonzero().squeeze(-1)
        return torch.diff(ends, prepend=ends.new_tensor([-1]))

    def episode_index(self) -> Tensor:
        """`[N]` int64 index of the trajectory, from 0, that each row of a flat record belongs to."""
        done = self.done.long()
        return done.cumsum(0) - done

    def episode_returns(self) -> Tensor:
        """`[episodes]` float64 sum of rewards of each trajectory of a flat record."""
        episode = self.episode_index()
        count = int(self.done.sum())
        return torch.zeros(count, dtype=torch.float64, device=episode.device).index_add_(
            0, episode, self.reward.double()
        )

    def select_episodes(self, episodes: Tensor) -> Transitions:
        """Select trajectories by index, in the given order, as a new flat record."""
        lengths = self.episode_lengths()
        starts = lengths.cumsum(0) - lengths
        rows = [
            torch.arange(start, start + length)
            for start, length in zip(starts[episodes].tolist(), lengths[episodes].tolist(), strict=True)
        ]
        return self[torch.cat(rows)] if rows else self[:0]

    def keep(self, rows: Tensor) -> Transitions:
        """Keep the rows `[N]` bool of a flat record; a trajectory that loses its end is truncated at its last row.

        `next_observation` is unchanged: still the true successor. Trajectories without a selected row disappear.
        """
        episode = self.episode_index()
        index = rows.nonzero().squeeze(-1)
        last = torch.ones_like(index, dtype=torch.bool)
        last[:-1] = episode[index[1:]] != episode[index[:-1]]
        result: Transitions = self[index]
        result.truncated = result.truncated | (last & ~result.done)
        return result
