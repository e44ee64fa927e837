"""Rewards of a world whose states can be counted, as tables: linear, by a network, by convolutions on the grid."""

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
    """r(s), r(s, a) or r(s, s′) of the features φ of states, for all of them at once.

    Where a world has no features, an indicator of each state is meant. A subclass defines `score`.

    Args:
        observation_space: Discrete: the states.
        action_space: Discrete.
        num_features: F; 0 where there are none.
        grid: rows and columns, where the states are a grid's cells.
        inputs: `state`: φ(s) is read; `state_action`: likewise, and each action has an output of its own;
            `transition`: φ(s) and φ(s′).
    """

    features: Tensor
    """Those of the world that was learned from, `[S, F]`; indices `[S]` where it has none."""
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
        """`[B, outputs]` of the features `[B, F]` of states, and with `transition` those of their successors too."""

    def remember(self, mdp: TabularMDP) -> None:
        """Keep the features of the world that is learned from, for `reward`."""
        if mdp.features is not None:
            self.features.copy_(mdp.features)

    def table(self, mdp: TabularMDP) -> RewardTable:
        """The reward of this world or another one with the same features, differentiable, in the model's precision."""
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
        """`[*batch]`, of states and actions by their indices; what a terminal state pays is paid on entering it."""
        state, following = transitions.observation, transitions.next_observation
        if self.inputs == "transition":
            assert following is not None
            score = self.score(self.features[state.reshape(-1)], self.features[following.reshape(-1)])
            return score.view(state.shape)
        score = self.score(self.features)
        if self.inputs == "state_action":
            return score[state, transitions.action]
        paid = score[state, 0]
        return paid if following is None else paid + torch.where(transitions.terminated, score[following, 0], 0.0)

    def recovered(self, transitions: Transitions) -> Tensor:
        """`[*batch]`: `reward` itself."""
        return self.reward(transitions)


class LinearReward(TabularReward):
    """r = wᵀφ(s), w_aᵀφ(s), or wᵀφ(s) + uᵀφ(s′), from 0 on.

    Args:
        observation_space: Discrete.
        action_space: Discrete.
        num_features: F; 0 where there are none: then r has an entry of its own for each state (and action).
        grid: not needed.
        inputs: see `TabularReward`.
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
        """`[B, outputs]`."""
        parts = zip(features, self.weights, strict=True)
        return torch.stack([x @ w if x.is_floating_point() else w[x] for x, w in parts]).sum(0)


class MLPReward(TabularReward):
    """An MLP of φ.

    Args:
        observation_space: Discrete.
        action_space: Discrete.
        num_features: F.
        grid: not needed.
        inputs: see `TabularReward`.
        hidden_sizes: of the MLP.
        activation: between its layers.

    Raises:
        ConfigError: the world has no features.
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
        _need_features(self, num_features)
        size = num_features * (2 if inputs == "transition" else 1)
        self.network = MLP([size, *hidden_sizes, self.outputs], activation)

    def score(self, *features: Tensor) -> Tensor:
        """`[B, outputs]`."""
        score: Tensor = self.network(torch.cat(features, -1))
        return score


class ConvolutionalReward(TabularReward):
    """Convolutions on the grid of φ (Wulfmeier, Ondruska & Posner 2015): a cell's reward reads the cells around it too.

    Args:
        observation_space: Discrete.
        action_space: Discrete.
        num_features: F, the channels that are read.
        grid: rows and columns.
        inputs: `state` or `state_action`.
        channels: of the layers between.
        kernel_size: of each layer, odd.

    Raises:
        ConfigError: the world has no features or no grid, a reward of transitions, or an even kernel.
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
        _need_features(self, num_features)
        if grid is None:
            raise ConfigError(
                "ConvolutionalReward needs a world whose states are the cells of a grid (grid=(rows, columns))"
            )
        if inputs == "transition":
            raise ConfigError("ConvolutionalReward is of state or state_action; for transitions take MLPReward")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ConfigError(f"model.reward.kernel_size is {kernel_size}; it must be odd")
        self.grid = grid
        layers: list[nn.Module] = []
        for before, after in pairwise([num_features, *channels, self.outputs]):
            layers += [nn.Conv2d(before, after, kernel_size, padding="same"), nn.ReLU()]
        self.network = nn.Sequential(*layers[:-1])

    def score(self, *features: Tensor) -> Tensor:
        """`[S, outputs]`: of all the cells, `[S, F]`, which are read as a picture."""
        (cells,) = features
        picture = cells.T.reshape(1, -1, *self.grid)
        score: Tensor = self.network(picture)
        return score.flatten(2).squeeze(0).T


def _need_features(model: TabularReward, num_features: int) -> None:
    if not num_features:
        raise ConfigError(
            f"{type(model).__name__} reads features, and this world has none: give TabularMDP(features=…), or take "
            "LinearReward, which has an entry of its own for each state"
        )


TabularRewardFactory: TypeAlias = Callable[[Space[Any], Space[Any], int, tuple[int, int] | None], TabularReward]
"""Builds a reward from the two spaces, the number of features, and the grid."""
