"""Range checks pass their bounds, refuse what lies beyond, and name option and range."""

from __future__ import annotations

import math
import re

import pytest

from lit_imitation.errors import ConfigError
from lit_imitation.utils.ranges import check_at_least, check_between, check_finite, check_positive, check_weights

CHECKS = {
    "at least": (lambda **given: check_at_least("learner", 1, **given), (1, 7), (0, -3), "at least 1"),
    "between": (
        lambda **given: check_between("learner", 0.0, 1e6, **given),
        (0.0, 1e6),
        (-1e-9, 2e6, math.nan),
        "lie in [0, 1e+06]",
    ),
    "positive": (lambda **given: check_positive("learner", **given), (1e-9, math.inf), (0.0, -1.0), "be above 0"),
    "weights": (
        lambda **given: check_weights("learner", **given),
        (0.0, 3.0),
        (-1.0, math.inf, math.nan),
        "be 0 or more, and finite",
    ),
    "finite": (lambda **given: check_finite("learner", **given), (-7.0, 0.0), (math.inf, math.nan), "be finite"),
}


@pytest.mark.parametrize("name", CHECKS)
def test_values_in_range_pass(name):
    check, fine, _, _ = CHECKS[name]
    for value in (*fine, None):
        check(epochs=value)


@pytest.mark.parametrize("name", CHECKS)
def test_first_value_out_of_range_is_named(name):
    check, fine, wrong, rule = CHECKS[name]
    for value in wrong:
        with pytest.raises(ConfigError, match=re.escape(f"learner.b is {value}; it must ") + ".*" + re.escape(rule)):
            check(a=fine[0], b=value, c=value)
