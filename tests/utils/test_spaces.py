"""Serialization and checks of spaces."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector.utils import batch_space
from hypothesis import given
from hypothesis import strategies as st

from lit_imitation.errors import UnsupportedSpaceError
from lit_imitation.utils.spaces import (
    FlatBox,
    PackedBox,
    check_spaces,
    example_element,
    flat_space,
    float32_bounds,
    space_from_dict,
    space_to_dict,
)

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
    "packed": PackedBox(
        spaces.Dict([("z", spaces.Box(0, 255, (3, 5, 3), np.uint8)), ("a", spaces.Box(-1, 1, (3,), np.float64))])
    ),
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
        assert type(again) is type(space)
        assert again.parts == space.parts
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


# --- packed observations ---------------------------------------------------------------------------------------------

LEAVES = st.one_of(
    st.builds(lambda n, start: spaces.Discrete(n, start=start), st.integers(1, 5), st.integers(-9, 9)),
    st.builds(lambda counts: spaces.MultiDiscrete(counts), st.lists(st.integers(1, 5), min_size=1, max_size=3)),
    st.builds(spaces.MultiBinary, st.integers(1, 3)),
    st.builds(
        lambda shape, dtype: spaces.Box(-3, 3, tuple(shape), dtype),
        st.lists(st.integers(1, 3), max_size=2),
        st.sampled_from([np.float32, np.float64, np.int32]),
    ),
    st.builds(
        lambda shape: spaces.Box(0, 255, tuple(shape), np.uint8), st.lists(st.integers(1, 3), min_size=1, max_size=4)
    ),
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(spaces.Tuple),
        st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3).map(spaces.Dict),
    ),
    max_leaves=6,
)


def assert_same(one, other):
    if isinstance(one, dict):
        assert list(one) == list(other)
        one, other = list(one.values()), list(other.values())
    if isinstance(one, tuple | list):
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
        return
    np.testing.assert_array_equal(one, np.asarray(other, np.float32) if np.asarray(other).dtype.kind == "f" else other)


@given(st.lists(TREES, min_size=1, max_size=3).map(spaces.Tuple), st.integers(0, 3))
def test_packing_keeps_every_part(original, count):
    space = PackedBox(original)
    batch = batch_space(original, count) if count else original
    batch.seed(1)
    seen = batch.sample()
    rows = space.flatten(seen)
    assert rows.shape == ((count,) if count else ()) + space.shape
    assert rows.dtype == np.uint8
    back = space.unflatten(rows if count else rows[None])
    assert_same(back if count else first_of(back), seen)
    for part in space.parts:
        assert part.start % part.dtype.itemsize == space.shape[0] % 8 == 0
    places = sorted((part.start, part.stop) for part in space.parts)
    assert all(stop == start for (_, stop), (start, _) in pairwise(places))
    assert 0 <= space.shape[0] - places[-1][1] < 8, "no more bytes than the parts need"
    assert original.contains(first_of(space.unflatten(example_element(space)[None])))


def first_of(batch):
    if isinstance(batch, dict):
        return {key: first_of(value) for key, value in batch.items()}
    return tuple(map(first_of, batch)) if isinstance(batch, tuple) else batch[0]


CAMERA = spaces.Dict([("camera", spaces.Box(0, 255, (2, 3, 1), np.uint8)), ("state", spaces.Box(-1, 1, (2,)))])


def test_spaces_with_images_are_packed():
    for image in (spaces.Box(0, 255, (2, 3), np.uint8), spaces.Box(0, 1, (2, 3, 1))):
        assert type(flat_space(spaces.Dict(a=spaces.Tuple([image, spaces.Discrete(2)])))) is PackedBox
    for vector in (spaces.Box(0, 1, (2, 3)), spaces.Box(0, 255, (2,), np.uint8), spaces.MultiBinary([2, 3, 1])):
        assert type(flat_space(spaces.Dict(a=vector))) is FlatBox
    assert PackedBox(CAMERA) != PackedBox(spaces.Dict(list(CAMERA.items())[::-1])), "the order is the layout"
    assert "'camera': Box(0, 255, (2, 3, 1), uint8)" in repr(PackedBox(CAMERA))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"camera": None}, "observation has no 'camera'"),
        (
            {"camera": np.zeros((3, 2, 1), np.uint8)},
            r"observation\['camera'\] has shape \[3, 2, 1\]; expected",
        ),
        ({"camera": np.zeros((2, 3, 1), np.float32)}, r"observation\['camera'\] holds float32; .* needs uint8"),
        ({"camera": np.full((2, 3, 1), 256)}, r"observation\['camera'\] holds int64; .* needs uint8"),
        ({"state": np.array([0.0, np.nan])}, r"observation\['state'\] is not finite: nan"),
        ({"state": np.array(["a", "b"])}, r"observation\['state'\] holds <U1; expected real numbers"),
        ({"state": np.zeros((4, 2))}, r"parts with \[\[\], \[4\]\] rows; they must be equal"),
    ],
)
def test_observations_that_do_not_fit_raise(change, text):
    seen = {"camera": np.zeros((2, 3, 1), np.uint8), "state": np.zeros(2)} | change
    with pytest.raises(ValueError, match=text):
        PackedBox(CAMERA).flatten({key: value for key, value in seen.items() if value is not None})


def test_parts_of_the_same_path_are_refused():
    original = spaces.Dict([("a/b", spaces.Discrete(2)), ("a", spaces.Dict(b=spaces.Discrete(3)))])
    for kind in (FlatBox, PackedBox):
        with pytest.raises(UnsupportedSpaceError, match="two parts named 'a/b'"):
            kind(original)
