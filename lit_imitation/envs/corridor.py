"""`Corridor`: the smallest environment in which a cloned policy cannot recover from an error."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Discrete
from numpy.typing import NDArray

from lit_imitation.envs.batched import BatchedEnv, SingleEnv
from lit_imitation.errors import ConfigError

OFF, COMMON, RARE = 0, 1, 2
"""Observations: off the corridor, the common situation, and the first rare situation; the other rare ones follow."""
KEEP, SWERVES, RETURN = 0, (1, 2, 3), 4
"""Expert's actions in the common situation, in the rare situations, and off the corridor."""


def expert_action(observation: NDArray[Any]) -> NDArray[np.int64]:
    """Correct actions `[B]` for observations `[B]`.

    Straight on (0) in the common situation, swerve 1 + (k mod 3) in the rare situation k = 0, 1, …, and return (4) off
    the corridor.
    """
    state = observation.astype(np.int64)
    swerve = SWERVES[0] + (state - RARE) % len(SWERVES)
    return np.select([state == OFF, state == COMMON], [RETURN, KEEP], swerve)


class CorridorVectorEnv(BatchedEnv):
    """Corridor of T steps, each with an independently sampled situation.

    The common situation has probability 1 − p, and each of R rare situations has p / R. In each, one action is correct
    (`expert_action`), and any other action leads to the state *off*. From there only the action *return* leads back to
    the corridor, into a newly sampled situation; in a `recoverable` corridor every action leads back. The reward is −1
    for a step that ends in *off*, otherwise 0. An episode is truncated after T steps.

    The expert never leaves the corridor. Its demonstrations therefore contain neither *off* nor *return*, and n of them
    miss a share of about (1 − p/R)ⁿ of the rare situations. A learner that errs exactly there has the error rate
    ε = p (1 − p/R)ⁿ at each step, independent of earlier steps. If it also stays in *off*, its cost is

        Σ_{t=1}^T (1 − (1 − ε)ᵗ) = εT²/2 + O(εT + ε²T³).

    If it returns on the next step, the cost is εT + O(ε²T) (Ross & Bagnell 2010).

    The observation is `Discrete(R + 2)`: 0 off, 1 the common situation, 2 … R + 1 the rare ones. The action is
    `Discrete(5)`: 0 straight on, 1 to 3 swerve, 4 return.

    Args:
        num_envs: Number of copies.
        horizon: Number of steps T in an episode.
        situations: Number R of rare situations.
        probability: Probability p of a rare situation at a step.
        recoverable: Let every action lead back from *off*.

    Raises:
        ConfigError: `horizon` or `situations` is less than 1, or `probability` is outside [0, 1].
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
            raise ConfigError(f"situations is {situations}; it must be at least 1")
        if not 0.0 <= probability <= 1.0:
            raise ConfigError(f"probability is {probability}; it must lie in [0, 1]")
        super().__init__(num_envs, horizon, Discrete(situations + 2), Discrete(RETURN + 1))
        self.situations, self.probability, self.recoverable = situations, probability, recoverable

    def _begin(self) -> NDArray[np.int64]:
        """Situations `[num_envs]`: rare where a uniform number u is below p; u then also selects which one."""
        uniform = self.np_random.random(self.num_envs)
        if not self.probability:
            return np.full(self.num_envs, COMMON)
        # Just below p, the product can round up to R.
        which = np.minimum(uniform * (self.situations / self.probability), self.situations - 1).astype(np.int64)
        return np.where(uniform < self.probability, RARE + which, COMMON)

    def _advance(self, state: NDArray[Any], action: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        safe = action == expert_action(state)
        if self.recoverable:
            safe |= state == OFF
        return np.where(safe, self._begin(), OFF), np.where(safe, 0.0, -1.0)


class CorridorEnv(SingleEnv):
    """Single copy of `CorridorVectorEnv`, with the same arguments."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(CorridorVectorEnv(1, **arguments))
