"""A learned reward out of a checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from lit_imitation.errors import ConfigError
from lit_imitation.policies.checkpoints import load_described
from lit_imitation.rewards.base import LearnableReward, RewardModel
from lit_imitation.rewards.tabular import TabularReward
from lit_imitation.transitions import Transitions


class LearnedReward(RewardModel):
    """What a discriminator, guided cost learning or maximum-entropy IRL has learned, as a reward that stays as it is.

    Args:
        model: the model that was trained; of it what `recovered` says.
    """

    def __init__(self, model: LearnableReward | TabularReward) -> None:
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        self.spaces = model.observation_space, model.action_space

    @torch.no_grad()
    def reward(self, transitions: Transitions) -> Tensor:
        """`[*batch]`."""
        return self.model.recovered(transitions)


def load_reward(path: str | Path, device: str | torch.device = "cpu", trust: bool = False) -> LearnedReward:
    """The reward that a run learned: r_ψ of AIRL, r_θ of GCL and MaxEntIRL; of GAIL, what its last learner was paid.

    `reward(transitions)` gives the reward `[*batch]` of `Transitions`; the path alone serves as a recipe's
    `model.reward`.

    Args:
        path: a checkpoint file, or the directory of a run (its best checkpoint is taken).
        device: where its parameters shall be.
        trust: let the file name a reward class that is not of this package, whose module is then imported.

    Raises:
        ConfigError: no checkpoint there, or none with a reward.
    """
    model = load_described(path, "reward", RewardModel, trust)  # type: ignore[type-abstract]
    if not isinstance(model, LearnableReward | TabularReward):
        raise ConfigError(f"{path} holds a {type(model).__name__}, which is not learned from demonstrations")
    reward = LearnedReward(model)
    reward.source = model.source
    return reward.to(device)
