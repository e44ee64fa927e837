"""Tabular rewards of finite MDPs: linear, by an MLP, or by convolutions on a grid."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import torch
from gymnasium import Space
from gymnasium.spaces import Discrete
from torch import Tensor, nn

from lit_imitation.errors import ConfigError, UnsupportedSpaceError
from lit_imitation.networks.mlp import MLP, Activation
from lit_imitation.rewards.base import RewardModel
from lit_imitation.rewards.features import check_inputs
from lit_imitation.tabular.mdp import RewardTable, TabularMDP
from lit_imitation.transitions import Inputs, Transitions


class TabularReward(RewardModel):
    """Reward r(s), r(s, a) or r(s, s′) of state features φ, evaluated for all states at once.

    Without features, φ is one-hot. Subclasses define `score`.

    Args:
        observation_space: Discrete space of the states.
        action_space: Discrete action space.
        num_features: Number F of features; 0 for none.
        inputs: `state` reads φ(s); `state_action` also reads φ(s) and has one output per action; `transition` reads
            φ(s) and φ(s′).

    Raises:
        UnsupportedSpaceError: A space is not Discrete.
        ConfigError: `inputs` is unknown.
    """

    features: Tensor
    """`[S, F]` features of the training world; indices `[S]` if it has none."""
    context = ("observation_space", "action_space")
    factory_context = ("num_features", "grid")

    def __init__(
        self, observation_space: Space[Any], action_space: Space[Any], num_features: int, inputs: Inputs
    ) -> None:
        super().__init__()
        check_inputs(inputs)
        if not isinstance(observation_space, Discrete) or not isinstance(action_space, Discrete):
            raise UnsupportedSpaceError(
                f"{type(self).__name__} is a table of Discrete states and actions, not of {observation_space} and "
                f"{action_space}"
            )
        self.observation_space: Space[Any] = observation_space
        self.action_space: Space[Any] = action_space
        self.inputs = inputs
        states = int(observation_space.n)
        self.outputs = int(action_space.n) if inputs == "state_action" else 1
        features = torch.zeros(states, num_features) if num_features else torch.arange(states)
        self.register_buffer("features", features)

    @abstractmethod
    def score(self, *features: Tensor) -> Tensor:
        """Outputs `[B, outputs]` for state features `[B, F]`; under `transition` also for those of the successors."""

    def store_features(self, mdp: TabularMDP) -> None:
        """Store the features of the training world, for `reward`."""
        if mdp.features is not None:
            self.features.copy_(mdp.features)

    def table(self, mdp: TabularMDP) -> RewardTable:
        """Differentiable reward table of a world with such features, in the model's precision."""
        if mdp.features is None:
            features = torch.arange(mdp.num_states, device=mdp.device)
        else:
            features = mdp.features.to(next(self.parameters()).dtype)
        if self.inputs != "transition":
            score = self.score(features)
            return RewardTable(score if self.inputs == "state_action" else score.squeeze(-1), self.inputs)
        state = mdp.row % mdp.num_states
        return RewardTable(self.score(features[state], features[mdp.successor.long()]).squeeze(-1), self.inputs)

    def reward(self, transitions: Transitions) -> Tensor:
        """Rewards `[*batch]` for state and action indices; the step into a terminal state also gets its reward."""
        state, following = transitions.observation, transitions.next_observation
        if self.inputs == "transition":
            assert following is not None
            score = self.score(self.features[state.reshape(-1)], self.features[following.reshape(-1)])
            return score.view(state.shape)
        score = self.score(self.features)
        if self.inputs == "state_action":
            return score[state, transitions.action]
        reward = score[state, 0]
        return reward if following is None else reward + torch.where(transitions.terminated, score[following, 0], 0.0)

    def recovered_reward(self, transitions: Transitions) -> Tensor:
        """Rewards `[*batch]`; the same as `reward`."""
        return self.reward(transitions)


