"""What every reward model is, and what those have in common that are learned from transitions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeAlias

from gymnasium import Space
from torch import Tensor, nn

from lit_imitation.networks.encoders import EncoderKind
from lit_imitation.rewards.features import ActionFeatures, Features
from lit_imitation.transitions import Inputs, Transitions
from lit_imitation.utils.descriptions import Describable


class RewardModel(Describable, nn.Module, ABC):
    """A reward for the learner in place of the environment's own: `model.reward` of a recipe names a subclass."""

    @abstractmethod
    def reward(self, transitions: Transitions) -> Tensor:
        """`[*batch]`: the reward of each transition of `transitions: [*batch]`."""


class LearnableReward(RewardModel):
    """A network of the features of transitions, trained beside a policy.

    Args:
        observation_space: Box or Discrete.
        action_space: Box, Discrete or MultiDiscrete.
        inputs: what is read.
        absorbing: tell the state after an episode's end from the others.
        encoder: how observations are read, see `Encoder`.
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
        """Take the units of continuous actions from demonstrated ones `[N, *act]`, as a policy does."""
        for module in self.modules():
            if isinstance(module, ActionFeatures):
                module.fit(action)

    def recovered(self, transitions: Transitions) -> Tensor:
        """`[*batch]`: what is a reward without the learner it was learned beside; here `reward` itself."""
        return self.reward(transitions)


RewardFactory: TypeAlias = Callable[[Space[Any], Space[Any]], LearnableReward]
"""Builds a reward from the two spaces."""
