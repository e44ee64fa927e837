"""`Corridor`: the smallest environment in which a cloned error is never made good."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Discrete
from numpy.typing import NDArray

from lit_imitation.envs.batched import BatchedEnv, SingleEnv
from lit_imitation.errors import ConfigError

OFF, COMMON, RARE = 0, 1, 2
"""Observations: off the corridor, the common situation, and the first of the rare ones (the others follow)."""
KEEP, SWERVES, RETURN = 0, (1, 2, 3), 4
"""Actions: the expert's in the common situation, in the rare ones, and in off."""


def expert_action(observation: NDArray[Any]) -> NDArray[np.int64]:
    """`[B]` observations to the one right action in each, `[B]`.

    Straight on (0) in the common situation, swerve 1 + (k mod 3) in the rare situation k = 0, 1, …, and return (4) in
    off.
    """
    state = observation.astype(np.int64)
    swerve = SWERVES[0] + (state - RARE) % len(SWERVES)
    return np.select([state == OFF, state == COMMON], [RETURN, KEEP], swerve)


class CorridorVectorEnv(BatchedEnv):
    """A corridor of T steps, every one of which sets the agent a situation drawn independently of all before.

    It is the common one with probability 1 − p, and each of R rare ones with probability p / R; each has one right
    action (`expert_action`). A wrong one leads to *off*, from where only the action *return* leads back to the
    corridor, into a situation drawn afresh; in a `recoverable` corridor every action does. The reward is −1 for a step
    that ends in off, else 0, and an episode is truncated after T steps.

    The expert never leaves the corridor, so its demonstrations show neither off nor the action return, and n of them
    leave a share of about (1 − p/R)ⁿ of the rare situations unseen. A learner that errs exactly there has the error
    rate ε = p (1 − p/R)ⁿ at each step, independent of the steps before, and a learner that stays in off besides pays

        Σ_{t=1}^T (1 − (1 − ε)ᵗ) = εT²/2 + O(εT + ε²T³),

    while one that returns from off on the next step pays εT + O(ε²T) (Ross & Bagnell 2010).

    The observation is `Discrete(R + 2)`: 0 off, 1 the common situation, 2 … R + 1 the rare ones. The action is
    `Discrete(5)`: 0 straight on, 1 to 3 swerve, 4 return.

    Args:
        num_envs: number of copies.
        horizon: T.
        situations: R, the number of rare situations.
        probability: p, of meeting any of them at a step.
        recoverable: whether every action leads back from off.

    Raises:
        ConfigError: a horizon or number of situations below 1, or a probability outside [0, 1].
    """

    def __init__(
        self,
        num_envs: int = 1,
        horizon: int = 40,
        situations: int = 20,
        probability: float = 0.003,
        recoverable: bool = False,
    ) -> None:
        if situations < 1:
            raise ConfigError(f"situations is {situations}; a corridor has at least 1 rare situation")
        if not 0.0 <= probability <= 1.0:
            raise ConfigError(f"probability is {probability}; it must lie in [0, 1]")
        super().__init__(num_envs, horizon, Discrete(situations + 2), Discrete(RETURN + 1))
        self.situations, self.probability, self.recoverable = situations, probability, recoverable

    def _begin(self) -> NDArray[np.int64]:
        """Situations `[num_envs]`: rare where a uniform number is below p, and which of them by its place there."""
        uniform = self.np_random.random(self.num_envs)
        if not self.probability:
            return np.full(self.num_envs, COMMON)
        # The quotient can round up to R just below p.
        which = np.minimum(uniform * (self.situations / self.probability), self.situations - 1).astype(np.int64)
        return np.where(uniform < self.probability, RARE + which, COMMON)

    def _advance(self, state: NDArray[Any], action: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        safe = action == expert_action(state)
        if self.recoverable:
            safe |= state == OFF
        return np.where(safe, self._begin(), OFF), np.where(safe, 0.0, -1.0)


class CorridorEnv(SingleEnv):
    """One `CorridorVectorEnv`, with the same arguments."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(CorridorVectorEnv(1, **arguments))
