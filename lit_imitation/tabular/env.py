"""A `TabularMDP` to act in: one environment, and many as one batch of arrays."""

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
    """`num_envs` copies of a world that draw from one generator and begin anew on the step after an episode's end.

    Observations and actions are indices. The reward of a step is the true one, 0 where none is known; on entering a
    terminal state, what a reward of the state pays there is added. In place of an action that is not available in a
    state one of those that are is drawn, so that acting at random is uniform over these.

    Args:
        num_envs: number of copies.
        world: a `TabularMDP`, or the name of one of ours (`GridWorld`).
        max_episode_steps: after which an episode is cut.
        world_seed: from which the world that is named is drawn; what happens in it has seeds of its own.
        **arguments: further ones of that world.

    Raises:
        ConfigError: no such world; `world_seed` or further arguments beside a `TabularMDP`; episodes of no step.
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
            raise ConfigError(f"max_episode_steps is {max_episode_steps}; an episode takes at least 1 step")
        if isinstance(world, str):
            if world not in WORLDS:
                raise ConfigError(f"world is {world!r}; choose one of {', '.join(WORLDS)}, or give a TabularMDP")
            world = WORLDS[world](**arguments, seed=world_seed)  # type: ignore[call-arg]
        elif world_seed or arguments:
            given = ", ".join([*(["world_seed"] if world_seed else []), *arguments])
            raise ConfigError(f"{given}: this is for worlds that are named, and world is a TabularMDP, made already")
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
        """Start all episodes anew."""
        super().reset(seed=seed, options=options)
        self._state, self._steps = self._begin(), np.zeros(self.num_envs, np.int64)
        self._over = np.zeros(self.num_envs, bool)
        return self._state.copy(), {}

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Step all copies, or start the next episode where one was over: there the action is ignored, the reward 0.

        Raises:
            InvalidAction: an action is no index in the action space.
        """
        begin = self._over
        # A terminal state has no row to draw from; what is drawn for it is not used.
        state = np.where(begin, self._not_terminal, self._state)
        actions = self._checked(np.asarray(actions), begin)
        if self._available is not None:
            actions = self._possible(state, actions)
        uniform = self.np_random.random(self.num_envs)
        entry = self.mdp.draw(*(torch.from_numpy(x) for x in (state, actions, uniform))).numpy()
        successor = self._successor[entry].astype(np.int64)
        reward = np.where(begin, 0.0, self._paid(state, actions, entry, successor))
        self._state = np.where(begin, self._begin(), successor) if begin.any() else successor
        self._steps = np.where(begin, 0, self._steps + 1)
        terminated = self._terminal[self._state] & ~begin
        truncated = (self._steps >= self.max_episode_steps) & ~terminated
        self._over = terminated | truncated
        return self._state.copy(), reward, terminated, truncated, {}

    def _checked(self, actions: NDArray[Any], ignored: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Actions `[num_envs]`, 0 where they are ignored."""
        if actions.shape != (self.num_envs,) or actions.dtype.kind not in "iub":
            raise InvalidAction(
                f"actions are {actions.dtype} {list(actions.shape)}; expected integers [{self.num_envs}]"
            )
        actions = np.where(ignored, 0, actions.astype(np.int64))
        bad = (actions < 0) | (actions >= self.mdp.num_actions)
        if bad.any():
            raise InvalidAction(
                f"action {actions[bad.argmax()]} does not exist; there are 0 to {self.mdp.num_actions - 1}"
            )
        return actions

    def _possible(self, state: NDArray[Any], actions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Actions `[num_envs]`, each that is not available replaced by one that is, all of them equally likely."""
        assert self._available is not None
        available = self._available[state]
        place = (self.np_random.random(self.num_envs) * available.sum(1)).astype(np.int64)
        drawn = (available.cumsum(1) > place[:, None]).argmax(1)
        return np.where(available[np.arange(self.num_envs), actions], actions, drawn)

    def _begin(self) -> NDArray[np.int64]:
        """States `[num_envs]` to start from."""
        drawn = self.np_random.random(self.num_envs) * self._start[-1]
        return np.asarray(np.searchsorted(self._start, drawn, side="right"))

    def _paid(
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
    """One copy, with the same arguments."""

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
        """Take one step; after the episode's end `reset` has to come first.

        Raises:
            InvalidAction: the action is no index in the action space.
        """
        observation, reward, terminated, truncated, info = self.batch.step(np.asarray(action)[None])
        return observation[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), info
