"""β schedules against their formulas, and invalid parameters."""

from __future__ import annotations

import pytest

from lit_imitation.errors import ConfigError
from lit_imitation.methods.dagger.schedules import ExponentialBeta, IndicatorBeta, LinearBeta


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (LinearBeta(4), [0.75, 0.5, 0.25, 0.0, 0.0, 0.0]),
        (IndicatorBeta(), [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
        (ExponentialBeta(0.5), [1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125]),
        (ExponentialBeta(0.0), [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
    ],
    ids=repr,
)
def test_betas_of_first_six_rounds(schedule, expected):
    assert [schedule(i) for i in range(1, 7)] == expected


def test_parameters_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="rounds is 0"):
        LinearBeta(0)
    with pytest.raises(ConfigError, match=r"p is 1\.5"):
        ExponentialBeta(1.5)
