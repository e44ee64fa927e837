"""Base class of policies: actions from observations, and an imitation loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from gymnasium import Space
from gymnasium.spaces import Discrete
from numpy.typing import NDArray
from torch import Tensor, nn

from lit_imitation.errors import ConfigError
from lit_imitation.networks.encoders import Encoder, EncoderKind
from lit_imitation.networks.mlp import MLP, Activation, EnsembleMLP
from lit_imitation.rollout import Actor, FunctionActor
from lit_imitation.transitions import Transitions, cast_action
from lit_imitation.utils.descriptions import Describable
from lit_imitation.utils.spaces import FlatBox
from lit_imitation.windows import WindowSize

AdamMoments: TypeAlias = Callable[[nn.Parameter], "tuple[Tensor, Tensor] | None"]
"""First and second moment of a parameter, as views that can be changed."""


class Policy(Describable, nn.Module, ABC):
    """Policy π(action | observation): an encoder, an MLP, and a head that subclasses interpret.

    Subclasses define `decode` and `loss`. Their constructors take the spaces first, then hyper-parameters by keyword.

    Args:
        observation_space: Box or Discrete observation space.
        action_space: Action space.
        outputs: Size of the head.
        hidden_sizes: Sizes of the MLP's hidden layers.
        activation: Activation between the layers.
        dropout: Probability of zeroing a hidden unit during training.
        encoder: Kind of encoder, with its options, or encoders of parts by path; see `Encoder`.
        network: Function that builds the MLP from sizes, activation and dropout.

    Raises:
        ConfigError: A size is less than 1, or `dropout` is outside [0, 1).
    """

    trained = False
    """Whether the policy was loaded from a checkpoint; its weights then require its own normalizer."""
    fresh = False
    """Whether the weights are known to be untrained, so that nothing in them has to be preserved."""
    has_mode = True
    """Whether deterministic actions are a mode of the distribution, so that they repeat what was demonstrated."""
    window = WindowSize()
    """Observations that an action depends on, and actions that are planned at once."""
    context = ("observation_space", "action_space")

    def __init__(
        self,
        observation_space: Space[Any],
        action_space: Space[Any],
        outputs: int,
        *,
        hidden_sizes: Sequence[int],
        activation: Activation,
        dropout: float,
        encoder: EncoderKind = "auto",
        network: Callable[[Sequence[int], Activation, float], MLP | EnsembleMLP] = MLP,
    ) -> None:
        name = type(self).__name__
        if any(size < 1 for size in hidden_sizes):
            raise ConfigError(f"{name}: hidden_sizes is {list(hidden_sizes)}; each must be at least 1")
        if not 0.0 <= dropout < 1.0:
            raise ConfigError(f"{name}: dropout is {dropout}; it must lie in [0, 1)")
        super().__init__()
        self.observation_space, self.action_space = observation_space, action_space
        self.encoder = Encoder(observation_space, encoder)
        self.network = network([self.encoder.out_features, *hidden_sizes, outputs], activation, dropout)

    @abstractmethod
    def decode(self, head: Tensor, deterministic: bool) -> Tensor:
        """Actions `[B, *act]` inside the action space from the head `[B, outputs]`: the mode, or a sample."""

    @abstractmethod
    def loss(self, observation: Tensor, action: Tensor) -> Tensor:
        """Imitation loss `[B]` of `action: [B, *act]` at `observation: [B, *obs]`."""

    def mean_loss(self, observation: Tensor, action: Tensor) -> Tensor:
        """Mean of `loss` over the batch, `[]`; subclasses may use a fused kernel."""
        return self.loss(observation, action).mean()

    def entropy(self, observation: Tensor) -> Tensor:
        """Entropy `[B]` of π(· | observation) in nats.

        Raises:
            TypeError: The policy has no distribution.
        """
        return self.head_entropy(self.head(observation))

    # Reinforcement learning computes the head once and calls these. Policies without a distribution raise TypeError.

    def sample(self, head: Tensor) -> Tensor:
        """Sample `[B, *act]` from π for the head `[B, outputs]`, the value whose density is `head_log_prob`.

        It may lie outside the action space; `clip` projects it back.
        """
        raise self._no_distribution("draws")

    def clip(self, action: Tensor) -> Tensor:
        """Closest action inside the action space, `[B, *act]`."""
        return action

    def head_log_prob(self, head: Tensor, action: Tensor) -> Tensor:
        """Log-probability `[B]` log π(action | observation) from the head `[B, outputs]`."""
        raise self._no_distribution("log-probability")

    def executed_log_prob(self, head: Tensor, action: Tensor) -> Tensor:
        """Log-probability `[B]` that the environment executes `action: [B, *act]`, after clipping.

        For continuous actions this is a density in units of half the action range, with point masses at clipping
        bounds.
        """
        return self.head_log_prob(head, action)

    def head_entropy(self, head: Tensor) -> Tensor:
        """Entropy `[B]` of π(· | observation) in nats from the head."""
        raise self._no_distribution("entropy")

    def head_kl(self, head: Tensor, reference: Policy, reference_head: Tensor) -> Tensor:
        """Divergence `[B]` KL(π ‖ π_reference) in nats from the heads of two policies of this class."""
        raise self._no_distribution("divergence")

    def _no_distribution(self, what: str) -> TypeError:
        return TypeError(f"{type(self).__name__} has no distribution, so no {what}")

    def act(self, observation: Tensor, deterministic: bool = True) -> Tensor:
        """Actions `[B, *act]` inside the action space for observations `[B, *obs]`: the mode, or a sample."""
        return self.decode(self.head(observation), deterministic)

    def head(self, observation: Tensor) -> Tensor:
        """Head `[B, outputs]` of observations `[B, *obs]`."""
        output: Tensor = self.network(self.encoder(observation))
        return output

    def fit_normalizer(self, observation: Tensor | Iterable[Tensor], action: Tensor | None = None) -> None:
        """Fit the input standardization to `observation: [N, *obs]`, or to parts of it one after another.

        With demonstrated actions `[N, *act]`, the units of the outputs are fitted too, see `fit_actions`.
        """
        self.encoder.fit(observation)
        if action is not None:
            self.fit_actions(action)

    def demonstrated(self, data: Transitions, observation: Tensor | Iterable[Tensor]) -> Tensor:
        """What `fit_actions` takes of demonstrations `[N]` and their observations `[N, *obs]`, or parts of these."""
        return data.action

    def fit_actions(self, action: Tensor) -> None:
        """Fit the units of continuous actions to demonstrated actions `[N, *act]`; no effect for other actions."""

    @torch.no_grad()
    def refit_normalizer(self, observation: Tensor, moments: AdamMoments | None = None) -> None:
        """As `fit_normalizer`, but π stays the function that it is: the first layer takes the change in.

        With x̂ = (x − μ) / σ = x̂' r + d, r = σ' / σ and d = (μ' − μ) / σ, W becomes W diag(r) and b becomes b + W d.
        (They differ where an input is clipped.) The gradients become (∂W − ∂b dᵀ) diag(r)⁻¹, and so does Adam's first
        moment. The second moment is not determined by this, so it becomes its upper bound.

        Args:
            observation: `[N, *obs]`.
            moments: Adam's moments of a parameter, as views of its shape; None before the first step.
        """
        inputs = self.encoder.inputs
        before = [(own.mean.double().clone(), own.inverse_std.double().clone()) for own, _ in inputs]
        if not inputs:
            return
        self.fit_normalizer(observation)
        ratios = torch.ones(self.encoder.out_features, dtype=torch.float64, device=self.device)
        shifts = torch.zeros_like(ratios)
        for (own, where), (mean, inverse) in zip(inputs, before, strict=True):
            ratio, shift = inverse / own.inverse_std.double(), (own.mean.double() - mean) * inverse
            if isinstance(where, slice):
                ratios[where], shifts[where] = ratio, shift
            else:
                _absorb(*where.first_layer, ratio, shift, moments)
        ratios, shifts = ratios.repeat(self.window.observations), shifts.repeat(self.window.observations)
        for weight, bias in self.observation_layers:
            _absorb(weight, bias, ratios, shifts, moments)

    @property
    def observation_layers(self) -> list[tuple[nn.Parameter, nn.Parameter]]:
        """Weight `[..., out, in]` and bias `[..., out]` of each layer whose first inputs are the encoder's features."""
        return [self.network.first_layer]

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return next(self.parameters()).device

    def actor(self, deterministic: bool = True) -> Actor:
        """The policy as an actor for rollouts, without gradients and dropout.

        On the CPU small networks run in NumPy, which is faster there than torch, so nothing is converted in a rollout.

        Args:
            deterministic: Whether to take the mode of the distribution instead of drawing from it.
        """
        encode = self.encoder.inference() if self.device.type == "cpu" else None
        if encode is None:
            return FunctionActor(lambda observation: self(observation, deterministic))
        network, decode = self.network.inference(), self.decode_array
        if isinstance(self.observation_space, FlatBox):
            flatten = self.flatten
            return FunctionActor(lambda observation: decode(network(encode(flatten(observation))), deterministic))
        return FunctionActor(lambda observation: decode(network(encode(observation)), deterministic))

    def flatten(self, observation: Any) -> Any:
        """Dictionary or tuple of a Dict or Tuple space as a flat array; other observations are returned unchanged.

        Raises:
            ValueError: A part is missing or has another shape, or the observations are no dictionaries.
        """
        space = self.observation_space
        if isinstance(space, FlatBox) and isinstance(observation, Mapping | tuple):
            return space.flatten(observation)
        if isinstance(observation, Mapping):
            raise ValueError(f"observation is a dictionary of {list(observation)}; expected an array of {space}")
        return observation

    def explorer(self) -> Explorer:
        """The policy as an actor that draws its actions and keeps the draws, for learning from the rollout."""
        return Explorer(self)

    def decode_array(self, head: NDArray[Any], deterministic: bool) -> NDArray[Any]:
        """NumPy version of `decode`; subclasses may have a faster one."""
        return self.decode(torch.from_numpy(head), deterministic).detach().numpy()

    @torch.no_grad()  # inference mode would forbid using the result in a loss
    def forward(self, observation: Any, deterministic: bool = True) -> Any:
        """Action for one observation or a batch: NumPy arrays for NumPy input, tensors for tensors.

        A single discrete action is an `int`, as `env.step` expects. Call `policy(observation)` to use a policy;
        training calls `loss`. Dropout is off.

        Args:
            observation: `[*obs]` or `[B, *obs]`; Python numbers and lists count as NumPy. For environments with Dict or
                Tuple observations also dictionaries or tuples of arrays, with or without the leading B.
            deterministic: Return the mode of the distribution instead of a sample.

        Returns:
            `[*act]` or `[B, *act]`, in the environment's own units.

        Raises:
            ValueError: The shape fits neither one observation nor a batch, a part is missing, or a value is not a
                finite real number.
        """
        space = self.observation_space
        if self.window.observations > 1:
            raise ValueError(
                f"{type(self).__name__} needs its last {self.window.observations} observations: make an actor with "
                "policy.actor(), which remembers them, and call that; actor.reset(mask) starts episodes"
            )
        observation = self.flatten(observation)
        is_tensor = isinstance(observation, Tensor)
        if not is_tensor:
            observation = np.asarray(observation, order="C")
            if observation.dtype.kind not in "biuf":
                raise ValueError(f"observation is an array of {observation.dtype}; expected real numbers")
        batch = observation if is_tensor else torch.from_numpy(observation)
        shape = tuple(space.shape or ())
        single = batch.ndim == len(shape)
        if tuple(batch.shape if single else batch.shape[1:]) != shape:
            of_many = ", ".join(map(str, ("B", *shape)))
            raise ValueError(
                f"observation has shape {list(batch.shape)}; expected {list(shape)} for one, or [{of_many}] for a batch"
            )
        if batch.is_floating_point() and not batch.isfinite().all():
            where = (~batch.isfinite()).nonzero()[0].tolist()
            raise ValueError(f"observation is not finite at {where}: {float(batch[tuple(where)])}")
        batch = (batch[None] if single else batch).to(self.device)
        training = self.training
        self.eval()
        action = self.act(batch, deterministic)
        self.train(training)
        action = action[0] if single else action
        if is_tensor:
            return action.to(observation.device)
        if single and isinstance(self.action_space, Discrete):
            return int(action)
        return cast_action(action.cpu().numpy(), self.action_space)


def _absorb(
    weight: nn.Parameter, bias: nn.Parameter, ratio: Tensor, shift: Tensor, moments: AdamMoments | None
) -> None:
    """Let a layer take in x̂ = x̂' r + d of its first inputs, see `Policy.refit_normalizer`.

    Args:
        weight: `[..., out, in]`.
        bias: `[..., out]`.
        ratio: r of the first inputs, `[features]`.
        shift: d of the first inputs, `[features]`.
        moments: Adam's moments of a parameter.
    """
    columns = slice(len(ratio))
    old = weight[..., columns].double()
    bias.copy_(bias.double() + old @ shift)
    weight[..., columns].copy_(old * ratio)
    of_weight = moments(weight) if moments is not None else None
    of_bias = moments(bias) if moments is not None else None
    if of_weight is None or of_bias is None:
        return
    first, second = (moment.double()[..., None] for moment in of_bias)
    of_columns = [moment[..., columns] for moment in of_weight]
    moment = (of_columns[0].double() - first * shift) / ratio
    # The root mean square of a difference is at most the sum of those of its parts.
    most = (of_columns[1].double().sqrt() + second.sqrt() * shift.abs()) / ratio
    of_columns[0].copy_(moment)
    of_columns[1].copy_(most.square())


class Explorer:
    """An actor that draws from a policy and keeps the draws, before they are clipped into the action space.

    In-place updates of the policy's parameters take effect immediately. Only observations and clipped actions move
    between the host and the policy's device.

    Args:
        policy: The policy; it needs a distribution.
    """

    memoryless = True

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.drawn: list[Tensor] = []
        """Draws `[B, *act]`, one for each step, on the policy's device."""
        self._encode = policy.encoder.inference() if policy.device.type == "cpu" else None
        self._network = policy.network.inference() if self._encode is not None else None

    def act(self, observation: NDArray[Any], /) -> NDArray[Any]:
        """Draw actions `[B, *act]` at `observation: [B, *obs]`, keep them, and return them clipped."""
        with torch.no_grad():
            action = self.policy.sample(self._head(observation))
            self.drawn.append(action)
            played: NDArray[Any] = self.policy.clip(action).cpu().numpy()
        return played

    def reset(self, mask: NDArray[np.bool_], /) -> None:
        """Do nothing: the policy depends on the current observation alone."""

    def _head(self, observation: NDArray[Any]) -> Tensor:
        if self._encode is not None and self._network is not None:
            return torch.from_numpy(self._network(self._encode(observation)))
        return self.policy.head(torch.from_numpy(observation).to(self.policy.device))


PolicyFactory: TypeAlias = Callable[[Space[Any], Space[Any]], Policy]
"""Function that builds a policy from the spaces: `functools.partial(GaussianPolicy, hidden_sizes=[64, 64])`."""
