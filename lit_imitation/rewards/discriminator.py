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
from lit_imitation.networks.encoders import EncoderKind
from lit_imitation.networks.mlp import MLP, Activation
from lit_imitation.rewards.base import LearnableReward
from lit_imitation.rewards.features import Samples
from lit_imitation.transitions import Inputs, Transitions
from lit_imitation.utils.precision import without_autocast
from lit_imitation.utils.spaces import example_element

STATISTICS = (
    "discriminator_accuracy_expert",
    "discriminator_accuracy_learner",
    "discriminator_logit_expert",
    "discriminator_logit_learner",
    "jensen_shannon",
    "gradient_penalty",
)
"""Statistics that each discriminator step reports in addition to the loss."""
CLASSIFIER_STATISTICS = ("discriminator_accuracy_expert", "discriminator_accuracy_learner", "jensen_shannon")
"""Statistics that are undefined for a Wasserstein critic, whose zero is arbitrary."""


class AdversarialReward(LearnableReward):
    """Classifier D = σ(ℓ) of expert (label 1) versus learner (label 0), whose logit ℓ gives the learner's reward.

    With equal numbers of expert and learner pairs, from the occupancies ρ_E and ρ_π, D is trained on

        L = −½ E_{ρ_E}[log D] − ½ E_{ρ_π}[log(1 − D)],        with optimum D* = ρ_E / (ρ_E + ρ_π),  ℓ* = log(ρ_E / ρ_π).

    So ℓ is large where the expert is more frequent than the learner, and the learner has to *maximize* ℓ or an
    increasing function of it:

        positive: −log(1 − D) = log(1 + e^ℓ) > 0     rewards every step: longer episodes are better
        negative:  log D      = −log(1 + e^−ℓ) < 0   costs every step: ending the episode is better
        logit:     log D − log(1 − D) = ℓ            either sign; E_{ρ_π}[ℓ*] = −KL(ρ_π ‖ ρ_E)

    (In papers that label the expert 0, D is 1 − D here: `negative` reads log(1 − D), and `positive` −log D.) At D* the
    loss is log 2 − JS(ρ_E, ρ_π), so log 2 − L is a lower estimate of the Jensen–Shannon divergence, between 0 and log
    2.

    Subclasses define `score`, the logit of features, and `reward_from_logit`.

    Args:
        observation_space: Box or Discrete observation space.
        action_space: Box, Discrete or MultiDiscrete action space.
        inputs: Inputs of the discriminator.
        loss: `cross_entropy`, L above; or `wasserstein`, E_{ρ_π}[ℓ] − E_{ρ_E}[ℓ], which needs a gradient penalty or
            spectral normalization and gives the reward ℓ.
        max_logit: Bound m at which the loss clips the logits: min(ℓ, m) for expert pairs, max(ℓ, −m) for learner pairs.
            A pair classified with a larger margin has no gradient, so ℓ stops growing there; a misclassified pair
            always has one. (Bounding ℓ itself would leave no slope where the learner is, and no gradient to a
            discriminator that has gone too far.)
        gradient_penalty: Coefficient c of c E[(‖∇_x ℓ(x)‖ − 1)²] at points x on lines between expert and learner pairs,
            one random point per pair (Gulrajani et al. 2017, arXiv:1704.00028).
        label_smoothing: Smoothing s of the labels to 1 − s and s, so that |ℓ| ≤ log((1 − s) / s) at D*.
        absorbing: Learn a reward of the absorbing state in which a terminated episode stays forever (Kostrikov et al.
            2019, arXiv:1809.02925). The last transition then also receives γ / (1 − γ) times that reward.
        gamma: Discount factor γ of the absorbing state.
        encoder: Kind of encoder: `image`, `vector`, or chosen by the space; see `Encoder`.

    Raises:
        ConfigError: An option is out of range, or `absorbing` is used with γ = 1.
    """

    def __init__(
        self,
        observation_space: Space[Any],
        action_space: Space[Any],
        inputs: Inputs,
        *,
        loss: Literal["cross_entropy", "wasserstein"],
        max_logit: float,
        gradient_penalty: float,
        label_smoothing: float,
        absorbing: bool,
        gamma: float,
        encoder: EncoderKind = "auto",
    ) -> None:
        super().__init__(observation_space, action_space, inputs, absorbing, encoder)
        for name, value, low, high in (
            ("max_logit", max_logit, 1e-3, math.inf),
            ("gradient_penalty", gradient_penalty, 0.0, 1e6),
            ("label_smoothing", label_smoothing, 0.0, 0.5),
            ("gamma", gamma, 0.0, 1.0),
        ):
            if not low <= value <= high:
                raise ConfigError(f"discriminator.{name} is {value}; it must lie in [{low:g}, {high:g}]")
        if absorbing and gamma == 1.0:
            raise ConfigError("discriminator.absorbing needs discriminator.gamma below 1: that state never ends")
        self.loss, self.max_logit, self.gradient_penalty = loss, max_logit, gradient_penalty
        self.label_smoothing, self.absorbing, self.gamma = label_smoothing, absorbing, gamma

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

    needs_log_prob = False
    """Whether `logit` needs log π."""
    penalty_columns: int | None = None
    """Number of leading columns of `score_inputs` in the gradient penalty; None for all."""

    @property
    def is_classifier(self) -> bool:
        """Whether ℓ is the logit of a probability."""
        return self.loss == "cross_entropy"

    @property
    def uses_gamma(self) -> bool:
        """Whether the reward depends on γ."""
        return self.absorbing

    def forward(self, *columns: Tensor) -> tuple[Tensor, Tensor]:
        """Loss `[]` and its `STATISTICS` `[6]`.

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
        cross_entropy = _cross_entropy(expert, learner)
        high, low, clipped = expert, learner, cross_entropy
        if self.max_logit < math.inf:
            high, low = expert.clamp(max=self.max_logit), learner.clamp(min=-self.max_logit)
            clipped = _cross_entropy(high, low)
        if self.loss == "wasserstein":
            loss = low.mean() - high.mean()
        else:  # expert: −(1 − s) log D − s log(1 − D) = −log D + s ℓ; learner: −log(1 − D) − s ℓ
            loss = clipped + 0.5 * self.label_smoothing * (high.mean() - low.mean())
        penalty = torch.zeros_like(loss)
        if self.gradient_penalty:
            features = self.score_inputs(samples)
            between = torch.lerp(features[half:], features[:half], place[:, None])
            slope = torch.func.grad(lambda x: self.score(x).sum())(between)[:, : self.penalty_columns]
            penalty = ((slope.square().sum(-1) + 1e-12).sqrt() - 1.0).square().mean()
            loss = loss + self.gradient_penalty * penalty
        accuracy = ((expert > 0).float().mean(), (learner < 0).float().mean())
        jensen_shannon = math.log(2.0) - cross_entropy
        statistics = (*accuracy, expert.mean(), learner.mean(), jensen_shannon, penalty)
        return loss, torch.stack([value.detach() for value in statistics])

    @without_autocast
    def reward(self, transitions: Transitions) -> Tensor:
        """Rewards `[*batch]` of transitions `[*batch]`."""
        shape = transitions.batch_size
        flat = transitions.reshape(-1)
        reward = self.reward_from_logit(self.logit(Samples.from_transitions(flat), flat.log_prob))
        if self.absorbing:
            after = self.gamma / (1.0 - self.gamma) * self.absorbing_reward()
            reward = reward + torch.where(flat.terminated, after, torch.zeros_like(reward))
        return reward.view(shape)

    def absorbing_reward(self) -> Tensor:
        """Reward `[]` of a step in the absorbing state."""
        return self.reward_from_logit(self.logit(self.absorbing_state(), None)).squeeze(0)

    def absorbing_state(self) -> Samples:
        """One row for the absorbing state."""
        device = next(self.parameters()).device

        def placeholder(space: Space[Any]) -> Tensor:
            """Element of the space; the features mask it."""
            return torch.from_numpy(example_element(space)[None]).to(device)

        observation, action = placeholder(self.observation_space), placeholder(self.action_space)
        yes = torch.ones(1, dtype=torch.bool, device=device)
        return Samples(observation, action, observation, yes, yes)


def _cross_entropy(expert: Tensor, learner: Tensor) -> Tensor:
    """Cross-entropy −½ E[log D] − ½ E[log(1 − D)] `[]` from the logits of both sides."""
    return 0.5 * (F.softplus(-expert).mean() + F.softplus(learner).mean())


class SpectralMLP(MLP):
    """MLP with spectral normalization (Miyato et al. 2018, arXiv:1802.05957), which makes ℓ 1-Lipschitz.

    Within a gradient step the singular vectors are constants. `power_iteration` updates them after each step (`Descent`
    calls `after_step`).

    Args:
        sizes: Input, hidden and output sizes.
        activation: Name of the activation in `torch.nn.functional`.
    """

    def __init__(self, sizes: Sequence[int], activation: Activation) -> None:
        super().__init__(sizes, activation)
        for i, layer in enumerate(self.layers):
            rows, columns = layer.weight.shape  # type: ignore[misc]
            for name, size in (("left", rows), ("right", columns)):
                self.register_buffer(f"{name}_{i}", F.normalize(torch.randn(size), dim=0))
        self.power_iteration(30)

    @torch.no_grad()
    def power_iteration(self, times: int = 5) -> None:
        """Update the singular vectors by `times` power iterations, in place."""
        for i, layer in enumerate(self.layers):
            left, right = getattr(self, f"left_{i}"), getattr(self, f"right_{i}")
            for _ in range(times):
                right.copy_(F.normalize(layer.weight.mT @ left, dim=0))
                left.copy_(F.normalize(layer.weight @ right, dim=0))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs `[B, sizes[-1]]` of inputs `[B, sizes[0]]`."""
        *hidden, last = range(len(self.layers))
        for i in hidden:
            x = self._activate(F.linear(x, self._weight(i), self.layers[i].bias))  # type: ignore[arg-type]
        return F.linear(x, self._weight(last), self.layers[last].bias)  # type: ignore[arg-type]

    def _weight(self, i: int) -> Tensor:
        weight: Tensor = self.layers[i].weight  # type: ignore[assignment]
        # `dot` would require equal dtypes, which autocast does not guarantee.
        norm: Tensor = (getattr(self, f"left_{i}") * (weight @ getattr(self, f"right_{i}"))).sum()
        return weight / norm


