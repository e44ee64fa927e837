"""Generative adversarial imitation learning (Ho & Ermon 2016)."""

from __future__ import annotations

from lit_imitation.methods.adversarial import Adversarial
from lit_imitation.policies import PolicyFactory
from lit_imitation.rewards import Discriminator, DiscriminatorFactory
from lit_imitation.rl import LearnerFactory


class GAIL(Adversarial):
    """min_π max_D  E_{ρ_E}[log D(s, a)] + E_{ρ_π}[log(1 − D(s, a))] − λ H(π),

    round by round: the discriminator learns to tell the expert's pairs (label 1) from the learner's (label 0), and the
    learner improves the policy on the reward that this gives, by default −log(1 − D); `AdversarialReward` derives
    its sign. Where D can no longer do better than ½ the occupancies are the same. λ is the learner's
    `entropy_coefficient` (SAC's temperature).

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
        discriminator: DiscriminatorFactory = Discriminator,
        learner: LearnerFactory | None = None,
        policy: PolicyFactory | None = None,
        start: str | None = None,
        learning_rate: float = 3e-4,
        discriminator_steps: int = 8,
        batch_size: int = 1024,
        replay_rounds: int = 0,
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
