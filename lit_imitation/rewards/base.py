"""What every reward model is."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from lit_imitation.transitions import Transitions


class RewardModel(nn.Module, ABC):
    """A reward for the generator in place of the environment's own: `model.reward` of a recipe names a subclass."""

    @abstractmethod
    def reward(self, transitions: Transitions) -> Tensor:
        """`[*batch]`: the reward of each transition of `transitions: [*batch]`."""
