"""Base class of policies that plan a chunk of actions from a window of observations."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from gymnasium import Space
from gymnasium.spaces import Box
from torch import Tensor, nn

from lit_imitation.errors import ConfigError, UnsupportedSpaceError
from lit_imitation.networks.encoders import EncoderKind, SplitEncoder
from lit_imitation.networks.mlp import Activation
from lit_imitation.policies.base import Policy
from lit_imitation.policies.chunk_actor import ChunkActor
from lit_imitation.policies.continuous import BoxActions
from lit_imitation.rollout import Actor, FunctionActor
from lit_imitation.transitions import Transitions
from lit_imitation.utils.ranges import check_at_least, check_weights
from lit_imitation.utils.spaces import PackedBox
from lit_imitation.windows import WindowedTransitions, WindowSize


class SequencePolicy(BoxActions, Policy):
    """Policy π(a_{t−n+1} … a_{t−n+H} | o_{t−n+1} … o_t) that plans a chunk of H actions from n observations.

    The chunk begins at the first observed step, as in Diffusion Policy (Chi et al. 2023, arXiv:2303.04137). Of its
    actions, those with index n − 1 to n − 2 + `n_action_steps` are executed before the next plan; the first of them
    belongs to the last observation. With one observation and one action it is an ordinary policy π(a | o).

    Subclasses define `build_network`, `chunk_loss` and `draw`.

    Args:
        observation_space: Box or Discrete observation space.
        action_space: Box action space; bounded dimensions are scaled to [−1, 1] inside, see `action_units`.
        n_obs_steps: Number n of successive observations that a plan depends on.
        horizon: Number H of actions in a chunk.
        n_action_steps: Number of actions executed before the next plan, at most H − n + 1.
        ensemble_decay: m of temporal ensembling, which plans at every step and averages, see `ChunkActor`; by default
            `n_action_steps` of each plan are executed instead.
        hidden_sizes: Sizes of the network's hidden layers.
        activation: Activation between the layers.
        dropout: Probability of zeroing a hidden unit during training.
        encoder: Kind of encoder, with its options, or encoders of parts by path; see `Encoder`. Each step is encoded
            alone.
        relative_to: For each action dimension, the number of the observation that it is measured from: for actions
            that are target positions, the number with the current position. The network then plans displacements from
            the last observation (relative trajectories, Chi et al. 2024, arXiv:2402.10329), which are the same
            wherever a motion begins. By default actions are planned as they are.

    Raises:
        ConfigError: A number of steps is less than 1, `n_action_steps` is too large for the horizon, or `relative_to`
            does not fit the spaces.
        UnsupportedSpaceError: The action space is not a Box.
    """

    network: Any

    def __init__(
        self,
        observation_space: Space[Any],
        action_space: Space[Any],
        *,
        n_obs_steps: int = 1,
        horizon: int = 1,
        n_action_steps: int = 1,
        ensemble_decay: float | None = None,
        hidden_sizes: Sequence[int] = (256, 256),
        activation: Activation = "relu",
        dropout: float = 0.0,
        encoder: EncoderKind = "auto",
        relative_to: Sequence[int] | None = None,
    ) -> None:
        name = type(self).__name__
        if not isinstance(action_space, Box):
            raise UnsupportedSpaceError(f"{name} needs a Box action space, not {action_space}")
        check_at_least(name, 1, n_obs_steps=n_obs_steps, horizon=horizon, n_action_steps=n_action_steps)
        check_weights(name, ensemble_decay=ensemble_decay)
        if n_obs_steps - 1 + n_action_steps > horizon:
            raise ConfigError(
                f"{name}.n_action_steps is {n_action_steps}; with n_obs_steps {n_obs_steps} and horizon {horizon} it "
                f"must be at most horizon - n_obs_steps + 1 = {horizon - n_obs_steps + 1}"
            )
        _check_reference(name, relative_to, observation_space, action_space)
        # `build_network`, which the base class calls, needs these.
        self.n_obs_steps, self.horizon, self.n_action_steps = n_obs_steps, horizon, n_action_steps
        self.window = WindowSize(n_obs_steps, horizon, n_action_steps)
        self.ensemble_decay = ensemble_decay
        self.act_dim = math.prod(action_space.shape)

        def network(sizes: Sequence[int], activation: Activation, dropout: float) -> Any:
            features, *hidden, _ = sizes
            return self.build_network(n_obs_steps * features, hidden, activation, dropout)

        super().__init__(
            observation_space,
            action_space,
            horizon * self.act_dim,
            hidden_sizes=hidden_sizes,
            activation=activation,
            dropout=dropout,
            encoder=encoder,
            network=network,
        )
        if relative_to is not None and isinstance(self.encoder.encode, SplitEncoder):
            raise ConfigError(f"{name}.relative_to needs one encoder for the whole vector; leave out encoders by path")
        self.set_box(action_space, relative=relative_to is not None)
        self.relative_to = None if relative_to is None else list(relative_to)

    @abstractmethod
    def build_network(
        self, features: int, hidden_sizes: Sequence[int], activation: Activation, dropout: float
    ) -> nn.Module:
        """Network that reads a condition with `features` numbers; the constructor calls this once."""

    @abstractmethod
    def chunk_loss(self, condition: Tensor, u: Tensor, mask: Tensor) -> Tensor:
        """Imitation loss `[B]` of chunks.

        Args:
            condition: `[B, n · features]` from `condition`.
            u: Demonstrated actions `[B, H, act_dim]` in units.
            mask: `[B, H]`, 1 for actions and 0 for padding, which does not count.
        """

    @abstractmethod
    def draw(self, condition: Tensor, deterministic: bool) -> Tensor:
        """Chunks `[B, H, act_dim]` in units from `condition`: a sample, or the choice that the subclass documents."""

    @property
    def executed(self) -> slice:
        """Indices of the actions of a chunk that are executed before the next plan."""
        return slice(self.n_obs_steps - 1, self.n_obs_steps - 1 + self.n_action_steps)

    def condition(self, observation: Tensor) -> Tensor:
        """Features `[B, n · features]` of windows of observations `[B, n, *obs]`, each step encoded alone."""
        features: Tensor = self.encoder(observation.flatten(0, 1))
        return features.view(observation.shape[0], self.n_obs_steps * self.encoder.out_features)

    def reference(self, observation: Tensor) -> Tensor | None:
        """What actions are measured from, `[B, 1, act_dim]`, in the last of observations `[B, n, *obs]`."""
        return None if self.relative_to is None else observation[:, -1:, self.relative_to]

    def head(self, observation: Tensor) -> Tensor:
        """The `condition` of windows `[B, n, *obs]`, or of observations `[B, *obs]` if n is 1.

        The `reference` follows it, if there is one.
        """
        windows = self._as_windows(observation)
        condition, reference = self.condition(windows), self.reference(windows)
        if reference is None:
            return condition
        # In full precision, also where features have half of it.
        return torch.cat([condition, reference[:, 0].to(self.center.dtype)], -1)

    def decode(self, head: Tensor, deterministic: bool) -> Tensor:
        """First executed actions `[B, *act]` inside the action space from `head`."""
        return self.decode_chunk(head, deterministic)[:, self.n_obs_steps - 1]

    def decode_chunk(self, head: Tensor, deterministic: bool) -> Tensor:
        """Chunks of actions `[B, H, *act]` inside the action space from `head`."""
        if self.relative_to is None:
            action = self.to_box(self.draw(head, deterministic))
        else:
            condition, reference = head.tensor_split([-self.act_dim], -1)
            u = self.draw(condition, deterministic)
            planned = torch.addcmul(self.center, u, self.scale) + reference[:, None]
            action = torch.clamp(planned, self.low, self.high)
        return action.view(-1, self.horizon, *self.shape)

    @torch.no_grad()
    def plan(self, observation: Tensor, deterministic: bool = True) -> Tensor:
        """Chunks of actions `[B, H, *act]` inside the action space for windows of observations `[B, n, *obs]`."""
        return self.decode_chunk(self.head(observation), deterministic)

    def loss(self, observation: Tensor, action: Tensor, mask: Tensor | None = None) -> Tensor:
        """Imitation loss `[B]` of chunks `[B, H, *act]` at windows `[B, n, *obs]`.

        Args:
            observation: `[B, n, *obs]`; also `[B, *obs]` if n is 1.
            action: `[B, H, *act]`; also `[B, *act]` if H is 1.
            mask: `[B, H]`, 1 or true for actions and 0 or false for padding; by default there is none.

        Raises:
            ValueError: A shape does not fit.
        """
        windows = self._as_windows(observation)
        condition, u = self.condition(windows), self.units(action, self.reference(windows))
        mask = torch.ones_like(u[..., 0]) if mask is None else mask.to(u.dtype)
        return self.chunk_loss(condition, u, mask)

    def mean_loss(self, observation: Tensor, action: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mean of `loss` over the batch, `[]`."""
        return self.loss(observation, action, mask).mean()

    def units(self, action: Tensor, reference: Tensor | None = None) -> Tensor:
        """Units `[B, H, act_dim]` of chunks `[B, H, *act]`, or of actions `[B, *act]` if H is 1.

        Args:
            action: Actions.
            reference: What they are measured from, `[B, 1, act_dim]`.

        Raises:
            ValueError: The shape does not fit.
        """
        if action.ndim == 1 + len(self.shape) and self.horizon == 1:
            action = action.unsqueeze(1)
        if tuple(action.shape[1:]) != (self.horizon, *self.shape):
            expected = f"[B, {self._sizes(self.horizon, self.shape)}]"
            raise ValueError(f"action has shape {list(action.shape)}; expected {expected}")
        flat = action.reshape(len(action), self.horizon, self.act_dim)
        return (flat - (self.center if reference is None else self.center + reference)) / self.scale

    def demonstrated(self, data: Transitions, observation: Tensor | Iterable[Tensor]) -> Tensor:
        """All chunks `[windows, H, *act]`, measured from their `reference`; actions `[N, *act]` without windows.

        Args:
            data: Demonstrations `[N]`.
            observation: Their observations `[N, *obs]`, or parts of them.
        """
        if self.window == WindowSize() and self.relative_to is None:
            return data.action
        windows = WindowedTransitions(data, self.window)
        chunks = data.action if self.window == WindowSize() else windows.chunks()
        if self.relative_to is None:
            return chunks
        parts = [observation] if isinstance(observation, Tensor) else observation
        reference = torch.cat([part[:, self.relative_to] for part in parts])[windows.current()]
        return chunks - reference.view(-1, *[1] * (chunks.ndim - 1 - len(self.shape)), *self.shape)

    def fit_normalizer(self, observation: Tensor | Iterable[Tensor], action: Tensor | None = None) -> None:
        """Fit the input standardization and, with actions, the units of the outputs.

        Args:
            observation: Observations `[N, *obs]` or windows `[N, n, *obs]`, or parts of observations.
            action: Actions `[N, *act]` or chunks `[N, H, *act]`, as `demonstrated` gives them.
        """
        if isinstance(observation, Tensor):
            observation = observation.reshape(-1, *(self.observation_space.shape or ()))
        super().fit_normalizer(observation, action)

    def fit_actions(self, action: Tensor) -> None:
        """Fit the units to demonstrated actions `[N, *act]` or chunks `[N, H, *act]`."""
        super().fit_actions(action.reshape(-1, *self.shape))

    def actor(self, deterministic: bool = True) -> Actor:
        """The policy as an actor for rollouts, without gradients and dropout.

        Args:
            deterministic: Whether `draw` is deterministic.
        """
        if self.window == WindowSize():
            return FunctionActor(lambda observation: self(observation, deterministic))
        plan = partial(self._plan_to_play, deterministic)
        return ChunkActor(plan, self.window, self.device, self.ensemble_decay, self.flatten)

    def _plan_to_play(self, deterministic: bool, observation: Tensor) -> Tensor:
        training = self.training
        self.eval()
        planned = self.plan(observation, deterministic)
        self.train(training)
        return planned

    def _as_windows(self, observation: Tensor) -> Tensor:
        shape = self.observation_space.shape or ()
        if observation.ndim == 1 + len(shape) and self.n_obs_steps == 1:
            observation = observation.unsqueeze(1)
        if tuple(observation.shape[1:]) != (self.n_obs_steps, *shape):
            expected = f"[B, {self._sizes(self.n_obs_steps, shape)}]"
            raise ValueError(f"observation has shape {list(observation.shape)}; expected {expected}")
        return observation

    @staticmethod
    def _sizes(steps: int, shape: tuple[int, ...]) -> str:
        return ", ".join(map(str, (steps, *shape)))


def _check_reference(
    name: str, relative_to: Sequence[int] | None, observation_space: Space[Any], action_space: Box
) -> None:
    if relative_to is None:
        return
    act_dim = math.prod(action_space.shape)
    shape = observation_space.shape
    if not isinstance(observation_space, Box) or isinstance(observation_space, PackedBox) or len(shape or ()) != 1:
        raise ConfigError(
            f"{name}.relative_to needs observations that are one vector of numbers, not {observation_space}"
        )
    size = observation_space.shape[0]
    if len(relative_to) != act_dim or not all(0 <= i < size for i in relative_to):
        raise ConfigError(
            f"{name}.relative_to is {list(relative_to)}; name one number of the observation, 0 to {size - 1}, for each "
            f"of the {act_dim} action dimensions"
        )


def mean_over_steps(loss: Tensor, mask: Tensor) -> Tensor:
    """1/H Σ_h mask_h Σ_i loss_hi, `[B]`, of `loss: [B, H, act_dim]` and `mask: [B, H]`."""
    return (loss.sum(-1) * mask).mean(-1)
