"""AIRL's discriminator (Fu, Luo & Levine 2018), whose reward outlives the learner and the dynamics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import Space
from torch import Tensor

from lit_imitation.errors import ConfigError
from lit_imitation.networks.encoders import EncoderKind
from lit_imitation.networks.mlp import MLP, Activation
from lit_imitation.rewards.discriminator import AdversarialReward
from lit_imitation.rewards.features import Samples
from lit_imitation.transitions import Transitions
from lit_imitation.utils.precision import without_autocast


class AIRLDiscriminator(AdversarialReward):
    """D = e^f / (e^f + π(a | s)), that is ℓ = f(s, a, s′) − log π(a | s), with

        f(s, a, s′) = r_ψ(s) + γ Φ(s′) − Φ(s)         or r_ψ(s, a) in place of r_ψ(s).

    What the learner is paid is log D − log(1 − D) = f − log π: the reward f and, in expectation, the entropy of π.
    Where the expert's Gaussian is narrow, f has to be steep before it outweighs that entropy, and until then the
    learner's only widens; `entropy_weight` λ < 1 pays f − λ log π, which is greedier than the expert that D has in mind
    (the authors' released experiments have λ = 0.1).
    (SAC has an entropy bonus of its own; its rewards are f, for which `temperature: λ`, `learn_temperature: false` is
    the right weight of it.) At the optimum f is the advantage A* of the expert, up to
    a constant; of it γΦ(s′) − Φ(s) takes what depends on the dynamics, and r_ψ(s) is the reward itself, up to a
    constant, where the true one is of the state alone and the dynamics are decomposable (section 6 of the paper).

    A terminal state has no future: there Φ = 0, and no reward follows. With `absorbing` the state after it is a state
    like others, with a Φ and a reward that are learned; nothing is done there, so log π is 0.

    π is the probability of what the environment is made to play (`Policy.played_log_prob`): in units of half the action
    range, so that r_ψ's constant does not depend on the environment's; and what a Gaussian draws beyond the bounds
    counts at the bound. With the density of the draw itself −log π could be had without end by drawing ever further
    outside, where nothing changes for the environment and nothing can be told from f.

    Args:
        observation_space: Box or Discrete.
        action_space: Box, Discrete or MultiDiscrete.
        state_only: r_ψ(s), which can transfer, or r_ψ(s, a), which can imitate better.
        hidden_sizes: of r_ψ.
        potential_hidden_sizes: of Φ.
        activation: between their layers.
        max_logit: at which the loss clips ℓ.
        gradient_penalty: its coefficient, on f as a function of (s, a, s′).
        label_smoothing: of the labels.
        reward_decay: c of c Σ w² over the weights w of r_ψ, added to the loss. Where a feature changes slowly, as a
            posture does, γ Φ(s′) − Φ(s) ≈ −(1 − γ) Φ(s) can undo any multiple of it in r_ψ; the decay takes none.
        entropy_weight: λ of f − λ log π, what a learner without an entropy bonus of its own is paid.
        absorbing: reward the state after the end.
        gamma: γ, the learner's own.
        encoder: how observations are read: `image`, `vector`, or by their space; see `Encoder`.
    """

    needs_log_prob = True

    def __init__(
        self,
        observation_space: Space[Any],
        action_space: Space[Any],
        *,
        state_only: bool = True,
        hidden_sizes: Sequence[int] = (64, 64),
        potential_hidden_sizes: Sequence[int] = (64, 64),
        activation: Activation = "tanh",
        max_logit: float = math.inf,
        gradient_penalty: float = 0.0,
        label_smoothing: float = 0.0,
        reward_decay: float = 0.0,
        entropy_weight: float = 1.0,
        absorbing: bool = False,
        gamma: float = 0.99,
        encoder: EncoderKind = "auto",
    ) -> None:
        super().__init__(
            observation_space,
            action_space,
            "state" if state_only else "state_action",
            loss="cross_entropy",
            max_logit=max_logit,
            gradient_penalty=gradient_penalty,
            label_smoothing=label_smoothing,
            absorbing=absorbing,
            gamma=gamma,
            encoder=encoder,
        )
        for name, value in (("reward_decay", reward_decay), ("entropy_weight", entropy_weight)):
            if not 0.0 <= value < math.inf:
                raise ConfigError(f"discriminator.{name} is {value}; it must be at least 0, and finite")
        self.reward_decay, self.entropy_weight = reward_decay, entropy_weight
        inputs, self.state_size = self.features.out_features, self.features.state_features
        self.inputs = inputs
        self.penalized = inputs + self.state_size  # s, a and s′, but not whether there is a future
        self.reward_network = MLP([inputs, *hidden_sizes, 1], activation)
        self.potential = MLP([self.state_size, *potential_hidden_sizes, 1], activation)

    def describe_samples(self, samples: Samples) -> Tensor:
        """`[B, n]`: what r_ψ reads (which begins with s), s′, and whether there is a future after it."""
        over = torch.zeros_like(samples.terminated) if self.absorbing else samples.terminated
        gone = samples.terminated | samples.absorbing
        following = self.features.state(samples.next_observation, gone)
        return torch.cat([self.features(samples), following, (~over)[:, None].to(following.dtype)], -1)

    def score(self, features: Tensor) -> Tensor:
        """F `[B]`."""
        inputs, following, future = torch.split(features, [self.inputs, self.state_size, 1], -1)
        here = inputs[:, : self.state_size]
        shaping = self.gamma * future * self.potential(following) - self.potential(here)
        score: Tensor = self.reward_network(inputs) + shaping
        return score.squeeze(-1)

    def logit(self, samples: Samples, log_prob: Tensor | None = None) -> Tensor:
        """ℓ `[B]`; f where log π is not given."""
        f = super().logit(samples)
        return f if log_prob is None else f - torch.where(samples.absorbing, 0.0, log_prob)

    def forward(self, *columns: Tensor) -> tuple[Tensor, Tensor]:
        """As of every discriminator, with `reward_decay`."""
        loss, statistics = super().forward(*columns)
        if self.reward_decay:
            weights = [parameter for parameter in self.reward_network.parameters() if parameter.ndim > 1]  # no biases
            loss = loss + self.reward_decay * torch.stack([weight.square().sum() for weight in weights]).sum()
        return loss, statistics

    def paid(self, logit: Tensor) -> Tensor:
        """`[B]`: ℓ."""
        return logit

    def reward(self, transitions: Transitions) -> Tensor:
        """`[*batch]`: f − λ log π, of transitions `[*batch]`; f where they have no log π."""
        if (log_prob := transitions.log_prob) is not None:
            transitions = transitions.clone(recurse=False)
            transitions.log_prob = self.entropy_weight * log_prob
        return super().reward(transitions)

    @without_autocast
    def recovered(self, transitions: Transitions) -> Tensor:
        """r_ψ `[*batch]`; with `absorbing` an end is paid for what comes after it, γ / (1 − γ) r_ψ(absorbing)."""
        shape = transitions.batch_size
        flat = transitions.reshape(-1)
        reward: Tensor = self.reward_network(self.features(Samples.of(flat))).squeeze(-1)
        if self.absorbing:
            after = self.reward_network(self.features(self.absorbing_state())).squeeze()
            reward = reward + flat.terminated * (self.gamma / (1.0 - self.gamma) * after)
        return reward.view(shape)

    @property
    def discounts(self) -> bool:
        """Yes, of Φ(s′)."""
        return True
