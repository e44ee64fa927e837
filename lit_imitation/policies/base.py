"""What every policy is: observations in, actions out, and a loss that makes it imitate."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from gymnasium import Space
from gymnasium.spaces import Discrete
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_imitation.errors import ConfigError
from lit_imitation.networks.encoders import Encoder, EncoderKind
from lit_imitation.networks.mlp import MLP, Activation, EnsembleMLP
from lit_imitation.rollout import Actor, FunctionActor
from lit_imitation.transitions import as_played
from lit_imitation.utils.descriptions import Described
from lit_imitation.utils.spaces import FlatBox


class Policy(Described, nn.Module, ABC):
    """π(action | observation): an encoder, an MLP, and a head to which a subclass gives its meaning.

    A subclass defines `decode` and `loss`. Its constructor takes the spaces first, then hyper-parameters by keyword.

    Args:
        observation_space: Box or Discrete.
        action_space: Box or Discrete.
        outputs: size of the head.
        hidden_sizes: of the MLP.
        activation: between its layers.
        dropout: probability of zeroing a hidden unit while training.
        encoder: how observations are read: `image`, `vector`, or by their space; see `Encoder`.
        network: builds the MLP from sizes, activation and dropout.

    Raises:
        ConfigError: a size below 1, or a probability outside [0, 1).
    """

    trained = False
    """It comes from a checkpoint: its weights are of use, and with no other normalizer than its own."""
    fresh = False
    """Its weights are known to be those that were drawn: there is nothing in them to hold on to."""
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
        """Actions inside the action space, `[B, outputs]` to `[B, *act]`: the mode, or a draw."""

    @abstractmethod
    def loss(self, observation: Tensor, action: Tensor) -> Tensor:
        """`[B]`: what minimizing makes the policy imitate `action: [B, *act]` at `observation: [B, *obs]`."""

    def mean_loss(self, observation: Tensor, action: Tensor) -> Tensor:
        """`[]`: the mean of `loss` over the batch; a subclass may have a kernel that does both at once."""
        return self.loss(observation, action).mean()

    def entropy(self, observation: Tensor) -> Tensor:
        """`[B]`: the entropy of π(· | observation) in nats; raises `TypeError` where π is a function, no density."""
        return self.head_entropy(self.head(observation))

    # What reinforcement learning asks of the head, once computed. A policy without a distribution cannot answer.

    def sample(self, head: Tensor) -> Tensor:
        """A draw from π, `[B, outputs]` to `[B, *act]`: the value of which `head_log_prob` is the density.

        It may lie outside the action space; `clip` brings it in.
        """
        raise self._no_distribution("draws")

    def clip(self, action: Tensor) -> Tensor:
        """The nearest action inside the action space, `[B, *act]` to `[B, *act]`."""
        return action

    def head_log_prob(self, head: Tensor, action: Tensor) -> Tensor:
        """`[B]`: log π(action | observation) from the head `[B, outputs]`."""
        raise self._no_distribution("log-probability")

    def played_log_prob(self, head: Tensor, action: Tensor) -> Tensor:
        """`[B]`: log of the probability that the environment is made to play `action: [B, *act]`, clipped.

        A density where that is continuous, over actions in units of half their range.
        """
        return self.head_log_prob(head, action)

    def head_entropy(self, head: Tensor) -> Tensor:
        """`[B]`: the entropy of π(· | observation) in nats from the head."""
        raise self._no_distribution("entropy")

    def head_kl(self, head: Tensor, reference: Policy, reference_head: Tensor) -> Tensor:
        """`[B]`: KL(π ‖ π_reference) in nats from the heads of two policies of this class."""
        raise self._no_distribution("divergence")

    def _no_distribution(self, what: str) -> TypeError:
        return TypeError(f"{type(self).__name__} has no distribution, so no {what}")

    def act(self, observation: Tensor, deterministic: bool = True) -> Tensor:
        """Actions inside the action space, `[B, *obs]` to `[B, *act]`: the mode of the distribution, or a draw."""
        return self.decode(self.head(observation), deterministic)

    def head(self, observation: Tensor) -> Tensor:
        """`[B, *obs]` to `[B, outputs]`."""
        output: Tensor = self.network(self.encoder(observation))
        return output

    def fit_normalizer(self, observation: Tensor, action: Tensor | None = None) -> None:
        """Standardize inputs by the mean and standard deviation of `observation: [N, *obs]` from now on.

        With demonstrated actions, `[N, *act]`, outputs are in the units that `fit_actions` takes from them.
        """
        self.encoder.fit(observation)
        if action is not None:
            self.fit_actions(action)

    def fit_actions(self, action: Tensor) -> None:
        """Take the units of continuous actions from demonstrated ones `[N, *act]`; nothing to do for others."""

    @torch.no_grad()
    def refit_normalizer(self, observation: Tensor, optimizers: Sequence[Optimizer] = ()) -> None:
        """As `fit_normalizer`, but π stays the function that it is: the first layer takes the change in.

        With x̂ = (x − μ) / σ = x̂' r + d, r = σ' / σ and d = (μ' − μ) / σ, W becomes W diag(r) and b becomes b + W d.
        (Where an input is so far out that it is clipped, the two differ.) The gradients become (∂W − ∂b dᵀ) diag(r)⁻¹,
        and so does Adam's first moment; the second, which does not follow, becomes the most that it can be.

        Args:
            observation: `[N, *obs]`.
            optimizers: those that train this policy.
        """
        standardize = self.encoder.standardize
        if standardize is None:
            return
        mean, inverse = standardize.mean.double().clone(), standardize.inverse_std.double().clone()
        self.fit_normalizer(observation)
        ratio = inverse / standardize.inverse_std.double()
        shift = (standardize.mean.double() - mean) * inverse
        weight, bias = self.network.first_layer
        old = weight.double()
        bias.copy_(bias.double() + old @ shift)
        weight.copy_(old * ratio)
        for optimizer in optimizers:
            if weight not in optimizer.state or bias not in optimizer.state:
                continue
            of_weight, of_bias = optimizer.state[weight], optimizer.state[bias]
            first, second = (of_bias[name].double()[..., None] for name in ("exp_avg", "exp_avg_sq"))
            moment = (of_weight["exp_avg"].double() - first * shift) / ratio
            # The root mean square of a difference is at most the sum of those of its parts.
            most = (of_weight["exp_avg_sq"].double().sqrt() + second.sqrt() * shift.abs()) / ratio
            of_weight["exp_avg"].copy_(moment)
            of_weight["exp_avg_sq"].copy_(most.square())

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
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
        return FunctionActor(lambda observation: decode(network(encode(observation)), deterministic))

    def explorer(self) -> Explorer:
        """The policy as an actor that draws its actions and keeps the draws, for learning from the rollout."""
        return Explorer(self)

    def decode_array(self, head: NDArray[Any], deterministic: bool) -> NDArray[Any]:
        """`decode` on arrays; a subclass may have a faster way."""
        return self.decode(torch.from_numpy(head), deterministic).detach().numpy()

    @torch.no_grad()  # and not inference mode: what comes out may go into somebody's loss
    def forward(self, observation: Any, deterministic: bool = True) -> Any:
        """The action for one observation or a batch, a NumPy array for a NumPy array and a tensor for a tensor.

        A single discrete action is an `int`, as `env.step` takes it.

        This is the method for use, `policy(observation)`; training goes through `loss`. Dropout is off.

        Args:
            observation: `[*obs]` or `[B, *obs]`; a Python number or list counts as NumPy. Of an environment whose
                observations are dictionaries or tuples, these too, of arrays with or without the leading B.
            deterministic: the mode of the distribution, else a draw from it.

        Returns:
            `[*act]` or `[B, *act]`, in the environment's own values.

        Raises:
            ValueError: the shape is that of neither one observation nor a batch, a part is missing, or there is
                something else than finite real numbers.
        """
        space = self.observation_space
        if isinstance(space, FlatBox) and isinstance(observation, Mapping | tuple):
            observation = space.flatten(observation)
        elif isinstance(observation, Mapping):
            raise ValueError(f"observation is a dictionary of {list(observation)}; expected an array of {space}")
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
        return as_played(action.cpu().numpy(), self.action_space)


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
"""What builds a policy once the spaces are known: `functools.partial(GaussianPolicy, hidden_sizes=[64, 64])`."""
