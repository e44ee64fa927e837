"""How often the learner's actions differ from the expert's labels."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray
from torch import Tensor

from lit_imitation.policies import Policy
from lit_imitation.policies.continuous import BoxActions

Array: TypeAlias = NDArray[Any]

DIFFERENCE = 0.05
"""Share of their range by which continuous actions must differ to count as different."""


def disagreement_rate(policy: Policy, learned: Tensor, labels: Tensor) -> float | None:
    """Share of states where the learner's actions `[N, *act]` differ from the labels; None without states."""
    if not len(labels):
        return None
    width = None
    if isinstance(policy, BoxActions) and isinstance(policy.action_space, Box):
        width = 2.0 * policy.scale.cpu().numpy().reshape(policy.action_space.shape)
    return float(differ(learned.numpy(), labels.numpy(), width).mean())


def differ(a: Array, b: Array, width: Array | None) -> NDArray[np.bool_]:
    """`[N]` bool: Where actions `a` and `b`, `[N, *act]` each, differ.

    Args:
        a: Actions.
        b: Other actions.
        width: Range of continuous actions, `[*act]`, which count as equal up to `DIFFERENCE` of it; None for discrete
            actions.
    """
    apart = np.asarray(a != b) if width is None else np.abs(a - b) > DIFFERENCE * width
    return np.asarray(apart.any(axis=tuple(range(1, apart.ndim))))
