"""Grid worlds of the literature, drawn from a seed at any size."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lit_imitation.errors import ConfigError
from lit_imitation.tabular.mdp import TabularMDP

MOVES = np.array([[0, 0], [-1, 0], [0, 1], [1, 0], [0, -1]])
"""The actions: stay, and one cell up, right, down or left."""


def grid_transitions(size: int, slip: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Successors and probabilities `[S, 5, 5]` of `MOVES` on a square grid; past its edge one stays.

    With probability `slip` one of the five is drawn instead of what was chosen.

    Raises:
        ConfigError: a size below 1, or a probability outside [0, 1].
    """
    if size < 1:
        raise ConfigError(f"size is {size}; a grid has at least 1 row")
    if not 0.0 <= slip <= 1.0:
        raise ConfigError(f"slip is {slip}; it must lie in [0, 1]")
    cell = np.stack(np.divmod(np.arange(size * size), size), -1)
    row, column = np.clip(cell[:, None] + MOVES, 0, size - 1).transpose(2, 0, 1)
    successors = np.broadcast_to((row * size + column)[:, None], (size * size, 5, 5))
    probabilities = (1.0 - slip) * np.eye(5) + slip / 5
    return successors, np.broadcast_to(probabilities, successors.shape)


class _Grid(TabularMDP):
    """A square grid with a reward and features of its cells, which a subclass draws; every cell may be the first."""

    def __init__(self, size: int, slip: float, seed: int) -> None:
        transitions = grid_transitions(size, slip)
        if seed < 0:
            raise ConfigError(f"world_seed is {seed}; it must be at least 0")
        reward, features = self.drawn(size, np.random.default_rng(seed))
        super().__init__(transitions, reward=reward, features=features, grid=(size, size))

    @abstractmethod
    def drawn(self, size: int, rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
        """Reward `[S]` and features `[S, F]`."""


class GridWorld(_Grid):
    """Ground of four kinds: the goal (one cell, 1 for each step there), plain (0), mud (−0.5) and water (−1).

    Mud and water each cover about a sixth of the rest. The features are indicators of the kind, so that the true reward
    is linear in them.

    Args:
        size: rows and columns.
        slip: probability of a random move.
        seed: of goal, mud and water.
    """

    REWARDS = np.array([0.0, 1.0, -0.5, -1.0])

    def __init__(self, size: int = 8, slip: float = 0.3, seed: int = 0) -> None:
        super().__init__(size, slip, seed)

    def drawn(self, size: int, rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
        """The kinds of ground."""
        kind = rng.choice([0, 2, 3], size * size, p=[4 / 6, 1 / 6, 1 / 6])
        kind[rng.integers(size * size)] = 1
        return self.REWARDS[kind], np.eye(4)[kind]


class ObjectWorld(_Grid):
    """Colored objects on a grid (Levine, Popović & Koltun 2011, section 7).

    Each object has an inner and an outer color. A cell pays 1 within distance 3 of an object whose outer color is the
    first and within 2 of one whose outer color is the second, −1 if only the first is so, else 0; inner colors and
    further outer ones only distract. The features are, for each inner and outer color and each d = 1, …, size, whether
    an object of it is at most d away: the true reward is made of two of them and their conjunction, so not linear.

    Args:
        size: rows and columns.
        slip: probability of a random move.
        objects: how many; by default one in 20 cells (50 on 32 × 32).
        colors: of either kind, 2 at least.
        seed: of the objects.
    """

    def __init__(
        self, size: int = 32, slip: float = 0.3, objects: int | None = None, colors: int = 2, seed: int = 0
    ) -> None:
        if objects is not None and not 1 <= objects <= size * size:
            raise ConfigError(f"objects is {objects}; there must be 1 at least, and at most one a cell ({size * size})")
        if colors < 2:
            raise ConfigError(f"colors is {colors}; the reward speaks of two")
        self.objects, self.colors = objects, colors
        super().__init__(size, slip, seed)

    def drawn(self, size: int, rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
        """The objects."""
        cells = size * size
        count = max(1, cells // 20) if self.objects is None else self.objects
        place, color = rng.choice(cells, count, replace=False), rng.integers(self.colors, size=(2, count))
        every = np.stack(np.divmod(np.arange(cells), size), -1)
        distance = np.sqrt(((every[:, None] - every[place]) ** 2).sum(-1))
        nearest = np.stack([distance[:, of == c].min(1, initial=np.inf) for of in color for c in range(self.colors)], 1)
        first, second = nearest[:, self.colors] <= 3, nearest[:, self.colors + 1] <= 2
        within = nearest[:, :, None] <= np.arange(1, size + 1)
        return np.where(first, np.where(second, 1.0, -1.0), 0.0), within.reshape(cells, -1).astype(float)


class BinaryWorld(_Grid):
    """Blue and red cells at random (Wulfmeier, Ondruska & Posner 2015, section 4.2).

    A cell pays 1 if exactly four of the nine cells around and under it are blue, −1 if five are, else 0. The features
    are the colors of the nine (blue is 1, and so nothing beyond the edge is).

    Args:
        size: rows and columns.
        slip: probability of a random move.
        seed: of the colors.
    """

    def __init__(self, size: int = 32, slip: float = 0.3, seed: int = 0) -> None:
        super().__init__(size, slip, seed)

    def drawn(self, size: int, rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
        """The colors."""
        blue = np.pad(rng.integers(2, size=(size, size)), 1)
        around = np.lib.stride_tricks.sliding_window_view(blue, (3, 3)).reshape(size * size, 9)
        count = around.sum(1)
        return (count == 4) * 1.0 - (count == 5), around.astype(float)


WORLDS: dict[str, type[TabularMDP]] = {"GridWorld": GridWorld, "ObjectWorld": ObjectWorld, "BinaryWorld": BinaryWorld}
