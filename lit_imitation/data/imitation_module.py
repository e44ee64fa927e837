"""`ImitationDataModule`: rounds of the current policy, and an expert's demonstrations to compare them with."""

from __future__ import annotations

from lit_imitation.data.expert_module import ExpertDataModule
from lit_imitation.data.rollout_module import RolloutDataModule
from lit_imitation.envs import episode_limit

EXPERT_ENVS = 10
"""Environments that the expert is rolled out in: fixed, so that demonstrations do not depend on `num_envs`."""


class ImitationDataModule(ExpertDataModule, RolloutDataModule):
    """Rounds of the current policy as in `RolloutDataModule`, and demonstrations as in `ExpertDataModule`.

    For methods that train on both. Demonstrations are drawn in proportion to their weights, and discriminators are
    evaluated on the held-out trajectories. Where successors were not recorded, they are read from the next row of the
    trajectory, and the last row of each trajectory is dropped.
    """

    needs_successors = True

    @property
    def expert_envs(self) -> int:
        """Number of environments that the expert is rolled out in."""
        return EXPERT_ENVS

    def setup(self, stage: str) -> None:
        """Read, check, choose and hold out demonstrations; turn `env_steps` into epochs."""
        super().setup(stage)
        if stage == "fit" and episode_limit(self.env_id, **self.env_kwargs) is None:
            self.check_epoch(self.longest)
