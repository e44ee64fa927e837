"""GAIL's discriminator (Ho & Ermon 2016, arXiv:1606.03476) and options against its overfitting."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from gymnasium import Space
from torch import Tensor

from lit_imitation.errors import ConfigError
from lit_imitation.networks.mlp import MLP, Activation
from lit_imitation.networks.spectral import SpectralMLP
from lit_imitation.rewards.features import Samples
from lit_imitation.rewards.losses import cross_entropy, discriminator_statistics, gradient_penalty
from lit_imitation.rewards.options import DiscriminatorOptions
from lit_imitation.transitions import Inputs, Transitions
from lit_imitation.utils.precision import without_autocast


class AdversarialReward(DiscriminatorOptions):
    """Classifier D = σ(ℓ) of expert (label 1) versus learner (label 0), whose logit ℓ gives the learner's reward.

    With equal numbers of expert and learner pairs, from the occupancies ρ_E and ρ_π, D is trained on

        L = −½ E_{ρ_E}[log D] − ½ E_{ρ_π}[log(1 − D)],        with optimum D* = ρ_E / (ρ_E + ρ_π),  ℓ* = log(ρ_E / ρ_π).

    At D* the loss is log 2 − JS(ρ_E, ρ_π), so log 2 − L is a lower estimate of the Jensen–Shannon divergence
    (Goodfellow et al. 2014, arXiv:1406.2661, section 4.1). ℓ is large where the expert is more frequent, so the learner
    has to *maximize* ℓ or an increasing function of it. Subclasses define `score`, the logit of features, and
    `reward_from_logit`. `DiscriminatorOptions` has the arguments.
    """

    needs_log_prob = False
    """Whether `logit` needs log π."""
    penalty_columns: int | None = None
    """Number of leading columns of `score_inputs` in the gradient penalty; None for all."""

    @abstractmethod
    def score(self, features: Tensor) -> Tensor:
        """Part of ℓ `[B]` that the networks compute from features `[B, n]`."""

    @abstractmethod
    def reward_from_logit(self, logit: Tensor) -> Tensor:
        """Rewards `[B]` from logits ℓ `[B]`."""

    def score_inputs(self, samples: Samples) -> Tensor:
        """Inputs `[B, n]` of `score`."""
        features: Tensor = self.features(samples)
        return features

    def logit(self, samples: Samples, log_prob: Tensor | None = None) -> Tensor:
        """Logits ℓ `[B]`; `log_prob: [B]` is log π(a | s) of the current learner, if `needs_log_prob`."""
        return self.score(self.score_inputs(samples))

    def forward(self, *columns: Tensor) -> tuple[Tensor, Tensor]:
        """Loss `[]` and the statistics `[6]` that `rewards.losses.STATISTICS` names.

        Args:
            *columns: Fields of `Samples`, `[2B, …]` each, first the expert's and then the learner's; their log π
                `[2B]`; and the positions `[B]` in [0, 1] on the lines between them at which the penalty is taken.

        Returns:
            The loss and the statistics.
        """
        *fields, log_prob, place = columns
        samples, half = Samples(*fields), len(place)
        logit = self.logit(samples, log_prob)
        expert, learner = logit[:half], logit[half:]
        high, low, unclipped = expert, learner, cross_entropy(expert, learner)
        clipped = unclipped
        if self.max_logit < math.inf:
            high, low = expert.clamp(max=self.max_logit), learner.clamp(min=-self.max_logit)
            clipped = cross_entropy(high, low)
        if self.loss == "wasserstein":
            loss = low.mean() - high.mean()
        else:  # expert: −(1 − s) log D − s log(1 − D) = −log D + s ℓ; learner: −log(1 − D) − s ℓ
            loss = clipped + 0.5 * self.label_smoothing * (high.mean() - low.mean())
        penalty = torch.zeros_like(loss)
        if self.gradient_penalty:
            features = self.score_inputs(samples)
            penalty = gradient_penalty(self.score, features[:half], features[half:], place, self.penalty_columns)
            loss = loss + self.gradient_penalty * penalty
        return loss, discriminator_statistics(expert, learner, unclipped, penalty)

    @without_autocast
    def reward(self, transitions: Transitions) -> Tensor:
        """Rewards `[*batch]` of transitions `[*batch]`."""
        flat = transitions.reshape(-1)
        reward = self.reward_from_logit(self.logit(Samples.from_transitions(flat), flat.log_prob))
        if self.absorbing:
            after = self.gamma / (1.0 - self.gamma) * self.reward_from_logit(self.logit(self.absorbing_state()))
            reward = reward + torch.where(flat.terminated, after, torch.zeros_like(reward))
        return reward.view(transitions.batch_size)


class Discriminator(AdversarialReward):
    """GAIL's discriminator: ℓ is an MLP of (s, a), of s, or of (s, s′).

    Its reward increases in ℓ. The sign decides whether the learner prefers long or short episodes:

        positive: −log(1 − D) = log(1 + e^ℓ) > 0     rewards every step: longer episodes are better
        negative:  log D      = −log(1 + e^−ℓ) < 0   costs every step: ending the episode is better
        logit:     log D − log(1 − D) = ℓ            either sign; E_{ρ_π}[ℓ*] = −KL(ρ_π ‖ ρ_E)

    (In papers that label the expert 0, D is 1 − D here: `negative` reads log(1 − D), and `positive` −log D.)

    Args:
        observation_space: Box or Discrete observation space.
        action_space: Box, Discrete or MultiDiscrete action space.
        inputs: Inputs of the discriminator; `state` and `transition` imitate without the expert's actions.
        reward: Reward function `positive`, `negative` or `logit`.
        hidden_sizes: Sizes of the MLP's hidden layers.
        activation: Activation between the layers.
        spectral_norm: Divide each weight matrix by its largest singular value (Miyato et al. 2018, arXiv:1802.05957).
        options: Further arguments, of `DiscriminatorOptions`.

    Raises:
        ConfigError: An option is out of range, or `wasserstein` is combined with another reward than `logit` or with no
            bound on the slope.
    """

    def __init__(
        self,
        observation_space: Space[Any],
        action_space: Space[Any],
        *,
        inputs: Inputs = "state_action",
        reward: Literal["positive", "negative", "logit"] = "positive",
        hidden_sizes: Sequence[int] = (64, 64),
        activation: Activation = "tanh",
        spectral_norm: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(observation_space, action_space, inputs, **options)
        if not self.is_classifier and reward != "logit":
            raise ConfigError(
                f"discriminator.reward is {reward}; a Wasserstein critic needs discriminator.reward logit"
            )
        if not self.is_classifier and not spectral_norm and not self.gradient_penalty:
            raise ConfigError(
                "discriminator.loss is wasserstein, which diverges unless the critic's slope is bounded: set "
                "discriminator.gradient_penalty (10 is usual) or discriminator.spectral_norm true"
            )
        self.kind = reward
        sizes = [self.features.out_features, *hidden_sizes, 1]
        self.network = SpectralMLP(sizes, activation) if spectral_norm else MLP(sizes, activation)

    def score(self, features: Tensor) -> Tensor:
        """Logits `[B]` of features `[B, n]`."""
        score: Tensor = self.network(features)
        return score.squeeze(-1)

    def reward_from_logit(self, logit: Tensor) -> Tensor:
        """Rewards `[B]` from logits ℓ `[B]`."""
        if self.kind == "positive":
            return F.softplus(logit)
        return -F.softplus(-logit) if self.kind == "negative" else logit

    def after_step(self) -> None:
        """Update the singular vectors; `Descent` calls this after each step."""
        if isinstance(self.network, SpectralMLP):
            self.network.power_iteration()


DiscriminatorFactory: TypeAlias = Callable[[Space[Any], Space[Any]], AdversarialReward]
"""Function that builds a discriminator from observation and action space."""
