"""Estimate of how many different actions demonstrators take in the same state."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from lit_imitation.data.columns import Array

STATES, NEIGHBORS, FEWEST_NEIGHBORS = 300, 20, 8
"""Number of states that are sampled; largest and smallest number of neighbors of each."""
MOST_ROWS = 20_000
"""Number of rows among which neighbors are searched; more are thinned evenly."""
SEVERAL, NOISY, FAR = 0.3, 0.3, 0.2
"""Limits of the verdict: share of states with two groups of actions, spread, and distance of neighbors."""
SMALLEST_SHARE = 0.25
"""Share of neighbors above which a second discrete action counts as a group."""


class Multimodality(NamedTuple):
    """How the actions of different episodes differ in the same state."""

    kind: Literal["continuous", "discrete"]
    spread: float
    """Share of the variance (discrete: of the entropy) of the actions that the state does not determine."""
    several: float
    """Share of states in which the actions form two groups that the state does not tell apart."""
    states: int
    """Number of states that were examined."""
    neighbors: int
    """Number of neighbors of each, all from different episodes."""
    distance: float
    """Root mean square distance of neighbors, relative to that of two rows drawn at random."""

    @property
    def verdict(self) -> str:
        """Summary in a few words."""
        if self.several >= SEVERAL:
            text = "several actions in the same state"
        elif self.spread >= NOISY:
            text = "noisy, or dependent on more than the observation"
        else:
            return "one action per state"
        return f"{text}, or neighbors too far to tell" if self.distance > FAR else text


def estimate_multimodality(observations: Array, actions: Array, episode: Array) -> Multimodality | None:
    """Compare each of a sample of states with its nearest state in each of the k nearest other episodes.

    Observations are standardized. For a state i with neighbors N(i), no two from one episode, and actions a:

        spread = mean over i of tr Cov(a_j : j in N(i)) / tr Cov(a)          continuous, standardized components
        spread = mean over i of H(a_j : j in N(i)) / H(a)                    discrete

    Two groups are found by the best split in two of the neighbors' actions along their first principal axis. It leaves
    the share W of their variance; a state counts if 1 − W exceeds the 95 % quantile of k uniform draws, and if its
    variance is more than 1 % of the whole. A state counts for discrete actions if the second most frequent one has at
    least 25 % of the neighbors. A policy that switches between actions at a boundary also gives two groups, but then
    nearby neighbors are in the same one. With the accuracy A of predicting a neighbor's group by its nearest other
    neighbor, and A₀ that of independent draws, `several` is the share of states with two groups times
    1 − max(0, mean (A − A₀) / (1 − A₀)).

    k is a third of the number of other episodes, from 8 to 20. Of the sample, the half with the nearest neighbors is
    examined. Where these are far (`distance`), the actions differ because the states do, so the numbers are upper
    bounds.

    Args:
        observations: Vectors `[N, d]`.
        actions: Actions `[N, ...]`; whole numbers are discrete.
        episode: Number of each row's episode `[N]`, in order.

    Returns:
        The estimate; None if there are fewer than 9 episodes, or observations or actions are constant.
    """
    rng = np.random.default_rng(0)
    rows = np.unique(np.linspace(0, len(episode) - 1, min(len(episode), MOST_ROWS)).astype(np.int64))
    episode = np.unique(episode[rows], return_inverse=True)[1]
    count = int(episode.max()) + 1 if len(episode) else 0
    if count < FEWEST_NEIGHBORS + 1:
        return None
    seen = _standardized(observations[rows].reshape(len(rows), -1))
    discrete = actions.dtype.kind in "iub"
    acted = actions[rows].reshape(len(rows), -1)
    acted = np.unique(acted, axis=0, return_inverse=True)[1].reshape(-1, 1) if discrete else _standardized(acted)
    if not seen.shape[1] or not acted.shape[1] or (acted == acted[0]).all():
        return None
    k = int(np.clip((count - 1) // 3, FEWEST_NEIGHBORS, NEIGHBORS))
    chosen = np.sort(rng.choice(len(rows), min(STATES, len(rows)), replace=False))
    near, distance = _neighbors(seen, episode, chosen, k)
    limit = _limit(k, rng)
    spreads, groups = [], []
    for neighbors in near:
        local = acted[neighbors]
        share, labels = _discrete_groups(local[:, 0]) if discrete else _two_groups(local, limit)
        spreads.append(share)
        if labels is not None:
            groups.append(_explained(seen[neighbors], labels))
    whole = _entropy(acted[:, 0]) if discrete else float(acted.shape[1])  # standardized: variance 1 each
    several = len(groups) / len(near) * (1 - max(0.0, float(np.mean(groups)))) if groups else 0.0
    kind: Literal["continuous", "discrete"] = "discrete" if discrete else "continuous"
    return Multimodality(kind, float(np.mean(spreads)) / whole, several, len(near), k, distance)


def _standardized(values: Array) -> Array:
    """Components `[N, d]` with mean 0 and standard deviation 1; constant ones are dropped."""
    values = values.astype(np.float64)
    scale = values.std(0)
    varies = scale > 1e-9 * np.maximum(1.0, np.abs(values).max(0))
    return np.asarray((values[:, varies] - values[:, varies].mean(0)) / scale[varies])


def _neighbors(seen: Array, episode: Array, chosen: Array, k: int) -> tuple[Array, float]:
    """Rows `[states / 2, k]`: the nearest row of each of the k nearest episodes but the state's own.

    The half of the states with the nearest neighbors is kept. The second number is `Multimodality.distance`.
    """
    starts = np.flatnonzero(np.diff(episode, prepend=-1))
    distance = np.empty((len(chosen), len(starts)))
    nearest = np.empty((len(chosen), len(starts)), np.int64)
    square = (seen**2).sum(1)
    for number, (start, stop) in enumerate(zip(starts, [*starts[1:], len(seen)], strict=True)):
        squared = square[chosen, None] + square[None, start:stop] - 2 * seen[chosen] @ seen[start:stop].T
        nearest[:, number] = start + squared.argmin(1)
        distance[:, number] = squared.min(1)
    distance[np.arange(len(chosen)), episode[chosen]] = np.inf
    order = np.argsort(distance, axis=1, kind="stable")[:, :k]
    mean = np.take_along_axis(distance, order, 1).mean(1)
    kept = np.sort(np.argsort(mean, kind="stable")[: max(1, len(chosen) // 2)])
    relative = np.sqrt(max(0.0, float(mean[kept].mean())) / (2 * seen.shape[1]))
    return np.take_along_axis(nearest, order, 1)[kept], float(relative)


def _split(values: Array) -> tuple[float, Array]:
    """Share of the variance of numbers `[k]` that the best split in two explains, and the groups `[k]`."""
    order = np.argsort(values, kind="stable")
    x = values[order] - values.mean()
    n, sums = np.arange(1, len(x)), np.cumsum(x)[:-1]
    between = sums**2 / n + sums**2 / (len(x) - n)  # the sum of all is 0
    best = int(between.argmax())
    labels = np.zeros(len(x), bool)
    labels[order[best + 1 :]] = True
    total = float((x**2).sum())
    return (float(between[best]) / total if total > 0 else 0.0), labels


def _limit(k: int, rng: np.random.Generator) -> float:
    """95 % quantile of the explained share for k uniform draws."""
    return float(np.quantile([_split(draw)[0] for draw in rng.uniform(size=(2000, k))], 0.95))


def _two_groups(local: Array, limit: float) -> tuple[float, Array | None]:
    """Variance of actions `[k, d]`, and their two groups if there are two."""
    centered = local - local.mean(0)
    variance = float((centered**2).mean(0).sum())
    if variance <= 0.01 * local.shape[1]:
        return variance, None
    axis = np.linalg.svd(centered, full_matrices=False)[2][0]
    share, labels = _split(centered @ axis)
    return variance, labels if share > limit else None


def _entropy(labels: Array) -> float:
    frequency = np.unique(labels, return_counts=True)[1] / len(labels)
    return float(-(frequency * np.log(frequency)).sum())


def _discrete_groups(labels: Array) -> tuple[float, Array | None]:
    """Entropy of actions `[k]`, and the actions if the second most frequent one has its share."""
    counts = np.sort(np.unique(labels, return_counts=True)[1])
    return _entropy(labels), labels if len(counts) > 1 and counts[-2] >= SMALLEST_SHARE * len(labels) else None


def _explained(seen: Array, labels: Array) -> float:
    """(A − A₀) / (1 − A₀): how much better than by chance the nearest neighbor predicts a group."""
    square = (seen**2).sum(1)
    squared = square[:, None] + square[None] - 2 * seen @ seen.T
    np.fill_diagonal(squared, np.inf)
    accuracy = float((labels[squared.argmin(1)] == labels).mean())
    counts = np.unique(labels, return_counts=True)[1]
    chance = float((counts * (counts - 1)).sum() / (len(labels) * (len(labels) - 1)))
    return (accuracy - chance) / (1 - chance)
