"""`Transitions`, the one record that travels between environments, experts, data and methods."""

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
"""What a reward is a function of: s, (s, a) or (s, s′)."""


def as_recorded(observation: NDArray[Any], space: Space[Any]) -> NDArray[Any]:
    """Observations as `Transitions` holds them: of a Box float32, or uint8 where they are; of other spaces int64."""
    if not isinstance(space, Box):
        return observation.astype(np.int64, copy=False)
    return observation if observation.dtype == np.uint8 else observation.astype(np.float32, copy=False)


def as_played(action: NDArray[Any], space: Space[Any]) -> NDArray[Any]:
    """Actions in the precision of their Box where that is less than float32; others as they are."""
    return action.astype(np.float16) if space.dtype == np.float16 and action.dtype != np.float16 else action


class Transitions(TensorClass):
    """Steps of an agent in an environment, `[N]` of them, or `[time, env]` for a round of rollouts.

    A flat record `[N]` holds whole trajectories one after another in time order: an episode ends at each row where
    `terminated` or `truncated` is true, and the last row ends one.

    `terminated` means that the environment reached a state with no future (value 0); `truncated` that somebody
    stopped looking (the value of `next_observation` still counts).
    """

    observation: Tensor
    """`[N, *obs]`: what the agent saw. float32, uint8 where the space is, int64 for discrete observations."""
    action: Tensor
    """`[N, *act]` float32, or `[N]` int64 for a discrete action, in the environment's own values."""
    reward: Tensor
    """`[N]` float32: the environment's reward."""
    terminated: Tensor
    """`[N]` bool."""
    truncated: Tensor
    """`[N]` bool."""
    next_observation: Tensor | None = None
    """`[N, *obs]`: the true successor, at an episode's end the final observation and not the next episode's first."""
    weight: Tensor | None = None
    """`[N]` float32: how much a transition counts in a loss; absent means 1."""
    log_prob: Tensor | None = None
    """`[N]` float32: log π(action | observation) of the policy that acted, where a learner wrote it."""

    @property
    def done(self) -> Tensor:
        """`[N]` bool: an episode ends here, for whichever reason."""
        return self.terminated | self.truncated

    @classmethod
    def from_numpy(cls, arrays: Mapping[str, np.ndarray[Any, Any]], **tensors: Tensor) -> Transitions:
        """From arrays under this class's names; float64 becomes float32, integers int64 (uint8 observations stay).

        `tensors` are taken as they are.
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
    def joined(cls, records: Sequence[Transitions]) -> Transitions:
        """Flat records one after another, with the optional fields that all of them have."""
        records = [record.clone(recurse=False) for record in records]
        for name in ("next_observation", "weight", "log_prob"):
            if any(getattr(record, name) is None for record in records):
                for record in records:
                    setattr(record, name, None)
        return torch.cat(records)  # type: ignore[arg-type, return-value]

    def episode_lengths(self) -> Tensor:
        """`[episodes]` int64: the number of transitions of each trajectory of a flat record, in order."""
        ends = self.done.nonzero().squeeze(-1)
        return torch.diff(ends, prepend=ends.new_tensor([-1]))

    def episode_index(self) -> Tensor:
        """`[N]` int64: which trajectory, from 0, each row of a flat record belongs to."""
        done = self.done.long()
        return done.cumsum(0) - done

    def episode_returns(self) -> Tensor:
        """`[episodes]` float64: the sum of rewards of each trajectory of a flat record."""
        episode = self.episode_index()
        count = int(self.done.sum())
        return torch.zeros(count, dtype=torch.float64, device=episode.device).index_add_(
            0, episode, self.reward.double()
        )

    def select_episodes(self, episodes: Tensor) -> Transitions:
        """The trajectories with these indices, in this order, as a new flat record."""
        lengths = self.episode_lengths()
        starts = lengths.cumsum(0) - lengths
        rows = [
            torch.arange(start, start + length)
            for start, length in zip(starts[episodes].tolist(), lengths[episodes].tolist(), strict=True)
        ]
        return self[torch.cat(rows)] if rows else self[:0]

    def keep(self, rows: Tensor) -> Transitions:
        """The rows `[N]` bool of a flat record; where a trajectory loses its end, the last row kept is truncated.

        Successors stay the true ones. A trajectory without a kept row is gone.
        """
        episode = self.episode_index()
        kept = rows.nonzero().squeeze(-1)
        last = torch.ones_like(kept, dtype=torch.bool)
        last[:-1] = episode[kept[1:]] != episode[kept[:-1]]
        result: Transitions = self[kept]
        result.truncated = result.truncated | (last & ~result.done)
        return result
