"""Serialization and checks of spaces."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from lit_imitation.errors import UnsupportedSpaceError
from lit_imitation.utils.spaces import FlatBox, check_spaces, float32_bounds, space_from_dict, space_to_dict

SPACES = {
    "discrete": spaces.Discrete(4),
    "discrete-start": spaces.Discrete(3, start=-7),
    "multi-discrete": spaces.MultiDiscrete([2, 3]),
    "multi-discrete-start": spaces.MultiDiscrete([4, 1, 2], start=[0, -3, 5]),
    "box": spaces.Box(-1, 1, (3,), np.float32),
    "box-asymmetric": spaces.Box(np.float32([-0.1, 0, 3]), np.float32([0.3, 1e-30, 3.3])),
    "box-unbounded": spaces.Box(-np.inf, np.inf, (2,), np.float64),
    "box-half-bounded": spaces.Box(np.float32([0, -np.inf]), np.float32([np.inf, 2])),
    "box-matrix": spaces.Box(-2, 5, (2, 3), np.float64),
    "box-scalar": spaces.Box(-1, 1, (), np.float32),
    "multi-binary": spaces.MultiBinary([2, 3]),
    "dict": spaces.Dict({"z": spaces.Discrete(2), "a": spaces.Tuple([spaces.Box(0, 1, (2,)), spaces.MultiBinary(3)])}),
    "dict-unsorted": spaces.Dict([("z", spaces.Discrete(2)), ("a", spaces.Box(0, 1, (2,)))]),
    "flat": FlatBox(spaces.Dict([("z", spaces.Discrete(2)), ("a", spaces.Box(-1, 1, (2,), np.float64))])),
    "image": spaces.Box(0, 255, (4, 5, 3), np.uint8),
    "integers": spaces.Box(-5, 5, (2,), np.int64),
    "extremes": spaces.Box(np.finfo(np.float32).min, np.finfo(np.float32).max, (2,), np.float32),
}


@pytest.mark.parametrize("name", SPACES)
def test_spaces_round_trip(name, tmp_path):
    space = SPACES[name]
    torch.save(space_to_dict(space), tmp_path / "space.pt")
    again = space_from_dict(torch.load(tmp_path / "space.pt", weights_only=True))
    assert again == space
    assert again.dtype == space.dtype
    assert again.shape == space.shape
    if isinstance(space, spaces.Dict):
        assert list(again.spaces) == list(space.spaces)
    if isinstance(space, FlatBox):
        assert isinstance(again, FlatBox)
        assert list(again.original.spaces) == list(space.original.spaces)
    if isinstance(space, spaces.Box):
        np.testing.assert_array_equal(again.low, space.low)
        np.testing.assert_array_equal(again.high, space.high)


WIDE = st.floats(-(2.0**90), 2.0**90, width=32, allow_subnormal=False)


@given(
    st.lists(st.tuples(WIDE, st.floats(0, 2.0**90, width=32, allow_subnormal=False)), min_size=1, max_size=4),
    st.sampled_from([np.float32, np.float64]),
)
def test_bounds_round_trip_exactly(bounds, dtype):
    low = np.array([low for low, _ in bounds], dtype)
    high = low + np.array([width for _, width in bounds], dtype)
    again = space_from_dict(space_to_dict(spaces.Box(low, high, dtype=dtype)))
    np.testing.assert_array_equal(again.low, low)
    np.testing.assert_array_equal(again.high, high)
    assert again.dtype == dtype


@pytest.mark.parametrize(
    "space", [spaces.Text(4), spaces.Dict(a=spaces.Text(2)), spaces.Graph(spaces.Box(0, 1), None)], ids=str
)
def test_unsupported_space_raises(space):
    with pytest.raises(UnsupportedSpaceError, match="Text" if "Text" in str(space) else "Graph"):
        space_to_dict(space)


@pytest.mark.parametrize(
    "observation", [name for name in SPACES if name != "box-scalar" and not name.startswith("dict")]
)
@pytest.mark.parametrize(
    "action", ["discrete", "discrete-start", "multi-discrete", "box", "box-unbounded", "box-matrix"]
)
def test_supported_spaces_pass(observation, action):
    check_spaces(SPACES[observation], SPACES[action], "X-v0")


@pytest.mark.parametrize("high", [0.1, 1.0, 1 / 3, 1e300, np.inf, 1e-50, 16777217.0])
def test_float32_bounds_are_nearest_inside(high):
    space = spaces.Box(-high, high, (2,), np.float64)
    low32, high32 = float32_bounds(space)
    assert low32.dtype == high32.dtype == np.float32
    assert (high32.astype(np.float64) <= high).all()
    assert (low32.astype(np.float64) >= -high).all()
    with np.errstate(over="ignore"):
        assert np.isinf(high) or (np.nextafter(high32, np.float32(np.inf)).astype(np.float64) > high).all()
