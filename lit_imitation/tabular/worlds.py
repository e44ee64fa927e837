"""Grid worlds from the literature, generated from a seed at any size."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lit_imitation.errors import ConfigError
from lit_imitation.tabular.mdp import TabularMDP

MOVES = np.array([[0, 0], [-1, 0], [0, 1], [1, 0], [0, -1]])
"""Actions: stay, or move one cell up, right, down or left."""


def grid_transitions(size: int, slip: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Successors and probabilities `[S, 5, 5]` of `MOVES` on a square grid; a move beyond the edge has no effect.

    Args:
        size: Number of rows and columns.
        slip: Probability that a uniformly random action replaces the chosen one.

    Raises:
        ConfigError: `size` is less than 1, or `slip` is outside [0, 1].
    """
    if size < 1:
        raise ConfigError(f"size is {size}; it must be at least 1")
    if not 0.0 <= slip <= 1.0:
        raise ConfigError(f"slip is {slip}; it must lie in [0, 1]")
    cell = np.stack(np.divmod(np.arange(size * size), size), -1)
    row, column = np.clip(cell[:, None] + MOVES, 0, size - 1).transpose(2, 0, 1)
    successors = np.broadcast_to((row * size + column)[:, None], (size * size, 5, 5))
    probabilities = (1.0 - slip) * np.eye(5) + slip / 5
    return successors, np.broadcast_to(probabilities, successors.shape)


class _Grid(TabularMDP):
    """Square grid whose subclasses sample reward and features of the cells; every cell may be a start state."""

    def __init__(self, size: int, slip: float, seed: int) -> None:
        transitions = grid_transitions(size, slip)
        if seed < 0:
            raise ConfigError(f"world_seed is {seed}; it must be at least 0")
        reward, features = self.sample_cells(size, np.random.default_rng(seed))
        super().__init__(transitions, reward=reward, features=features, grid=(size, size))

    @abstractmethod
    def sample_cells(self, size: int, rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
        """Sample the reward `[S]` and features `[S, F]` of the cells."""


class GridWorld(_Grid):
    """Grid of four kinds of ground: a goal (one cell, reward 1 per step), plain (0), mud (−0.5) and water (−1).

    Mud and water each cover about a sixth of the other cells. The features are one-hot, so the true reward is linear in
    them.

    Args:
        size: Number of rows and columns.
        slip: Probability of a random move.
        seed: Seed of the ground.
    """

    REWARDS = np.array([0.0, 1.0, -0.5, -1.0])

    def __init__(self, size: int = 8, slip: float = 0.3, seed: int = 0) -> None:
        super().__init__(size, slip, seed)

    def sample_cells(self, size: int, rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
        """Sample the kinds of ground."""
        kind = rng.choice([0, 2, 3], size * size, p=[4 / 6, 1 / 6, 1 / 6])
        kind[rng.integers(size * size)] = 1
        return self.REWARDS[kind], np.eye(4)[kind]


class ObjectWorld(_Grid):
    """Colored objects on a grid (Levine, Popović & Koltun 2011, section 7).

    Each object has an inner and an outer color. A cell has reward 1 within distance 3 of an object with the first outer
    color and within distance 2 of one with the second, −1 if only the former holds, and 0 otherwise. Inner colors and
    other outer colors are distractors. For each inner and outer color and each d = 1, …, size, a feature says whether
    an object of that color is at most d away. The true reward is a conjunction of two features, so it is not linear.

    Args:
        size: Number of rows and columns.
        slip: Probability of a random move.
        objects: Number of objects; by default one per 20 cells (51 on 32 × 32).
        colors: Number of inner and of outer colors, at least 2.
        seed: Seed of the objects.
    """

    def __init__(
        self, size: int = 32, slip: float = 0.3, objects: int | None = None, colors: int = 2, seed: int = 0
    ) -> None:
        if objects is not None and not 1 <= objects <= size * size:
            raise ConfigError(f"objects is {objects}; it must be 1 to {size * size}, at most one per cell")
        if colors < 2:
            raise ConfigError(f"colors is {colors}; it must be at least 2")
        self.objects, self.colors = objects, colors
        super().__init__(size, slip, seed)

    def sample_cells(self, size: int, rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
        """Sample the objects."""
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
    """Random blue and red cells (Wulfmeier, Ondruska & Posner 2015, section 4.2, arXiv:1507.04888).

    A cell has reward 1 if exactly four of the nine cells around and including it are blue, −1 if five are, otherwise 0.
    The features are the colors of the nine cells: blue is 1; red, and cells beyond the edge, are 0.

    Args:
        size: Number of rows and columns.
        slip: Probability of a random move.
        seed: Seed of the colors.
    """

    def __init__(self, size: int = 32, slip: float = 0.3, seed: int = 0) -> None:
        super().__init__(size, slip, seed)

    def sample_cells(self, size: int, rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
        """Sample the colors."""
        blue = np.pad(rng.integers(2, size=(size, size)), 1)
        around = np.lib.stride_tricks.sliding_window_view(blue, (3, 3)).reshape(size * size, 9)
        count = around.sum(1)
        return (count == 4) * 1.0 - (count == 5), around.astype(float)


WORLDS: dict[str, type[TabularMDP]] = {"GridWorld": GridWorld, "ObjectWorld": ObjectWorld, "BinaryWorld": BinaryWorld}
