"""Options of discriminators."""

from __future__ import annotations

import math
from typing import Any, Literal

from gymnasium import Space

from lit_imitation.errors import ConfigError
from lit_imitation.networks.encoders import EncoderKind
from lit_imitation.rewards.base import LearnableReward
from lit_imitation.transitions import Inputs
from lit_imitation.utils.ranges import check_between


class DiscriminatorOptions(LearnableReward):
    """Options of a discriminator: its loss, what limits its slope and its logits, and the absorbing state.

    Args:
        observation_space: Box or Discrete observation space.
        action_space: Box, Discrete or MultiDiscrete action space.
        inputs: Inputs of the discriminator.
        loss: `cross_entropy`, see `AdversarialReward`; or `wasserstein`, E_{ρ_π}[ℓ] − E_{ρ_E}[ℓ], which needs a
            gradient penalty or spectral normalization and gives the reward ℓ.
        max_logit: Bound m at which the loss clips the logits: min(ℓ, m) for expert pairs, max(ℓ, −m) for learner pairs.
            So ℓ stops growing at this margin, and a misclassified pair always has a gradient.
        gradient_penalty: Coefficient c of c E[(‖∇_x ℓ(x)‖ − 1)²] at points x on lines between expert and learner pairs.
        label_smoothing: Smoothing s of the labels to 1 − s and s, so that |ℓ| ≤ log((1 − s) / s) at D*.
        absorbing: Learn a reward of the absorbing state in which a terminated episode stays forever (Kostrikov et al.
            2019, arXiv:1809.02925). The last transition then also receives γ / (1 − γ) times that reward.
        gamma: Discount factor γ of the absorbing state; the same as the learner's.
        encoder: Kind of encoder, with its options, or encoders of parts by path; see `Encoder`.

    Raises:
        ConfigError: An option is out of range, or `absorbing` is used with γ = 1.
    """

    def __init__(
        self,
        observation_space: Space[Any],
        action_space: Space[Any],
        inputs: Inputs,
        *,
        loss: Literal["cross_entropy", "wasserstein"] = "cross_entropy",
        max_logit: float = math.inf,
        gradient_penalty: float = 0.0,
        label_smoothing: float = 0.0,
        absorbing: bool = False,
        gamma: float = 0.99,
        encoder: EncoderKind = "auto",
    ) -> None:
        super().__init__(observation_space, action_space, inputs, absorbing, encoder)
        check_between("discriminator", 1e-3, math.inf, max_logit=max_logit)
        check_between("discriminator", 0.0, 1e6, gradient_penalty=gradient_penalty)
        check_between("discriminator", 0.0, 0.5, label_smoothing=label_smoothing)
        check_between("discriminator", 0.0, 1.0, gamma=gamma)
        if absorbing and gamma == 1.0:
            raise ConfigError("discriminator.absorbing needs discriminator.gamma below 1: that state never ends")
        self.loss, self.max_logit, self.gradient_penalty = loss, max_logit, gradient_penalty
        self.label_smoothing, self.absorbing, self.gamma = label_smoothing, absorbing, gamma
        self.is_classifier = loss == "cross_entropy"  # so that ℓ is the logit of a probability
        self.uses_gamma = absorbing