class LinearReward(TabularReward):
    """Linear reward wᵀφ(s), w_aᵀφ(s), or wᵀφ(s) + uᵀφ(s′), initialized to 0.

    Args:
        observation_space: Discrete space of the states.
        action_space: Discrete action space.
        num_features: Number F of features; with 0 the reward has one entry for each state (and action).
        grid: Not used.
        inputs: Inputs of the reward, see `TabularReward`.
    """

    def __init__(
        self,
        observation_space: Space[Any],
        action_space: Space[Any],
        num_features: int,
        grid: tuple[int, int] | None = None,
        *,
        inputs: Inputs = "state",
    ) -> None:
        super().__init__(observation_space, action_space, num_features, inputs)
        shape = (num_features or len(self.features), self.outputs)
        parts = 2 if inputs == "transition" else 1
        self.weights = nn.ParameterList(torch.zeros(shape) for _ in range(parts))

    def score(self, *features: Tensor) -> Tensor:
        """Outputs `[B, outputs]`."""
        parts = zip(features, self.weights, strict=True)
        return torch.stack([x @ w if x.is_floating_point() else w[x] for x, w in parts]).sum(0)


class MLPReward(TabularReward):
    """Reward by an MLP of φ.

    Args:
        observation_space: Discrete space of the states.
        action_space: Discrete action space.
        num_features: Number F of features.
        grid: Not used.
        inputs: Inputs of the reward, see `TabularReward`.
        hidden_sizes: Sizes of the MLP's hidden layers.
        activation: Activation between the layers.

    Raises:
        ConfigError: The world has no features.
    """

    def __init__(
        self,
        observation_space: Space[Any],
        action_space: Space[Any],
        num_features: int,
        grid: tuple[int, int] | None = None,
        *,
        inputs: Inputs = "state",
        hidden_sizes: Sequence[int] = (64, 64),
        activation: Activation = "tanh",
    ) -> None:
        super().__init__(observation_space, action_space, num_features, inputs)
        _require_features(self, num_features)
        size = num_features * (2 if inputs == "transition" else 1)
        self.network = MLP([size, *hidden_sizes, self.outputs], activation)

    def score(self, *features: Tensor) -> Tensor:
        """Outputs `[B, outputs]`."""
        score: Tensor = self.network(torch.cat(features, -1))
        return score


class ConvolutionalReward(TabularReward):
    """Reward by convolutions on the grid of φ, so that it depends on surrounding cells.

    From Wulfmeier, Ondruska & Posner (2015, arXiv:1507.04888).

    Args:
        observation_space: Discrete space of the states.
        action_space: Discrete action space.
        num_features: Number F of features, the input channels.
        grid: Number of rows and columns.
        inputs: Inputs of the reward, `state` or `state_action`.
        channels: Channels of the hidden layers.
        kernel_size: Size of all kernels, odd.

    Raises:
        ConfigError: The world has no features or no grid, `inputs` is `transition`, or the kernel size is even.
    """

    def __init__(
        self,
        observation_space: Space[Any],
        action_space: Space[Any],
        num_features: int,
        grid: tuple[int, int] | None = None,
        *,
        inputs: Inputs = "state",
        channels: Sequence[int] = (32, 32),
        kernel_size: int = 3,
    ) -> None:
        super().__init__(observation_space, action_space, num_features, inputs)
        _require_features(self, num_features)
        if grid is None:
            raise ConfigError(
                "ConvolutionalReward needs a world whose states are the cells of a grid (grid=(rows, columns))"
            )
        if inputs == "transition":
            raise ConfigError(
                "ConvolutionalReward supports inputs state and state_action; for transition use MLPReward"
            )
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ConfigError(f"model.reward.kernel_size is {kernel_size}; it must be odd")
        self.grid = grid
        layers: list[nn.Module] = []
        for before, after in pairwise([num_features, *channels, self.outputs]):
            layers += [nn.Conv2d(before, after, kernel_size, padding="same"), nn.ReLU()]
        self.network = nn.Sequential(*layers[:-1])

    def score(self, *features: Tensor) -> Tensor:
        """Outputs `[S, outputs]` of all cells `[S, F]`, which are read as an image."""
        (cells,) = features
        picture = cells.T.reshape(1, -1, *self.grid)
        score: Tensor = self.network(picture)
        return score.flatten(2).squeeze(0).T


def _require_features(model: TabularReward, num_features: int) -> None:
    if not num_features:
        raise ConfigError(
            f"{type(model).__name__} needs features, but this world has none: give TabularMDP(features=…), or use "
            "LinearReward, which has one entry for each state"
        )


TabularRewardFactory: TypeAlias = Callable[[Space[Any], Space[Any], int, tuple[int, int] | None], TabularReward]
"""Function that builds a reward from observation and action space, number of features, and grid."""
