import numpy as np
import pytest
import scipy.stats

from lit_imitation.utils.statistics import bootstrap_interval, interquartile_mean, stratified_bootstrap_interval


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([7.0], 7.0),
        ([1.0, 2.0, 6.0], 3.0),
        ([-100.0, 1.0, 2.0, 100.0], 1.5),
        ([9.0, -50.0, 1.0, 2.0, 3.0], 2.0),
        ([8.0, 1.0, 7.0, 2.0, 6.0, 3.0, 5.0, 400.0], 5.0 + 1 / 4),
    ],
    ids=["one", "uncut", "four", "middle-3-of-5", "eight"],
)
def test_interquartile_mean_of_small_samples(values, expected):
    assert interquartile_mean(values) == pytest.approx(expected)


def test_interquartile_mean_along_axis():
    rows = np.random.default_rng(0).normal(size=(3, 4, 10))
    expected = np.sort(rows)[..., 2:8].mean(-1)
    np.testing.assert_allclose(interquartile_mean(rows), expected)
    np.testing.assert_allclose(interquartile_mean(rows.swapaxes(0, 2), axis=0), expected.T)


def test_interval_of_two_values_is_binomial():
    # The mean of a resample of {0, 1} is 0, ½, 1 with probability ¼, ½, ¼.
    assert bootstrap_interval([0.0, 1.0], np.mean, confidence=0.95) == (0.0, 1.0)
    assert bootstrap_interval([0.0, 1.0], np.mean, confidence=0.40) == (0.5, 0.5)


@pytest.mark.slow
def test_interval_of_many_values_is_normal():
    values = np.random.default_rng(0).normal(3.0, 2.0, size=1000)
    low, high = bootstrap_interval(values, np.mean, confidence=0.9, resamples=10000)
    half = 1.6449 * values.std() / np.sqrt(1000)
    assert low == pytest.approx(values.mean() - half, abs=0.05 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.05 * half)


@pytest.mark.parametrize("statistic", [np.mean, interquartile_mean])
def test_interval_matches_scipy(statistic):
    values = np.random.default_rng(1).exponential(size=40)
    scipy_interval = scipy.stats.bootstrap(
        (values,), statistic, n_resamples=20000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    interval = bootstrap_interval(values, statistic, resamples=20000)
    width = scipy_interval.high - scipy_interval.low
    np.testing.assert_allclose(interval, (scipy_interval.low, scipy_interval.high), atol=0.03 * width)


@pytest.mark.slow
def test_interval_has_nominal_coverage():
    rng = np.random.default_rng(3)
    intervals = np.array([bootstrap_interval(rng.normal(size=50), np.mean, seed=trial) for trial in range(1000)])
    covered = ((intervals[:, 0] <= 0) & (intervals[:, 1] >= 0)).mean()
    # At 50 values the percentile interval covers 94 %; the tolerance is three standard errors.
    assert covered == pytest.approx(0.94, abs=0.023)


def test_interval_depends_only_on_values_and_seed():
    values = np.random.default_rng(4).normal(size=12)
    np.random.seed(0)
    first = bootstrap_interval(values, interquartile_mean)
    np.random.seed(1)
    assert bootstrap_interval(values, interquartile_mean) == first
    assert bootstrap_interval(values, interquartile_mean, seed=1) != first


def test_one_value_has_no_spread():
    assert bootstrap_interval([0.1], np.mean) == (0.1, 0.1)
    assert bootstrap_interval([0.1], interquartile_mean) == (0.1, 0.1)


def test_differences_between_strata_are_not_resampled():
    low, high = stratified_bootstrap_interval([[0.0] * 5, [10.0] * 5], np.mean)
    assert (low, high) == (5.0, 5.0)
    assert bootstrap_interval([0.0] * 5 + [10.0] * 5, np.mean) != (5.0, 5.0)


def test_strata_keep_their_sizes():
    # The pooled mean is (3·0 + 1·8) / 4 in every resample.
    assert stratified_bootstrap_interval([[0.0] * 3, [8.0]], np.mean) == (2.0, 2.0)


def test_stratified_variance_sums_within_strata():
    rng = np.random.default_rng(5)
    strata = [rng.normal(0, 1, 200), rng.normal(50, 3, 100)]
    low, high = stratified_bootstrap_interval(strata, np.mean, resamples=10000)
    variance = sum(stratum.size * stratum.var() for stratum in strata) / 300**2
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(variance), rel=0.05)


@pytest.mark.parametrize(
    "call",
    [
        lambda: interquartile_mean([]),
        lambda: bootstrap_interval([], np.mean),
        lambda: stratified_bootstrap_interval([], np.mean),
        lambda: stratified_bootstrap_interval([[1.0], []], np.mean),
        lambda: bootstrap_interval([[1.0], [2.0]], np.mean),
    ],
    ids=["iqm", "bootstrap", "no-strata", "empty-stratum", "matrix"],
)
def test_empty_values_raise(call):
    with pytest.raises(ValueError, match=r"no values|at least one value"):
        call()
