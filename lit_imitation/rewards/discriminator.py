"""GAIL's discriminator (Ho & Ermon 2016), and what keeps one from winning too early."""

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
"""What each step of the discriminator reports beside its loss."""
OF_PROBABILITIES = ("discriminator_accuracy_expert", "discriminator_accuracy_learner", "jensen_shannon")
"""Those of them that say nothing of a Wasserstein critic, whose ℓ is known up to a constant: its sign is none."""


class AdversarialReward(LearnableReward):
    """A classifier D = σ(ℓ) of expert (label 1) and learner (label 0), whose logit ℓ is what the learner is paid by.

    With expert and learner pairs in equal numbers, from the occupancies ρ_E and ρ_π, D is trained on

        L = −½ E_{ρ_E}[log D] − ½ E_{ρ_π}[log(1 − D)],        best at D* = ρ_E / (ρ_E + ρ_π),  ℓ* = log(ρ_E / ρ_π).

    So ℓ is large where the expert is more often than the learner, and the learner has to *maximize* it or anything
    that grows with it. The rewards that do, with their signs:

        positive: −log(1 − D) = log(1 + e^ℓ) > 0     each step is worth something: to live longer pays
        negative:  log D      = −log(1 + e^−ℓ) < 0   each step costs something: to end the episode pays
        logit:     log D − log(1 − D) = ℓ            either sign; E_{ρ_π}[ℓ*] = −KL(ρ_π ‖ ρ_E)

    (With the labels the other way about, expert 0, D is 1 − D here, and `negative` reads log(1 − D), `positive`
    −log D.) At D* the loss is log 2 − JS(ρ_E, ρ_π): log 2 − L, at least 0 and at most log 2, estimates from below how
    far the two are apart.

    A subclass gives `score`, the logit of features, and says what of it is the reward.

    Args:
        observation_space: Box or Discrete.
        action_space: Box, Discrete or MultiDiscrete.
        inputs: what is read.
        loss: `cross_entropy`, L above; or `wasserstein`, E_{ρ_π}[ℓ] − E_{ρ_E}[ℓ], to which a gradient penalty or
            spectral normalization has to be set, and whose reward is ℓ itself.
        max_logit: m, at which the loss clips the logits: min(ℓ, m) of the expert's pairs, max(ℓ, −m) of the learner's.
            A pair that is told by more has no gradient, so that ℓ stops growing there; one on the wrong side always has
            one. (To bound ℓ itself, on both sides, would leave neither slope where the learner is nor a gradient to a
            discriminator that has gone too far.)
        gradient_penalty: c of c E[(‖∇_x ℓ(x)‖ − 1)²] at points x on the lines between expert and learner pairs, one
            draw of the place on the line for each pair (Gulrajani et al. 2017).
        label_smoothing: s, for labels 1 − s and s, so that at D* |ℓ| ≤ log((1 − s) / s).
        absorbing: reward the state after a terminated episode too, as if it went on there for ever (Kostrikov et al.
            2019): the last transition is paid γ / (1 − γ) times the absorbing state's reward beside its own.
        gamma: the discount γ, of the absorbing state.
        encoder: how observations are read: `image`, `vector`, or by their space; see `Encoder`.
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
            raise ConfigError("discriminator.absorbing needs discriminator.gamma below 1: it goes on for ever")
        self.loss, self.max_logit, self.gradient_penalty = loss, max_logit, gradient_penalty
        self.label_smoothing, self.absorbing, self.gamma = label_smoothing, absorbing, gamma

    @abstractmethod
    def score(self, features: Tensor) -> Tensor:
        """`[B]`: the part of ℓ that the networks give, from `[B, n]`."""

    @abstractmethod
    def paid(self, logit: Tensor) -> Tensor:
        """`[B]`: the reward from ℓ."""

    def describe_samples(self, samples: Samples) -> Tensor:
        """`[B, n]`: what `score` reads."""
        features: Tensor = self.features(samples)
        return features

    def logit(self, samples: Samples, log_prob: Tensor | None = None) -> Tensor:
        """ℓ `[B]`; `log_prob: [B]` is log π(a | s) of the current learner, for those who need it."""
        return self.score(self.describe_samples(samples))

    needs_log_prob = False
    """Whether `logit` reads log π."""
    penalized: int | None = None
    """How many of the columns of `describe_samples`, from the first on, the gradient penalty is about; None for all."""

    @property
    def classifies(self) -> bool:
        """Whether ℓ is the logit of a probability."""
        return self.loss == "cross_entropy"

    @property
    def discounts(self) -> bool:
        """Whether γ has a say."""
        return self.absorbing

    def forward(self, *columns: Tensor) -> tuple[Tensor, Tensor]:
        """The loss `[]` and its `STATISTICS` `[6]`.

        Args:
            *columns: the fields of `Samples`, `[2B, …]` each, the expert's first and then the learner's; log π of
                each, `[2B]`; and where on the line from one to the other the penalty is taken, `[B]` in [0, 1].
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
        else:  # the expert's: −(1 − s) log D − s log(1 − D) = −log D + s ℓ; the learner's: −log(1 − D) − s ℓ
            loss = clipped + 0.5 * self.label_smoothing * (high.mean() - low.mean())
        penalty = torch.zeros_like(loss)
        if self.gradient_penalty:
            features = self.describe_samples(samples)
            between = torch.lerp(features[half:], features[:half], place[:, None])
            slope = torch.func.grad(lambda x: self.score(x).sum())(between)[:, : self.penalized]
            penalty = ((slope.square().sum(-1) + 1e-12).sqrt() - 1.0).square().mean()
            loss = loss + self.gradient_penalty * penalty
        accuracy = ((expert > 0).float().mean(), (learner < 0).float().mean())
        jensen_shannon = math.log(2.0) - cross_entropy
        statistics = (*accuracy, expert.mean(), learner.mean(), jensen_shannon, penalty)
        return loss, torch.stack([value.detach() for value in statistics])

    @without_autocast
    def reward(self, transitions: Transitions) -> Tensor:
        """`[*batch]`, of transitions `[*batch]`."""
        shape = transitions.batch_size
        flat = transitions.reshape(-1)
        paid = self.paid(self.logit(Samples.of(flat), flat.log_prob))
        if self.absorbing:
            after = self.gamma / (1.0 - self.gamma) * self.absorbing_reward()
            paid = paid + torch.where(flat.terminated, after, torch.zeros_like(paid))
        return paid.view(shape)

    def absorbing_reward(self) -> Tensor:
        """`[]`: of a step in the absorbing state."""
        return self.paid(self.logit(self.absorbing_state(), None)).squeeze(0)

    def absorbing_state(self) -> Samples:
        """One row of it."""
        device = next(self.parameters()).device

        def anything(space: Space[Any]) -> Tensor:
            """One element of the space, which is masked in the features."""
            return torch.from_numpy(example_element(space)[None]).to(device)

        observation, action = anything(self.observation_space), anything(self.action_space)
        yes = torch.ones(1, dtype=torch.bool, device=device)
        return Samples(observation, action, observation, yes, yes)


