"""Base classes of reward models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from gymnasium import Space
from torch import Tensor, nn

from lit_imitation.networks.encoders import EncoderKind
from lit_imitation.rewards.features import ActionFeatures, Features, Samples
from lit_imitation.transitions import Inputs, Transitions
from lit_imitation.utils.descriptions import Describable
from lit_imitation.utils.spaces import example_element


class RewardModel(Describable, nn.Module, ABC):
    """Reward for the learner in place of the environment's reward; `model.reward` in a recipe names a subclass."""

    @abstractmethod
    def reward(self, transitions: Transitions) -> Tensor:
        """Rewards `[*batch]` of `transitions: [*batch]`."""


class LearnableReward(RewardModel):
    """Neural network on features of transitions, trained together with a policy.

    Args:
        observation_space: Box or Discrete observation space.
        action_space: Box, Discrete or MultiDiscrete action space.
        inputs: Inputs of the reward.
        absorbing: Mark the absorbing state after the end of an episode with an extra feature.
        encoder: Kind of encoder, with its options, or encoders of parts by path; see `Encoder`.
    """

    context = ("observation_space", "action_space")

    def __init__(
        self,
        observation_space: Space[Any],
        action_space: Space[Any],
        inputs: Inputs,
        absorbing: bool = False,
        encoder: EncoderKind = "auto",
    ) -> None:
        super().__init__()
        self.observation_space, self.action_space = observation_space, action_space
        self.features = Features(observation_space, action_space, inputs, absorbing, encoder)

    def fit_actions(self, action: Tensor) -> None:
        """Fit the units of continuous actions to demonstrated actions `[N, *act]`, as a policy does."""
        for module in self.modules():
            if isinstance(module, ActionFeatures):
                module.fit(action)

    def absorbing_state(self) -> Samples:
        """One row for the absorbing state; the features mask its placeholders."""
        device = next(self.parameters()).device
        observation, action = (
            torch.from_numpy(example_element(space)[None]).to(device)
            for space in (self.observation_space, self.action_space)
        )
        yes = torch.ones(1, dtype=torch.bool, device=device)
        return Samples(observation, action, observation, yes, yes)

    def recovered_reward(self, transitions: Transitions) -> Tensor:
        """Rewards `[*batch]` without policy-dependent terms; by default `reward`."""
        return self.reward(transitions)


RewardFactory: TypeAlias = Callable[[Space[Any], Space[Any]], LearnableReward]
"""Function that builds a reward from observation and action space."""
