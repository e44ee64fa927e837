"""Values of actions by Q-functions, for discrete and for continuous actions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gymnasium import Space
from gymnasium.spaces import Box, Discrete
from torch import Tensor

from lit_imitation.errors import UnsupportedSpaceError
from lit_imitation.networks.encoders import EncoderKind
from lit_imitation.networks.mlp import Activation
from lit_imitation.policies import CategoricalPolicy, Policy, QFunctions
from lit_imitation.policies.continuous import BoxActions


def make_q_functions(
    observation_space: Space[Any],
    action_space: Space[Any],
    hidden_sizes: Sequence[int],
    activation: Activation,
    encoder: EncoderKind = "auto",
) -> QFunctions:
    """Two Q-functions Q_i(s, a): with one output for a Box, and one for each action of a Discrete space.

    Raises:
        UnsupportedSpaceError: The action space is neither.
    """
    if isinstance(action_space, Discrete):
        inputs, outputs = 0, int(action_space.n)
    elif isinstance(action_space, Box):
        inputs, outputs = math.prod(action_space.shape), 1
    else:
        raise UnsupportedSpaceError(f"Q-functions need a Discrete or Box action space, not {action_space}")
    return QFunctions(observation_space, inputs, outputs, hidden_sizes, activation, encoder=encoder)


def action_values(policy: Policy, critic: QFunctions, observation: Tensor, action: Tensor) -> Tensor:
    """Q_i(s, a), `[M, B]`, of actions in the environment's units; those of a Box are clipped into it.

    Args:
        policy: Policy that knows the numbers or units of the actions.
        critic: Q-functions.
        observation: Observations, `[B, *obs]`.
        action: Actions, `[B, *act]`.
    """
    if isinstance(policy, CategoricalPolicy):
        index = (action - policy.start)[None, :, None].expand(critic.network.members, -1, -1)
        return critic(observation).gather(-1, index).squeeze(-1)  # type: ignore[no-any-return]
    assert isinstance(policy, BoxActions)
    return critic(observation, policy.from_action(policy.clip(action))).squeeze(-1)  # type: ignore[no-any-return]