class Discriminator(AdversarialReward):
    """GAIL's discriminator: ℓ is an MLP of (s, a), of s, or of (s, s′).

    Args:
        observation_space: Box or Discrete observation space.
        action_space: Box, Discrete or MultiDiscrete action space.
        inputs: Inputs of the discriminator; `state` and `transition` imitate without the expert's actions.
        reward: Reward function `positive`, `negative` or `logit`, see `AdversarialReward`.
        hidden_sizes: Sizes of the MLP's hidden layers.
        activation: Activation between the layers.
        spectral_norm: Divide each weight matrix by its largest singular value.
        loss: Loss `cross_entropy` or `wasserstein`, see `AdversarialReward`.
        max_logit: Bound at which the loss clips ℓ.
        gradient_penalty: Coefficient of the gradient penalty.
        label_smoothing: Label smoothing s.
        absorbing: Learn a reward of the absorbing state after the end of an episode.
        gamma: Discount factor of the absorbing state; the same as the learner's.
        encoder: Kind of encoder: `image`, `vector`, or chosen by the space; see `Encoder`.

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
        loss: Literal["cross_entropy", "wasserstein"] = "cross_entropy",
        max_logit: float = math.inf,
        gradient_penalty: float = 0.0,
        label_smoothing: float = 0.0,
        absorbing: bool = False,
        gamma: float = 0.99,
        encoder: EncoderKind = "auto",
    ) -> None:
        super().__init__(
            observation_space,
            action_space,
            inputs,
            loss=loss,
            max_logit=max_logit,
            gradient_penalty=gradient_penalty,
            label_smoothing=label_smoothing,
            absorbing=absorbing,
            gamma=gamma,
            encoder=encoder,
        )
        if loss == "wasserstein" and reward != "logit":
            raise ConfigError(
                f"discriminator.reward is {reward}; a Wasserstein critic needs discriminator.reward logit"
            )
        if loss == "wasserstein" and not spectral_norm and not gradient_penalty:
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
        """Update the singular vectors."""
        if isinstance(self.network, SpectralMLP):
            self.network.power_iteration()


DiscriminatorFactory: TypeAlias = Callable[[Space[Any], Space[Any]], AdversarialReward]
"""Function that builds a discriminator from observation and action space."""
