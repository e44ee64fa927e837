"""A learnt reward out of a checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from lit_imitation.errors import ConfigError
from lit_imitation.policies.checkpoints import build, find_checkpoint, read_checkpoint
from lit_imitation.rewards.base import LearnableReward, RewardModel
from lit_imitation.rewards.tabular import TabularReward
from lit_imitation.transitions import Transitions


class LearntReward(RewardModel):
    """What a discriminator, guided cost learning or maximum-entropy IRL has learnt, as a reward that stays as it is.

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


def load_reward(path: str | Path, device: str | torch.device = "cpu") -> LearntReward:
    """The reward that a run learnt: r_ψ of AIRL, r_θ of GCL and MaxEntIRL; of GAIL, what its last learner was paid.

    `reward(transitions)` gives the reward `[*batch]` of `Transitions`; the path alone serves as a recipe's
    `model.reward`.

    Args:
        path: a checkpoint file, or the directory of a run (its best checkpoint is taken).
        device: where its parameters shall be.

    Raises:
        ConfigError: no checkpoint there, or none with a reward.
    """
    file = find_checkpoint(path)
    checkpoint = read_checkpoint(file)
    if "reward" not in checkpoint:
        raise ConfigError(f"{file} holds no learnt reward (no key 'reward'); GAIL, AIRL, GCL and MaxEntIRL learn one")
    prefix = "reward."
    try:
        model = build(checkpoint["reward"], RewardModel)  # type: ignore[type-abstract]
        if not isinstance(model, LearnableReward | TabularReward):
            raise TypeError(f"{type(model).__name__} is not learnt from demonstrations")
        state = {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}
        model.load_state_dict(state)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ConfigError(f"{file} holds a damaged or foreign reward: {type(error).__name__}: {error}") from error
    return LearntReward(model).to(device)
