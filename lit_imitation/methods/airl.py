"""Adversarial inverse reinforcement learning (Fu, Luo & Levine 2018)."""

from __future__ import annotations

from lit_imitation.methods.adversarial import Adversarial
from lit_imitation.policies import PolicyFactory
from lit_imitation.rewards import AIRLDiscriminator, DiscriminatorFactory
from lit_imitation.rl import LearnerFactory


class AIRL(Adversarial):
    """As GAIL, with D = e^f / (e^f + π(a | s)) and f = r_ψ(s) + γ Φ(s′) − Φ(s), see `AIRLDiscriminator`.

    What has been learned is a policy and a reward, r_ψ, which `load_reward(DIR)` reads, and which is the reward of a
    PPO or SAC recipe by `reward: DIR`: elsewhere, too, where the same is to be done under other dynamics.

    Args:
        discriminator: builds the discriminator from the two spaces.
        learner: builds the learner; by default `PPO`.
        policy: builds the policy; by default the learner's own choice.
        start: directory or checkpoint of a policy to start from, such as a clone.
        learning_rate: of the discriminator's Adam.
        discriminator_steps: gradient steps a round.
        batch_size: expert pairs, and as many learner pairs, of each of them, on each process.
        replay_rounds: learner pairs are drawn from this round and so many before it.
        discriminator_max_grad_norm: of its gradient.
    """

    def __init__(
        self,
        discriminator: DiscriminatorFactory = AIRLDiscriminator,
        learner: LearnerFactory | None = None,
        policy: PolicyFactory | None = None,
        start: str | None = None,
        learning_rate: float = 3e-4,
        discriminator_steps: int = 8,
        batch_size: int = 1024,
        replay_rounds: int = 20,
        discriminator_max_grad_norm: float = float("inf"),
    ) -> None:
        super().__init__(
            discriminator,
            learner,
            policy,
            start,
            learning_rate,
            discriminator_steps,
            batch_size,
            replay_rounds,
            discriminator_max_grad_norm,
        )
