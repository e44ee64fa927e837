"""`OfflineDataModule`: recorded transitions with rewards, for offline reinforcement learning."""

from __future__ import annotations

from typing import Any, Literal

import torch

from lit_imitation.data.demonstration_module import DemonstrationDataModule
from lit_imitation.data.demonstrations import Demonstrations, with_successors
from lit_imitation.errors import ConfigError
from lit_imitation.utils.cache import print_once
from lit_imitation.utils.ranges import check_finite, check_positive

RETURN_RANGE = 1000.0
"""Difference between the largest and the smallest return after normalization, as in IQL's code."""


class OfflineDataModule(DemonstrationDataModule):
    """Recorded transitions (s, a, r, s', terminated) in shuffled batches, good ones and poor ones.

    Reads what `DemonstrationDataModule` reads. Rewards are learned from, so a file has to hold them. Where successors
    were not recorded, they are read from the next row of the trajectory; the last row of a trajectory that was cut off
    is then dropped, and that of one that terminated is kept, because nothing is bootstrapped there.

    Args:
        env_id: ID of a registered Gymnasium environment for evaluation; empty for a file alone.
        batch_size: Transitions of one gradient step, over all processes together.
        val_fraction: Fraction of the trajectories that is held out for the policy's loss.
        reward_normalization: `returns` divides rewards by the difference between the largest and the smallest return of
            a trajectory and multiplies them by 1,000, as in IQL's paper on locomotion; by default they stay.
        reward_scale: Factor on the rewards, after normalization.
        reward_shift: Added to the rewards after that; −1 for AntMaze in IQL's paper.
        **demonstrations: Arguments of `DemonstrationDataModule` and its base classes.

    Raises:
        ConfigError: An argument is out of range.
    """

    needs_successors = True

    def __init__(
        self,
        env_id: str = "",
        *,
        batch_size: int = 256,
        val_fraction: float = 0.0,
        reward_normalization: Literal["returns"] | None = None,
        reward_scale: float = 1.0,
        reward_shift: float = 0.0,
        **demonstrations: Any,
    ) -> None:
        memory = demonstrations.pop("memory", "resident")
        if memory != "resident":
            raise ConfigError(f"data.memory is {memory}; OfflineDataModule keeps transitions in memory: leave it out")
        if demonstrations.get("return_temperature") is not None:
            raise ConfigError(
                "data.return_temperature weighs trajectories for cloning; offline methods learn from rewards which "
                "actions are good: leave it out"
            )
        super().__init__(env_id, batch_size=batch_size, val_fraction=val_fraction, memory=memory, **demonstrations)
        check_positive("data", reward_scale=reward_scale)
        check_finite("data", reward_scale=reward_scale, reward_shift=reward_shift)
        self.reward_normalization = reward_normalization
        self.reward_scale, self.reward_shift = reward_scale, reward_shift

    def add_successors(self, demonstrations: Demonstrations) -> Demonstrations:
        """Find successors where they were not recorded, and the actions taken in them; terminal rows stay."""
        transitions = demonstrations.transitions.clone(recurse=False)
        transitions.next_action = transitions.action.roll(-1, 0)
        return with_successors(demonstrations._replace(transitions=transitions), keep_terminal=True)

    def load(self) -> Demonstrations:
        """All transitions of the source, checked, with the rewards that are learned from.

        Raises:
            ConfigError: There are no rewards, or all trajectories have the same return and returns are to normalize.
        """
        demonstrations = super().load()
        transitions = demonstrations.transitions.clone(recurse=False)
        if not bool(transitions.reward.any()):
            raise ConfigError(
                f"{self._source}: all rewards are 0 or missing, and there is nothing else to learn from; record "
                "rewards [N], or clone the actions with lit_imitation.BC"
            )
        scale = self.reward_scale
        if self.reward_normalization == "returns":
            spread = float(demonstrations.episode_returns.max() - demonstrations.episode_returns.min())
            if not spread:
                raise ConfigError(
                    "data.reward_normalization is returns, but all trajectories of "
                    f"{self._source} have the same return: leave it out"
                )
            scale *= RETURN_RANGE / spread
        if transitions.weight is not None:
            print_once(f"{self._source}: its weights are not used; rewards tell which actions are good")
            transitions.weight = None
        transitions.reward = torch.add(scale * transitions.reward, self.reward_shift)
        return demonstrations._replace(transitions=transitions)
