"""From transitions to the vectors that a model of the reward reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import Space
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from torch import Tensor, nn

from lit_imitation.errors import ConfigError, UnsupportedSpaceError
from lit_imitation.networks.encoders import Encoder, EncoderKind
from lit_imitation.transitions import Inputs, Transitions
from lit_imitation.utils.sampling import sample_rank_rows
from lit_imitation.utils.spaces import float32_bounds
from lit_imitation.utils.units import action_units


def check_inputs(inputs: str) -> None:
    """Raise a ConfigError unless these are `Inputs`; what is called from Python has no type check before it."""
    if inputs not in get_args(Inputs):
        raise ConfigError(f"inputs is {inputs!r}; choose one of {', '.join(get_args(Inputs))}")


class Samples(NamedTuple):
    """Transitions `[B]` as a discriminator is shown them, one tensor a field."""

    observation: Tensor
    """`[B, *obs]`."""
    action: Tensor
    """`[B, *act]`."""
    next_observation: Tensor
    """`[B, *obs]`: the true successor."""
    terminated: Tensor
    """`[B]` bool: the successor is a state without a future."""
    absorbing: Tensor
    """`[B]` bool: the state itself is the one after an episode's end; the rest of the row, which may be anything, is
    not read."""

    def rows(self, index: Tensor) -> Samples:
        """Those at `index: [N]`."""
        return Samples(*(column.index_select(0, index) for column in self))

    def draw(self, count: int, weight: Tensor | None = None) -> Tensor:
        """Indices for `rows`, `[count]`, with replacement, by `weight: [B]` if given; on each process others."""
        return sample_rank_rows(len(self.absorbing), count, self.absorbing.device, weight)

    @classmethod
    def concatenate(cls, samples: Sequence[Samples]) -> Samples:
        """One after the other."""
        return cls(*(torch.cat(columns) for columns in zip(*samples, strict=True)))

    @classmethod
    def of(cls, transitions: Transitions, *, absorbing: bool = False) -> Samples:
        """Transitions `[N]`, and after them, if asked for, one absorbing row for each episode that was terminated.

        Raises:
            ValueError: without `next_observation`.
        """
        if transitions.next_observation is None:
            raise ValueError(
                "the transitions have no next_observation, [N, *obs], the true successor of each row: give it; where "
                "the reward reads none (r(s), D(s, a)) the observation itself will do"
            )
        never = torch.zeros_like(transitions.terminated)
        samples = Samples(
            transitions.observation, transitions.action, transitions.next_observation, transitions.terminated, never
        )
        if not absorbing:
            return samples
        ends = samples.rows(transitions.terminated.nonzero().squeeze(-1))
        return cls.concatenate([samples, ends._replace(absorbing=torch.ones_like(ends.absorbing))])


class ActionFeatures(nn.Module):
    """Actions as vectors: indicators of discrete ones, continuous ones in the units of `action_units`.

    What a Gaussian draws outside the range counts as the bound, as it does in the environment: an expert's recorded
    actions all lie inside, and a discriminator would tell the two apart by that alone.
    """

    middle: Tensor
    half_range: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, space: Space[Any]) -> None:
        super().__init__()
        self.space = space
        self.counts: list[int] = []
        if isinstance(space, Box):
            middle, half, _ = action_units(space)
            for name, bound in zip(("low", "high"), float32_bounds(space), strict=True):
                self.register_buffer(name, torch.from_numpy(bound.reshape(-1).copy()), persistent=False)
            self.out_features = middle.size
        elif isinstance(space, Discrete | MultiDiscrete):
            counts, starts = ([space.n], [space.start]) if isinstance(space, Discrete) else (space.nvec, space.start)
            self.counts = [int(count) for count in np.asarray(counts).reshape(-1)]
            middle, half = np.asarray(starts).reshape(-1), np.ones(1)
            self.out_features = sum(self.counts)
        else:
            raise UnsupportedSpaceError(f"a reward of the action reads Box, Discrete or MultiDiscrete, not {space}")
        self.register_buffer("middle", torch.as_tensor(middle, dtype=torch.long if self.counts else torch.float32))
        self.register_buffer("half_range", torch.as_tensor(half, dtype=torch.float32))

    @torch.no_grad()
    def fit(self, action: Tensor) -> None:
        """Take the units from demonstrated actions `[N, *act]`, where the bounds give none that fit them."""
        if isinstance(self.space, Box):
            middle, half, _ = action_units(self.space, action.cpu().numpy())
            self.middle.copy_(torch.as_tensor(middle))
            self.half_range.copy_(torch.as_tensor(half))

    def forward(self, action: Tensor) -> Tensor:
        """`[B, *act]` to `[B, out_features]`."""
        flat = action.reshape(len(action), -1)
        if not self.counts:
            return (flat.clamp(self.low, self.high) - self.middle) / self.half_range
        index = flat.long() - self.middle
        hot = [F.one_hot(index[:, i], count) for i, count in enumerate(self.counts)]
        return torch.cat(hot, -1).float()


class Features(nn.Module):
    """(s, a, s′) as one vector: the parts that `inputs` names, one beside the other.

    With `absorbing`, every state carries one entry more: whether it is the absorbing one, which is 0 elsewhere.

    Args:
        observation_space: Box or Discrete.
        action_space: Box, Discrete or MultiDiscrete.
        inputs: what is read.
        absorbing: tell the state after an episode's end from the others.
        encoder: how observations are read, see `Encoder`.
    """

    def __init__(
        self,
        observation_space: Space[Any],
        action_space: Space[Any],
        inputs: Inputs,
        absorbing: bool,
        encoder: EncoderKind = "auto",
    ) -> None:
        super().__init__()
        check_inputs(inputs)
        self.inputs, self.absorbing = inputs, absorbing
        self.encoder = Encoder(observation_space, encoder)
        self.of_action = ActionFeatures(action_space) if inputs == "state_action" else None
        self.state_features = self.encoder.out_features + absorbing
        more = {"state": 0, "transition": self.state_features}
        self.out_features = self.state_features + (
            more[inputs] if self.of_action is None else self.of_action.out_features
        )

    def state(self, observation: Tensor, absorbing: Tensor) -> Tensor:
        """`[B, state_features]`."""
        features: Tensor = self.encoder(observation)
        if not self.absorbing:
            return features
        # Not by a product: what stands there may be anything.
        features = torch.where(absorbing[:, None], torch.zeros_like(features), features)
        return torch.cat([features, absorbing[:, None].to(features.dtype)], -1)

    def forward(self, samples: Samples) -> Tensor:
        """`[B, out_features]`."""
        parts = [self.state(samples.observation, samples.absorbing)]
        if self.of_action is not None:
            action = self.of_action(samples.action)
            if self.absorbing:  # there is nothing to choose there, and 0 is a discrete action too
                action = torch.where(samples.absorbing[:, None], torch.zeros_like(action), action)
            parts.append(action)
        elif self.inputs == "transition":
            parts.append(self.state(samples.next_observation, samples.terminated | samples.absorbing))
        return torch.cat(parts, -1)
