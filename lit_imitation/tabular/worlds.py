"""Grid worlds of the literature, drawn from a seed at any size."""

from __future__ import annotations

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
    """A square grid with a reward and features of its cells; every cell may be the first."""

    def __init__(self, size: int, slip: float, reward: NDArray[Any], features: NDArray[Any]) -> None:
        super().__init__(grid_transitions(size, slip), reward=reward, features=features, grid=(size, size))


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
        rng = np.random.default_rng(seed)
        transitions = grid_transitions(size, slip)  # first, for its checks
        kind = rng.choice([0, 2, 3], len(transitions[0]), p=[4 / 6, 1 / 6, 1 / 6])
        kind[rng.integers(len(kind))] = 1
        super().__init__(size, slip, self.REWARDS[kind], np.eye(4)[kind])


class ObjectWorld(_Grid):
    """Coloured objects on a grid (Levine, Popović & Koltun 2011, section 7).

    Each object has an inner and an outer colour. A cell pays 1 within distance 3 of an object whose outer colour is the
    first and within 2 of one whose outer colour is the second, −1 if only the first is so, else 0; inner colours and
    further outer ones only distract. The features are, for each inner and outer colour and each d = 1, …, size, whether
    an object of it is nearer than d: the true reward is a conjunction of two of them, so not linear.

    Args:
        size: rows and columns.
        slip: probability of a random move.
        objects: how many; by default one in 20 cells (50 on 32 × 32).
        colours: of either kind, 2 at least.
        seed: of the objects.
    """

    def __init__(
        self, size: int = 32, slip: float = 0.3, objects: int | None = None, colours: int = 2, seed: int = 0
    ) -> None:
        cells = size * size
        objects = max(1, cells // 20) if objects is None else objects
        if not 1 <= objects <= cells:
            raise ConfigError(f"objects is {objects}; there must be 1 at least, and at most one a cell ({cells})")
        if colours < 2:
            raise ConfigError(f"colours is {colours}; the reward speaks of two")
        rng = np.random.default_rng(seed)
        place = rng.choice(cells, objects, replace=False)
        colour = rng.integers(colours, size=(2, objects))
        every = np.stack(np.divmod(np.arange(cells), size), -1)
        distance = np.sqrt(((every[:, None] - every[place]) ** 2).sum(-1))
        nearest = np.stack(
            [distance[:, of == c].min(1, initial=np.inf) for of in colour for c in range(colours)],
            1,
        )
        first, second = nearest[:, colours] <= 3, nearest[:, colours + 1] <= 2
        features = nearest[:, :, None] < np.arange(1, size + 1)
        super().__init__(
            size, slip, np.where(first, np.where(second, 1.0, -1.0), 0.0), features.reshape(cells, -1).astype(float)
        )


class BinaryWorld(_Grid):
    """Blue and red cells at random (Wulfmeier, Ondruska & Posner 2015, section 4.2).

    A cell pays 1 if exactly four of the nine cells around and under it are blue, −1 if five are, else 0. The features
    are the colours of the nine (blue is 1, and so nothing beyond the edge is).

    Args:
        size: rows and columns.
        slip: probability of a random move.
        seed: of the colours.
    """

    def __init__(self, size: int = 32, slip: float = 0.3, seed: int = 0) -> None:
        blue = np.pad(np.random.default_rng(seed).integers(2, size=(size, size)), 1)
        around = np.lib.stride_tricks.sliding_window_view(blue, (3, 3)).reshape(size * size, 9)
        count = around.sum(1)
        super().__init__(size, slip, (count == 4) * 1.0 - (count == 5), around.astype(float))


WORLDS = {"GridWorld": GridWorld, "ObjectWorld": ObjectWorld, "BinaryWorld": BinaryWorld}
