"""Learned rewards loaded from checkpoints."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from lit_imitation.errors import ConfigError
from lit_imitation.policies.checkpoints import load_part
from lit_imitation.rewards.base import LearnableReward, RewardModel
from lit_imitation.rewards.tabular import TabularReward
from lit_imitation.transitions import Transitions


class LearnedReward(RewardModel):
    """Frozen reward learned by a discriminator, guided cost learning or maximum-entropy IRL.

    Args:
        model: Trained model; its `recovered_reward` is used.
    """

    def __init__(self, model: LearnableReward | TabularReward) -> None:
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        self.spaces = model.observation_space, model.action_space

    @torch.no_grad()
    def reward(self, transitions: Transitions) -> Tensor:
        """Rewards `[*batch]` of `transitions: [*batch]`."""
        return self.model.recovered_reward(transitions)


def load_reward(path: str | Path, device: str | torch.device = "cpu", trust: bool = False) -> LearnedReward:
    """Load the reward that a run learned.

    This is r_ψ for AIRL and r_θ for GCL and MaxEntIRL. For GAIL it is the reward that the learner received last.
    `reward(transitions)` maps `Transitions` `[*batch]` to rewards `[*batch]`. In a recipe, `model.reward` accepts the
    path.

    Args:
        path: Checkpoint file, or directory of a run, which stands for its best checkpoint.
        device: Device of the parameters.
        trust: Let the file name a reward class from outside this package, and import its module.

    Returns:
        The reward.

    Raises:
        ConfigError: There is no checkpoint, or it contains no learned reward.
    """
    model = load_part(path, "reward", RewardModel, trust)  # type: ignore[type-abstract]
    if not isinstance(model, LearnableReward | TabularReward):
        raise ConfigError(f"{path} contains a {type(model).__name__}, which is not learned from demonstrations")
    reward = LearnedReward(model)
    reward.source = model.source
    return reward.to(device)
