"""Gymnasium environments of a `TabularMDP`: a single copy, and a batch of copies."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import Env
from gymnasium.error import InvalidAction
from gymnasium.spaces import Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from lit_imitation.errors import ConfigError
from lit_imitation.tabular.mdp import TabularMDP
from lit_imitation.tabular.worlds import WORLDS


class TabularVectorEnv(VectorEnv[NDArray[Any], NDArray[Any], NDArray[Any]]):
    """`num_envs` copies of a world that share one generator; the next episode starts on the step after the end.

    Observations and actions are indices. The reward of a step is the true reward, 0 if it is unknown; the step that
    enters a terminal state also gives that state's reward. An action that is not available is replaced by a random
    available one, so uniformly random actions are uniform over the available ones.

    Args:
        num_envs: Number of copies.
        world: `TabularMDP`, or the name of a world of this package (`GridWorld`).
        max_episode_steps: Number of steps after which an episode is truncated.
        world_seed: Seed from which the named world is generated; `reset` seeds the episodes.
        **arguments: Further arguments of the named world.

    Raises:
        ConfigError: The world is unknown, `world_seed` or further arguments are given with a `TabularMDP`, or
            `max_episode_steps` is less than 1.
    """

    def __init__(
        self,
        num_envs: int = 1,
        world: TabularMDP | str = "GridWorld",
        max_episode_steps: int = 100,
        world_seed: int = 0,
        **arguments: Any,
    ) -> None:
        if max_episode_steps < 1:
            raise ConfigError(f"max_episode_steps is {max_episode_steps}; it must be at least 1")
        if isinstance(world, str):
            if world not in WORLDS:
                raise ConfigError(f"world is {world!r}; choose one of {', '.join(WORLDS)}, or give a TabularMDP")
            world = WORLDS[world](**arguments, seed=world_seed)  # type: ignore[call-arg]
        elif world_seed or arguments:
            given = ", ".join([*(["world_seed"] if world_seed else []), *arguments])
            raise ConfigError(f"{given}: only for worlds given by name, but world is a TabularMDP; leave it out")
        self.mdp = mdp = world.to("cpu")
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self.num_envs, self.max_episode_steps = num_envs, max_episode_steps
        self.single_observation_space, self.single_action_space = Discrete(mdp.num_states), Discrete(mdp.num_actions)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._start = np.cumsum(mdp.start.numpy(), dtype=np.float64)
        self._terminal, self._successor = mdp.terminal.numpy(), mdp.successor.numpy()
        self._available = None if mdp.available is None else mdp.available.numpy()
        self._not_terminal = int((~self._terminal).argmax())
        self._reward = None if mdp.reward is None else mdp.reward.values.double().numpy()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.int64], dict[str, Any]]:
        """Start new episodes in all copies."""
        super().reset(seed=seed, options=options)
        self._state, self._steps = self._begin(), np.zeros(self.num_envs, np.int64)
        self._over = np.zeros(self.num_envs, bool)
        return self._state.copy(), {}

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Step all copies; a copy whose episode has ended ignores its action, gives reward 0 and starts a new one.

        Raises:
            InvalidAction: An action is not an index in the action space.
        """
        begin = self._over
        # A terminal state has no successors to sample; the sample for its replacement is not used.
        state = np.where(begin, self._not_terminal, self._state)
        actions = self._check_actions(np.asarray(actions), begin)
        if self._available is not None:
            actions = self._replace_unavailable(state, actions)
        uniform = self.np_random.random(self.num_envs)
        entry = self.mdp.sample_transition(*(torch.from_numpy(x) for x in (state, actions, uniform))).numpy()
        successor = self._successor[entry].astype(np.int64)
        reward = np.where(begin, 0.0, self._look_up_reward(state, actions, entry, successor))
        self._state = np.where(begin, self._begin(), successor) if begin.any() else successor
        self._steps = np.where(begin, 0, self._steps + 1)
        terminated = self._terminal[self._state] & ~begin
        truncated = (self._steps >= self.max_episode_steps) & ~terminated
        self._over = terminated | truncated
        return self._state.copy(), reward, terminated, truncated, {}

    def _check_actions(self, actions: NDArray[Any], ignored: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Validated actions `[num_envs]`, set to 0 where they are ignored."""
        if actions.shape != (self.num_envs,) or actions.dtype.kind not in "iub":
            raise InvalidAction(
                f"actions are {actions.dtype} {list(actions.shape)}; expected integers [{self.num_envs}]"
            )
        actions = np.where(ignored, 0, actions.astype(np.int64))
        bad = (actions < 0) | (actions >= self.mdp.num_actions)
        if bad.any():
            raise InvalidAction(
                f"action {actions[bad.argmax()]} does not exist; actions are 0 to {self.mdp.num_actions - 1}"
            )
        return actions

    def _replace_unavailable(self, state: NDArray[Any], actions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Replace each unavailable action in `actions: [num_envs]` by a uniformly random available one."""
        assert self._available is not None
        available = self._available[state]
        place = (self.np_random.random(self.num_envs) * available.sum(1)).astype(np.int64)
        sample = (available.cumsum(1) > place[:, None]).argmax(1)
        return np.where(available[np.arange(self.num_envs), actions], actions, sample)

    def _begin(self) -> NDArray[np.int64]:
        """Sample start states `[num_envs]`."""
        sample = self.np_random.random(self.num_envs) * self._start[-1]
        return np.asarray(np.searchsorted(self._start, sample, side="right"))

    def _look_up_reward(
        self, state: NDArray[Any], action: NDArray[Any], entry: NDArray[Any], successor: NDArray[Any]
    ) -> NDArray[np.float64]:
        if self._reward is None or self.mdp.reward is None:
            return np.zeros(self.num_envs)
        if self.mdp.reward.inputs == "transition":
            return np.asarray(self._reward[entry])
        if self.mdp.reward.inputs == "state_action":
            return np.asarray(self._reward[state, action])
        return np.asarray(self._reward[state] + np.where(self._terminal[successor], self._reward[successor], 0.0))


class TabularEnv(Env[Any, Any]):
    """Single copy of `TabularVectorEnv`, with the same arguments."""

    def __init__(self, world: TabularMDP | str = "GridWorld", max_episode_steps: int = 100, **arguments: Any) -> None:
        self.batch = TabularVectorEnv(1, world, max_episode_steps, **arguments)
        self.mdp = self.batch.mdp
        self.observation_space, self.action_space = self.batch.single_observation_space, self.batch.single_action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        super().reset(seed=seed)
        observation, info = self.batch.reset(seed=seed)
        return observation[0], info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take one step; call `reset` after the end of an episode.

        Raises:
            InvalidAction: The action is not an index in the action space.
        """
        observation, reward, terminated, truncated, info = self.batch.step(np.asarray(action)[None])
        return observation[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), info
