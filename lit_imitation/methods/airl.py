"""Adversarial inverse reinforcement learning (Fu, Luo & Levine 2018, arXiv:1710.11248)."""

from __future__ import annotations

from typing import Any

from lit_imitation.methods.gail import GAIL
from lit_imitation.rewards import AIRLDiscriminator, DiscriminatorFactory


class AIRL(GAIL):
    """GAIL with D = e^f / (e^f + π(a | s)) and f = r_ψ(s) + γ Φ(s′) − Φ(s)        (algorithm 1, eq. 4)

    It learns a policy and a reward r_ψ without terms that depend on the policy, see `AIRLDiscriminator`.
    `load_reward(DIR)` reads the reward, and `reward: DIR` trains PPO or SAC by it, also under other dynamics.

    Args:
        discriminator: Builds the discriminator from the two spaces.
        replay_rounds: Earlier rounds whose learner pairs are drawn along with those of the current one.
        **arguments: As of `GAIL`.
    """

    def __init__(
        self, discriminator: DiscriminatorFactory = AIRLDiscriminator, *, replay_rounds: int = 20, **arguments: Any
    ) -> None:
        super().__init__(discriminator, replay_rounds=replay_rounds, **arguments)
