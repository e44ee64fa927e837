"""AIRL's discriminator (Fu, Luo & Levine 2018), whose reward transfers to other dynamics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import Space
from torch import Tensor

from lit_imitation.networks.encoders import EncoderKind
from lit_imitation.networks.mlp import MLP, Activation
from lit_imitation.rewards.discriminator import AdversarialReward
from lit_imitation.rewards.features import Samples
from lit_imitation.transitions import Transitions
from lit_imitation.utils.precision import without_autocast
from lit_imitation.utils.ranges import check_weights


class AIRLDiscriminator(AdversarialReward):
    """AIRL's discriminator D = e^f / (e^f + π(a | s)), with logit ℓ = f(s, a, s′) − log π(a | s) and

        f(s, a, s′) = r_ψ(s) + γ Φ(s′) − Φ(s)         or r_ψ(s, a) instead of r_ψ(s).

    The learner's reward is log D − log(1 − D) = f − log π: the reward f plus, in expectation, the entropy of π. If the
    expert's Gaussian is narrow, f has to become steep before it outweighs that entropy, and until then the learner's
    Gaussian widens. An `entropy_weight` λ < 1 gives the reward f − λ log π, whose optimal policy is greedier than the
    expert that D assumes (the authors' released experiments use λ = 0.1). SAC has its own entropy bonus, so its reward
    is f; the matching weight is `temperature: λ` with `learn_temperature: false`.

    At the optimum f is the expert's advantage A*, up to a constant. γΦ(s′) − Φ(s) absorbs the part that depends on the
    dynamics. If the true reward depends on the state alone and the dynamics are decomposable, r_ψ(s) is the true reward
    up to a constant (section 6 of the paper, arXiv:1710.11248).

    A terminal state has no future: Φ = 0 there, and no reward follows. With `absorbing`, the state after it is an
    ordinary state with a learned Φ and reward. No action is taken in it, so log π is 0.

    π is the probability of the executed action (`Policy.executed_log_prob`). It is measured in units of half the action
    range, so the constant in r_ψ does not depend on the environment's units. A Gaussian sample beyond the bounds counts
    at the bound. With the density of the unclipped sample, −log π would grow without limit for samples ever further
    outside, although neither the environment nor f changes there.

    Args:
        observation_space: Box or Discrete observation space.
        action_space: Box, Discrete or MultiDiscrete action space.
        state_only: Use r_ψ(s), which can transfer, instead of r_ψ(s, a), which can imitate better.
        hidden_sizes: Sizes of the hidden layers of r_ψ.
        potential_hidden_sizes: Sizes of the hidden layers of Φ.
        activation: Activation between the layers of both networks.
        max_logit: Bound at which the loss clips ℓ.
        gradient_penalty: Coefficient of the gradient penalty on f as a function of (s, a, s′).
        label_smoothing: Label smoothing s.
        reward_decay: Coefficient c of c Σ w² over the weights w of r_ψ, added to the loss. Where a feature changes
            slowly, as posture does, γ Φ(s′) − Φ(s) ≈ −(1 − γ) Φ(s) can cancel any multiple of it in r_ψ; the decay
            selects none.
        entropy_weight: Coefficient λ in f − λ log π, the reward of a learner without its own entropy bonus.
        absorbing: Learn a reward of the absorbing state after the end of an episode.
        gamma: Discount factor γ; the same as the learner's.
        encoder: Kind of encoder, with its options, or encoders of parts by path; see `Encoder`.
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
        check_weights("discriminator", reward_decay=reward_decay, entropy_weight=entropy_weight)
        self.uses_gamma = True  # it multiplies Φ(s′)
        self.reward_decay, self.entropy_weight = reward_decay, entropy_weight
        inputs, self.state_size = self.features.out_features, self.features.state_features
        self.inputs = inputs
        self.penalty_columns = inputs + self.state_size  # s, a and s′, without the future flag
        self.reward_network = MLP([inputs, *hidden_sizes, 1], activation)
        self.potential = MLP([self.state_size, *potential_hidden_sizes, 1], activation)

    def score_inputs(self, samples: Samples) -> Tensor:
        """Inputs `[B, n]` of f: the inputs of r_ψ, which begin with s; s′; and whether a future follows."""
        over = torch.zeros_like(samples.terminated) if self.absorbing else samples.terminated
        gone = samples.terminated | samples.absorbing
        following = self.features.state(samples.next_observation, gone)
        return torch.cat([self.features(samples), following, (~over)[:, None].to(following.dtype)], -1)

    def score(self, features: Tensor) -> Tensor:
        """Values f `[B]` from the features `[B, n]`."""
        inputs, following, future = torch.split(features, [self.inputs, self.state_size, 1], -1)
        here = inputs[:, : self.state_size]
        shaping = self.gamma * future * self.potential(following) - self.potential(here)
        score: Tensor = self.reward_network(inputs) + shaping
        return score.squeeze(-1)

    def logit(self, samples: Samples, log_prob: Tensor | None = None) -> Tensor:
        """Logits ℓ `[B]`; f if `log_prob` is None."""
        f = super().logit(samples)
        return f if log_prob is None else f - torch.where(samples.absorbing, 0.0, log_prob)

    def forward(self, *columns: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and statistics as in `AdversarialReward`, with `reward_decay` added to the loss."""
        loss, statistics = super().forward(*columns)
        if self.reward_decay:
            weights = [parameter for parameter in self.reward_network.parameters() if parameter.ndim > 1]  # no biases
            loss = loss + self.reward_decay * torch.stack([weight.square().sum() for weight in weights]).sum()
        return loss, statistics

    def reward_from_logit(self, logit: Tensor) -> Tensor:
        """Rewards ℓ `[B]`."""
        return logit

    def reward(self, transitions: Transitions) -> Tensor:
        """Rewards f − λ log π `[*batch]` of transitions `[*batch]`; f if they have no `log_prob`."""
        if (log_prob := transitions.log_prob) is not None:
            transitions = transitions.clone(recurse=False)
            transitions.log_prob = self.entropy_weight * log_prob
        return super().reward(transitions)

    @without_autocast
    def recovered_reward(self, transitions: Transitions) -> Tensor:
        """Rewards r_ψ `[*batch]`; with `absorbing`, a terminal step also gets γ / (1 − γ) r_ψ(absorbing)."""
        shape = transitions.batch_size
        flat = transitions.reshape(-1)
        reward: Tensor = self.reward_network(self.features(Samples.from_transitions(flat))).squeeze(-1)
        if self.absorbing:
            after = self.reward_network(self.features(self.absorbing_state())).squeeze()
            reward = reward + flat.terminated * (self.gamma / (1.0 - self.gamma) * after)
        return reward.view(shape)
