"""Summaries of a handful of scores, and how far to trust them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


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
    groups = [np.asarray(stratum, dtype=np.float64) for stratum in strata]
    if not groups or any(group.ndim != 1 or group.size == 0 for group in groups):
        raise ValueError(
            f"a bootstrap needs strata [N] of at least one value each, not shapes {[g.shape for g in groups]}"
        )
    generator = np.random.default_rng(seed)
    samples = np.concatenate(
        [group[generator.integers(group.size, size=(resamples, group.size))] for group in groups], axis=-1
    )
    tail = (1 - confidence) / 2
    low, high = np.quantile(statistic(samples, axis=-1), [tail, 1 - tail])
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
