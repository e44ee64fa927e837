"""Summaries of a handful of scores, and how far to trust them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


def interquartile_mean(values: ArrayLike, axis: int = -1) -> Any:
    """The mean of the middle half of `values` along `axis`: a float for `[N]`, `[...]` for `[..., N]`.

    ⌊N/4⌋ values are cut from each end (Agarwal et al. 2021, "Deep RL at the Edge of the Statistical Precipice", and
    their `rliable`). Where 4 does not divide N, somewhat more than half is therefore averaged: the middle 3 of 5; with
    fewer than 4 values nothing is cut and this is the mean.

    Raises:
        ValueError: there are no values.
    """
    from scipy.stats import trim_mean

    values = np.asarray(values, dtype=np.float64)
    if values.shape[axis] == 0:
        raise ValueError("the interquartile mean of no values is not defined")
    return trim_mean(values, 0.25, axis=axis)


def stratified_bootstrap_interval(
    strata: Sequence[ArrayLike],
    statistic: Callable[..., Any],
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """The percentile bootstrap interval of `statistic` over the pooled values of `strata`.

    Each resample draws from every stratum as many values as it has, with replacement, and pools them; the interval
    holds the middle `confidence` of the statistic over resamples. The same values in the same order with the same
    seed give the same interval. Where every stratum holds one value there is no spread to resample, and both ends are
    the statistic itself.

    A percentile interval from few values is too narrow: over 5 normal draws the nominal 95 % of the mean covers about
    83 %, over 50 about 94 %.

    Args:
        strata: arrays `[N_i]`: the scores of one task each, say, one per seed.
        statistic: maps `[resamples, N]` with the keyword `axis=-1` to `[resamples]`; `numpy.mean`,
            `interquartile_mean`.
        confidence: in (0, 1).
        resamples: how often to resample; this many times the number of values are held in memory at once.
        seed: of the resampling.

    Raises:
        ValueError: there are no strata, or one is empty or not one-dimensional.
    """
    samples = _resampled(strata, resamples, np.random.default_rng(seed))
    return _middle(statistic(np.concatenate(samples, axis=-1), axis=-1), confidence)


class Scale(NamedTuple):
    """A score (R − random) / (expert − random) of returns R, whose two ends are known up to standard errors."""

    expert: float
    random: float
    expert_error: float = 0.0
    random_error: float = 0.0

    def scores(self, returns: NDArray[Any], generator: np.random.Generator) -> NDArray[Any]:
        """Of `returns: [resamples, N]`, in each row between ends drawn from their normal distributions."""
        expert = self.expert + self.expert_error * generator.standard_normal((len(returns), 1))
        random = self.random + self.random_error * generator.standard_normal((len(returns), 1))
        scores: NDArray[Any] = (returns - random) / (expert - random)
        return scores


def stratified_score_interval(
    strata: Sequence[ArrayLike],
    scales: Sequence[Scale],
    statistic: Callable[..., Any],
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """`stratified_bootstrap_interval` of scores, from the returns `[N_i]` and the scale of each stratum.

    What all values of a stratum share, the error of the two ends of its scale, is drawn anew in each resample.
    """
    generator = np.random.default_rng(seed)
    samples = _resampled(strata, resamples, generator)
    scores = [scale.scores(sample, generator) for scale, sample in zip(scales, samples, strict=True)]
    return _middle(statistic(np.concatenate(scores, axis=-1), axis=-1), confidence)


def _resampled(strata: Sequence[ArrayLike], resamples: int, generator: np.random.Generator) -> list[NDArray[Any]]:
    """`[resamples, N_i]` of each stratum."""
    groups = [np.asarray(stratum, dtype=np.float64) for stratum in strata]
    if not groups or any(group.ndim != 1 or group.size == 0 for group in groups):
        raise ValueError(
            f"a bootstrap needs strata [N] of at least one value each, not shapes {[g.shape for g in groups]}"
        )
    return [group[generator.integers(group.size, size=(resamples, group.size))] for group in groups]


def _middle(statistics: Any, confidence: float) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    low, high = np.quantile(statistics, [tail, 1 - tail])
    return float(low), float(high)


def bootstrap_interval(
    values: ArrayLike,
    statistic: Callable[..., Any],
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """`stratified_bootstrap_interval` over the single stratum `values` `[N]`."""
    return stratified_bootstrap_interval([values], statistic, confidence, resamples, seed)
