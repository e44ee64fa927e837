"""Feature vectors of transitions for reward models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from gymnasium import Space
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from torch import Tensor, nn

from lit_imitation.errors import ConfigError, UnsupportedSpaceError
from lit_imitation.networks.encoders import Encoder, EncoderKind
from lit_imitation.networks.one_hot import one_hot
from lit_imitation.transitions import Inputs, Transitions
from lit_imitation.utils.sampling import sample_rank_rows
from lit_imitation.utils.spaces import float32_bounds
from lit_imitation.utils.units import action_units


def check_inputs(inputs: str) -> None:
    """Raise `ConfigError` unless `inputs` is one of `Inputs`; calls from Python are not type-checked before."""
    if inputs not in get_args(Inputs):
        raise ConfigError(f"inputs is {inputs!r}; choose one of {', '.join(get_args(Inputs))}")


class Samples(NamedTuple):
    """Transitions `[B]` as inputs of a discriminator, one tensor per field."""

    observation: Tensor
    """`[B, *obs]` observations."""
    action: Tensor
    """`[B, *act]` actions."""
    next_observation: Tensor
    """`[B, *obs]` true successors."""
    terminated: Tensor
    """`[B]` bool: the successor is terminal."""
    absorbing: Tensor
    """`[B]` bool: the state is the absorbing state after the end of an episode; other fields of the row are ignored."""

    def rows(self, index: Tensor) -> Samples:
        """Select the rows `index: [N]`."""
        return Samples(*(column.index_select(0, index) for column in self))

    def sample_indices(self, count: int, weight: Tensor | None = None) -> Tensor:
        """Sample row indices `[count]` with replacement, by `weight: [B]` if given; different ones on each process."""
        return sample_rank_rows(len(self.absorbing), count, self.absorbing.device, weight)

    @classmethod
    def concatenate(cls, samples: Sequence[Samples]) -> Samples:
        """Concatenate samples."""
        return cls(*(torch.cat(columns) for columns in zip(*samples, strict=True)))

    @classmethod
    def from_transitions(cls, transitions: Transitions, *, absorbing: bool = False) -> Samples:
        """Convert transitions `[N]`; with `absorbing`, append one absorbing row per terminated episode.

        Raises:
            ValueError: The transitions have no `next_observation`.
        """
        if transitions.next_observation is None:
            raise ValueError(
                "the transitions have no next_observation [N, *obs], the true successor of each row: give it; if the "
                "reward does not depend on it, as in r(s) or D(s, a), give the observation instead"
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
    """Encoder of actions as vectors: one-hot for discrete actions, the units of `action_units` for continuous ones.

    A Gaussian sample outside the range counts as the bound, as in the environment. The expert's recorded actions all
    lie inside, so otherwise a discriminator could separate the two by this alone.

    Args:
        space: Action space.

    Raises:
        UnsupportedSpaceError: The space is not Box, Discrete or MultiDiscrete.
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
            raise UnsupportedSpaceError(
                f"a reward of the action needs a Box, Discrete or MultiDiscrete action space, not {space}"
            )
        self.register_buffer("middle", torch.as_tensor(middle, dtype=torch.long if self.counts else torch.float32))
        self.register_buffer("half_range", torch.as_tensor(half, dtype=torch.float32))

    @torch.no_grad()
    def fit(self, action: Tensor) -> None:
        """Fit the units to demonstrated actions `[N, *act]` where the bounds do not define them."""
        if isinstance(self.space, Box):
            middle, half, _ = action_units(self.space, action.cpu().numpy())
            self.middle.copy_(torch.as_tensor(middle))
            self.half_range.copy_(torch.as_tensor(half))

    def forward(self, action: Tensor) -> Tensor:
        """Vectors `[B, out_features]` of actions `[B, *act]`."""
        flat = action.reshape(action.shape[0], -1)
        if not self.counts:
            return (flat.clamp(self.low, self.high) - self.middle) / self.half_range
        return one_hot(flat.long() - self.middle, self.counts)


class Features(nn.Module):
    """Concatenated features of the parts of (s, a, s′) that `inputs` names.

    With `absorbing`, every state has an extra entry that is 1 for the absorbing state and 0 otherwise.

    Args:
        observation_space: Box or Discrete observation space.
        action_space: Box, Discrete or MultiDiscrete action space.
        inputs: Inputs of the reward.
        absorbing: Mark the absorbing state.
        encoder: Kind of encoder, with its options, or encoders of parts by path; see `Encoder`.
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
        self.action_features = ActionFeatures(action_space) if inputs == "state_action" else None
        self.state_features = self.encoder.out_features + absorbing
        more = {"state": 0, "transition": self.state_features}
        self.out_features = self.state_features + (
            more[inputs] if self.action_features is None else self.action_features.out_features
        )

    def state(self, observation: Tensor, absorbing: Tensor) -> Tensor:
        """State features `[B, state_features]`."""
        features: Tensor = self.encoder(observation)
        if not self.absorbing:
            return features
        # A product would not do: the masked values may be NaN or infinite.
        features = torch.where(absorbing[:, None], torch.zeros_like(features), features)
        return torch.cat([features, absorbing[:, None].to(features.dtype)], -1)

    def forward(self, samples: Samples) -> Tensor:
        """Features `[B, out_features]`."""
        parts = [self.state(samples.observation, samples.absorbing)]
        if self.action_features is not None:
            action = self.action_features(samples.action)
            if self.absorbing:  # no action is taken there, and index 0 would be a valid discrete action
                action = torch.where(samples.absorbing[:, None], torch.zeros_like(action), action)
            parts.append(action)
        elif self.inputs == "transition":
            parts.append(self.state(samples.next_observation, samples.terminated | samples.absorbing))
        return torch.cat(parts, -1)
