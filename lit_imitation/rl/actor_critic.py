"""Base class of learners with a policy and a value function, fresh or trained before."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from gymnasium import Space

from lit_imitation.errors import ConfigError
from lit_imitation.networks.encoders import EncoderKind
from lit_imitation.networks.mlp import MLP, Activation
from lit_imitation.policies import GaussianPolicy, Policy, Value, default_policy_class
from lit_imitation.rl.learner import Learner
from lit_imitation.rl.normalization import RunningMoments, update_statistics
from lit_imitation.rollout import Round
from lit_imitation.utils.ranges import check_at_least, check_positive, check_weights
from lit_imitation.utils.spaces import example_element


class ActorCritic(Learner[Round]):
    """Learner with a policy π_θ and a value function V_θ.

    Observations are standardized by running statistics that change only between rounds. The first round of a fresh
    policy uses raw observations.

    Args:
        observation_space: Observation space, Box or Discrete.
        action_space: Action space, Box, Discrete or MultiDiscrete.
        policy: Policy to start from; by default a fresh Gaussian or categorical one with orthogonal initialization.
        hidden_sizes: Hidden layers of the value network, and of a fresh policy.
        activation: Activation function of the value network, and of a fresh policy.
        encoder: Observation encoder of a fresh policy, `auto`, `image` or `vector`. The value network uses the policy's
            kind of encoder.
        kl_coefficient: Weight c_KL of the divergence from the starting policy, if that was trained before.
        normalize_observations: Standardize observations by running statistics, unless the given policy was trained with
            its own.
        warmup_rounds: Rounds in which only the value function learns, if the given policy was trained before.
        initial_std: Initial value of a Gaussian policy's free σ, in units of half the action range; a cloned policy's
            own σ is close to 0. `None` keeps the policy's σ.
        compile: Compile the gradient steps: 20 seconds at the start, then faster steps.

    Raises:
        ConfigError: An argument is out of range, or the policy has no action distribution.
    """

    def __init__(
        self,
        observation_space: Space[Any],
        action_space: Space[Any],
        policy: Policy | None = None,
        *,
        hidden_sizes: Sequence[int] = (64, 64),
        activation: Activation = "tanh",
        encoder: EncoderKind = "auto",
        kl_coefficient: float = 0.0,
        normalize_observations: bool = True,
        warmup_rounds: int = 0,
        initial_std: float | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__()
        check_at_least("learner", 0, warmup_rounds=warmup_rounds)
        check_positive("learner", initial_std=initial_std)
        check_weights("learner", kl_coefficient=kl_coefficient)
        given = policy is not None and not policy.fresh
        if policy is None:
            cls = default_policy_class(action_space)
            policy = cls(
                observation_space,
                action_space,
                hidden_sizes=list(hidden_sizes),
                activation=activation,
                encoder=encoder,
            )
            assert isinstance(policy.network, MLP)
            policy.network.init_orthogonal(0.01)
        self.policy, self.value = policy, Value(observation_space, hidden_sizes, activation, policy.encoder.kind)
        self.value.network.init_orthogonal(1.0)
        try:
            policy.sample(policy.head(torch.from_numpy(example_element(observation_space)[None])))
        except TypeError as error:
            raise ConfigError(f"{type(self).__name__} needs a policy with an action distribution: {error}") from error
        if initial_std is not None:
            _set_std(policy, initial_std)
        self.start = deepcopy(policy).requires_grad_(False) if given and kl_coefficient else None
        """The policy as it was at the start, which the divergence refers to."""
        self.kl_coefficient = kl_coefficient
        self.warmup_rounds, self.compile_gradient = warmup_rounds if given else 0, compile
        size = policy.encoder.vector_size if normalize_observations else 0
        self.moments = RunningMoments(size) if size else None
        self.keeps_normalizer = False
        """Whether the input statistics stay fixed, because the policy was trained with them."""

    def share_normalizer(self) -> None:
        """Let the value function standardize observations as the policy does, before the first round.

        A moving normalizer would change a policy that was trained with a fixed one, so it stays. Running statistics
        from a checkpoint of this run continue.
        """
        own = self.policy.encoder
        if own.inputs and (self.moments is None or not self.moments.count):
            self.keeps_normalizer = self.policy.trained or own.fitted
            self.value.encoder.copy_statistics(own)

    def update_normalizer(self, experience: Round) -> bool:
        """Merge the observations of a round into the statistics; returns whether they are used from now on."""
        if self.moments is None or self.keeps_normalizer:
            return False
        encoders = (self.policy.encoder, self.value.encoder)
        update_statistics(self.moments, experience.rollout.observation, experience.valid, *encoders)
        return True


def _set_std(policy: Policy, std: float) -> None:
    """Set the free σ of a Gaussian policy."""
    if not isinstance(policy, GaussianPolicy) or policy.log_std is None:
        raise ConfigError("learner.initial_std needs a GaussianPolicy with std: free")
    try:
        policy.set_std(std)
    except ConfigError as error:
        raise ConfigError(f"learner.initial_std: {error}") from error
