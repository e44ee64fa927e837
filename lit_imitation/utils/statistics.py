"""Summary statistics and bootstrap intervals for small sets of scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


def interquartile_mean(values: ArrayLike, axis: int = -1) -> Any:
    """Mean of the middle half of `values` along `axis`: a float for `[N]`, `[...]` for `[..., N]`.

    ⌊N/4⌋ values are cut from each end, as in `rliable` (Agarwal et al. 2021, "Deep RL at the Edge of the Statistical
    Precipice", arXiv:2108.13264). If 4 does not divide N, slightly more than half remains: the middle 3 of 5. With
    fewer than 4 values nothing is cut.

    Raises:
        ValueError: There are no values.
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
    """Percentile bootstrap interval of `statistic` over the pooled values of `strata`.

    Each resample draws from every stratum as many values as it has, with replacement, and pools them. Equal values,
    order and seed give an equal interval. If every stratum holds one value, both ends equal the statistic.

    Intervals from few values are too narrow: for 5 normal samples the nominal 95 % interval of the mean covers about
    83 %, for 50 about 94 %.

    Args:
        strata: Arrays `[N_i]`, for example the scores of one task over seeds.
        statistic: Function from `[resamples, N]` with `axis=-1` to `[resamples]`: `numpy.mean`, `interquartile_mean`.
        confidence: Coverage of the interval, in (0, 1).
        resamples: Number of resamples, all held in memory at once.
        seed: Seed of the resampling.

    Returns:
        Lower and upper end of the interval.

    Raises:
        ValueError: `strata` is empty, or a stratum is empty or not one-dimensional.
    """
    samples = _resample(strata, resamples, np.random.default_rng(seed))
    return _percentile_interval(statistic(np.concatenate(samples, axis=-1), axis=-1), confidence)


class Scale(NamedTuple):
    """Normalization (R − random) / (expert − random) of returns R, with standard errors of both reference returns."""

    expert: float
    random: float
    expert_error: float = 0.0
    random_error: float = 0.0

    def scores(self, returns: NDArray[Any], generator: np.random.Generator) -> NDArray[Any]:
        """Normalized scores of `returns: [resamples, N]`, with reference returns sampled from normal distributions."""
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
    """`stratified_bootstrap_interval` of normalized scores, from the returns `[N_i]` and the scale of each stratum.

    Each resample also samples the two reference returns of each scale, whose error all values of a stratum share.
    """
    generator = np.random.default_rng(seed)
    samples = _resample(strata, resamples, generator)
    scores = [scale.scores(sample, generator) for scale, sample in zip(scales, samples, strict=True)]
    return _percentile_interval(statistic(np.concatenate(scores, axis=-1), axis=-1), confidence)


def _resample(strata: Sequence[ArrayLike], resamples: int, generator: np.random.Generator) -> list[NDArray[Any]]:
    """`[resamples, N_i]` resampled values of each stratum."""
    groups = [np.asarray(stratum, dtype=np.float64) for stratum in strata]
    if not groups or any(group.ndim != 1 or group.size == 0 for group in groups):
        raise ValueError(
            f"a bootstrap needs strata [N] of at least one value each, not shapes {[g.shape for g in groups]}"
        )
    return [group[generator.integers(group.size, size=(resamples, group.size))] for group in groups]


def _percentile_interval(statistics: Any, confidence: float) -> tuple[float, float]:
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
    """`stratified_bootstrap_interval` over the single stratum `values: [N]`."""
    return stratified_bootstrap_interval([values], statistic, confidence, resamples, seed)