def _cross_entropy(expert: Tensor, learner: Tensor) -> Tensor:
    """−½ E[log D] − ½ E[log(1 − D)] `[]`, from the logits of either side."""
    return 0.5 * (F.softplus(-expert).mean() + F.softplus(learner).mean())


class SpectralMLP(MLP):
    """An MLP whose matrices are divided by their largest singular values (Miyato et al. 2018): ℓ is 1-Lipschitz.

    Within a gradient step the singular vectors count as constants. `iterate` brings them up to date by the power
    method, and has to follow each step (`Descent` calls `after_step`).
    """

    def __init__(self, sizes: Sequence[int], activation: Activation) -> None:
        super().__init__(sizes, activation)
        for i, layer in enumerate(self.layers):
            rows, columns = layer.weight.shape  # type: ignore[misc]
            for name, size in (("left", rows), ("right", columns)):
                self.register_buffer(f"{name}_{i}", F.normalize(torch.randn(size), dim=0))
        self.iterate(30)

    @torch.no_grad()
    def iterate(self, times: int = 5) -> None:
        """The power method on each matrix, in place."""
        for i, layer in enumerate(self.layers):
            left, right = getattr(self, f"left_{i}"), getattr(self, f"right_{i}")
            for _ in range(times):
                right.copy_(F.normalize(layer.weight.mT @ left, dim=0))
                left.copy_(F.normalize(layer.weight @ right, dim=0))

    def forward(self, x: Tensor) -> Tensor:
        """`[B, sizes[0]]` to `[B, sizes[-1]]`."""
        *hidden, last = range(len(self.layers))
        for i in hidden:
            x = self._activate(F.linear(x, self._weight(i), self.layers[i].bias))  # type: ignore[arg-type]
        return F.linear(x, self._weight(last), self.layers[last].bias)  # type: ignore[arg-type]

    def _weight(self, i: int) -> Tensor:
        weight: Tensor = self.layers[i].weight  # type: ignore[assignment]
        # Not by `dot`, which wants both in one precision, and under autocast they are not.
        norm: Tensor = (getattr(self, f"left_{i}") * (weight @ getattr(self, f"right_{i}"))).sum()
        return weight / norm


class Discriminator(AdversarialReward):
    """GAIL's: ℓ is an MLP of (s, a), or of s, or of (s, s′).

    Args:
        observation_space: Box or Discrete.
        action_space: Box, Discrete or MultiDiscrete.
        inputs: what is read; `state` and `transition` imitate without knowing the expert's actions.
        reward: `positive`, `negative` or `logit`, see `AdversarialReward`.
        hidden_sizes: of the MLP.
        activation: between its layers.
        spectral_norm: divide each matrix by its largest singular value.
        loss: see `AdversarialReward`, like the rest.
        max_logit: at which the loss clips ℓ.
        gradient_penalty: its coefficient.
        label_smoothing: of the labels.
        absorbing: reward the state after the end.
        gamma: its discount; the learner's own.
        encoder: how observations are read: `image`, `vector`, or by their space; see `Encoder`.
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
            raise ConfigError(f"discriminator.reward is {reward}; a Wasserstein critic is no probability: take logit")
        if loss == "wasserstein" and not spectral_norm and not gradient_penalty:
            raise ConfigError(
                "discriminator.loss is wasserstein, which grows without end where nothing bounds the critic's slope: "
                "set discriminator.gradient_penalty (10 is usual) or discriminator.spectral_norm true"
            )
        self.kind = reward
        sizes = [self.features.out_features, *hidden_sizes, 1]
        self.network = SpectralMLP(sizes, activation) if spectral_norm else MLP(sizes, activation)

    def score(self, features: Tensor) -> Tensor:
        """`[B]`."""
        score: Tensor = self.network(features)
        return score.squeeze(-1)

    def paid(self, logit: Tensor) -> Tensor:
        """`[B]`."""
        if self.kind == "positive":
            return F.softplus(logit)
        return -F.softplus(-logit) if self.kind == "negative" else logit

    def after_step(self) -> None:
        """Bring the singular vectors up to date."""
        if isinstance(self.network, SpectralMLP):
            self.network.iterate()


DiscriminatorFactory: TypeAlias = Callable[[Space[Any], Space[Any]], AdversarialReward]
"""Builds a discriminator from the two spaces."""
