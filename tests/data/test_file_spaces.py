"""Spaces of demonstrations without an environment."""

from __future__ import annotations

import re

import numpy as np
import pytest
from demonstration_files import columns
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

from lit_imitation.data.columns import Columns, named
from lit_imitation.data.demonstrations import demonstrations_of
from lit_imitation.data.file_spaces import MOST_CHOICES, check_varied, describe_seen, infer_spaces, space_of
from lit_imitation.errors import ConfigError, DemonstrationError, UnsupportedSpaceError
from lit_imitation.utils.spaces import space_to_dict

ROWS = np.arange(10)


def source(**changes) -> Columns:
    return Columns(columns(**changes), named("mine.npz", {}), {})


def unbounded(*shape: int) -> Box:
    return Box(-np.inf, np.inf, shape, np.float32)


OBSERVATIONS = {
    "float64 vectors": (np.zeros((10, 3)), unbounded(3)),
    "float32 images": (np.zeros((10, 4, 4, 1), np.float32), unbounded(4, 4, 1)),
    "one float": (np.zeros(10), unbounded(1)),
    "uint8 images": (np.zeros((10, 4, 4, 1), np.uint8), Box(0, 255, (4, 4, 1), np.uint8)),
    "uint8 vectors": (np.zeros((10, 3), np.uint8), Box(0, 255, (3,), np.uint8)),
    "states": (ROWS, Discrete(10)),
    "states in a column": (ROWS[:, None] % 4, Discrete(4)),
    "one negative number": (ROWS - 1, unbounded(1)),
    "one large number": (ROWS * MOST_CHOICES, unbounded(1)),
    "whole vectors": (np.zeros((10, 3), np.int64), unbounded(3)),
    "bits": (np.zeros((10, 3), bool), MultiBinary(3)),
    "one bit": (np.zeros(10, bool), MultiBinary(1)),
    "grids of bits": (np.zeros((10, 2, 3), bool), MultiBinary([2, 3])),
}
ACTIONS = {
    "float64": (np.zeros((10, 2)), unbounded(2)),
    "one float": (np.zeros(10, np.float32), unbounded(1)),
    "float matrices": (np.zeros((10, 2, 2)), unbounded(2, 2)),
    "choices": (ROWS % 3, Discrete(3)),
    "unsigned choices": ((ROWS % 3).astype(np.uint8), Discrete(3)),
    "choices in a column": (ROWS[:, None] % 3, Discrete(3)),
    "a choice that is missing": (ROWS % 2 * 4, Discrete(5)),
    "several choices": (np.stack([ROWS % 3, ROWS % 2], 1), MultiDiscrete([3, 2])),
}


@pytest.mark.parametrize("name", OBSERVATIONS)
def test_observation_space_from_column(name):
    values, space = OBSERVATIONS[name]
    read = source(observations=values, next_observations=values)
    found, actions = infer_spaces([read])
    assert found == space
    assert found.dtype == space.dtype
    transitions = demonstrations_of([read], found, actions).transitions  # what was inferred can be read
    assert transitions.observation.shape == (10, *space.shape)
    np.testing.assert_array_equal(transitions.observation.numpy().ravel(), values.ravel())


@pytest.mark.parametrize("name", ACTIONS)
def test_action_space_from_column(name):
    values, space = ACTIONS[name]
    read = source(actions=values)
    observations, found = infer_spaces([read])
    assert found == space
    assert found.dtype == space.dtype
    transitions = demonstrations_of([read], observations, found).transitions
    np.testing.assert_array_equal(transitions.action.numpy().ravel(), values.ravel())


def test_choices_are_counted_over_all_files():
    files = [source(actions=ROWS % n, observations=ROWS % (n + 1)) for n in (2, 5, 3)]
    assert infer_spaces(files) == (Discrete(6), Discrete(5))
    pairs = [source(actions=np.stack([ROWS % n, ROWS % (6 - n)], 1)) for n in (2, 3)]
    assert infer_spaces(pairs)[1] == MultiDiscrete([3, 4])


def test_known_space_is_returned_and_not_inferred():
    negative = source(actions=ROWS % 3 - 1)
    assert infer_spaces([negative], action_space=Discrete(3, start=-1))[1] == Discrete(3, start=-1)
    assert infer_spaces([source()], Box(0, 1, (3,)))[0] == Box(0, 1, (3,))


FAULTS = {
    "negative choices": ({"actions": ROWS % 3 - 1}, "'actions' holds whole numbers from -1 to 1.*astype.*Discrete"),
    "too many choices": ({"actions": ROWS * MOST_CHOICES}, "'actions' holds whole numbers from 0 to 589824"),
    "bool actions": ({"actions": np.zeros(10, bool)}, "'actions' holds bool"),
    "text": ({"observations": np.full((10, 3), b"a")}, "'observations' holds .S1"),
    "empty rows": ({"observations": np.zeros((10, 0))}, r"'observations' has shape \[10, 0\]: its rows are empty"),
    "no rows": ({key: value[:0] for key, value in columns().items()}, "'observations' holds no transitions"),
    "a single value": ({"actions": np.array(1.0)}, "'actions' is a single value"),
    "fewer actions": ({"actions": np.zeros((9, 2))}, "'actions' has 9 rows, but 'observations' has 10"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_columns_are_refused(fault):
    changes, message = FAULTS[fault]
    with pytest.raises(DemonstrationError, match=f"mine.npz: {message}"):
        infer_spaces([source(**changes)])


def test_whole_matrices_are_no_choices():
    with pytest.raises(UnsupportedSpaceError, match=r"choices must be \[N\] or \[N, k\]"):
        infer_spaces([source(actions=np.zeros((10, 2, 2), np.int64))])


@pytest.mark.parametrize("values", [np.full((10, 2), 0.5), np.full(10, 3)])
def test_constant_actions_are_refused(values):
    read = source(actions=values)
    transitions = demonstrations_of([read], *infer_spaces([read])).transitions
    with pytest.raises(DemonstrationError, match=r"mine\.npz: 'actions' is .* in all 10 training rows"):
        check_varied(transitions, "mine.npz")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "observations are 3 numbers, actions 2 numbers from 0.0"),
        ({"actions": ROWS % 2 * 4}, "actions 5 choices, of which 2 occur"),
        ({"actions": np.stack([ROWS % 3, ROWS % 2], 1)}, "actions 3 × 2 choices"),
        ({"actions": np.stack([ROWS, ROWS * 0], 1) / 2}, "actions 2 numbers from 0 to 4.5, constant in column 1"),
        ({"actions": ROWS / 1}, "1 number from 0 to 9 (whole numbers stored as floats: if they are choices"),
        ({"observations": np.zeros((10, 4, 4, 1), np.uint8)}, "observations are arrays [4, 4, 1] of uint8"),
        ({"observations": np.zeros((10, 3), bool)}, "observations are 3 bits"),
    ],
)
def test_description_tells_what_was_seen(changes, text):
    read = source(**changes)
    spaces = infer_spaces([read])
    assert text in describe_seen(demonstrations_of([read], *spaces).transitions, *spaces)


# --- given ------------------------------------------------------------------------------------------------------------

GIVEN = {
    "unbounded": ({"type": "Box", "shape": [3]}, unbounded(3)),
    "bounds for all": ({"type": "Box", "low": -1, "high": 2.5, "shape": [3]}, Box(-1, 2.5, (3,))),
    "bounds for each": (
        {"type": "Box", "low": [-1, 0], "high": [1, 0.04]}, Box(np.float32([-1, 0]), np.float32([1, 0.04]))
    ),
    "half bounded": ({"type": "Box", "low": [0, 0]}, Box(0, np.inf, (2,))),
    "image": ({"type": "Box", "shape": [4, 4, 3], "dtype": "uint8"}, Box(0, 255, (4, 4, 3), np.uint8)),
    "choices": ({"type": "Discrete", "n": 4}, Discrete(4)),
    "choices from": ({"type": "Discrete", "n": 5, "start": -2}, Discrete(5, start=-2)),
    "several": ({"type": "MultiDiscrete", "nvec": [3, 2]}, MultiDiscrete([3, 2])),
    "bits": ({"type": "MultiBinary", "n": [2, 3]}, MultiBinary([2, 3])),
}  # fmt: skip


@pytest.mark.parametrize("name", GIVEN)
def test_given_space_is_built(name):
    given, space = GIVEN[name]
    built = space_of(given, "data.action_space")
    assert built == space
    assert built.dtype == space.dtype
    assert space_of(space_to_dict(space), "data.action_space") == space  # as checkpoints hold it


NOT_GIVEN = [
    ({}, "has type None; choose Box, Discrete, MultiDiscrete, MultiBinary"),
    ({"type": "Dict"}, "has type 'Dict'"),
    ({"type": "Discrete"}, "lacks 'n'; a Discrete takes n, start"),
    ({"type": "Discrete", "n": 0}, "is no Discrete"),
    ({"type": "Discrete", "n": 2.5}, "is no Discrete: sizes must be whole numbers"),
    ({"type": "Discrete", "n": 10**9}, f"more than {MOST_CHOICES} values"),
    ({"type": "Discrete", "n": 10**30}, "is no Discrete"),
    ({"type": "MultiDiscrete", "nvec": [10**5, 2]}, "more than"),
    ({"type": "MultiBinary", "n": [10**5, 10**5]}, "more than"),
    ({"type": "Discrete", "n": 3, "shape": [1]}, "has 'shape'; a Discrete takes n, start"),
    ({"type": "Box"}, r"its shape is \[\]; give one like shape: \[7\]"),
    ({"type": "Box", "shape": [0]}, r"its shape is \[0\]"),
    ({"type": "Box", "shape": [10**6, 10**6]}, "its shape is"),
    ({"type": "Box", "shape": [2], "low": [0, 0, 0]}, "is no Box"),
    ({"type": "Box", "shape": [2], "low": 1, "high": 0}, "low is above high"),
    ({"type": "Box", "shape": [2], "low": float("nan")}, "low and high must be numbers"),
    ({"type": "Box", "shape": [2], "low": "a"}, "low and high must be numbers"),
    ({"type": "Box", "shape": [2], "dtype": "O"}, "not a dtype of numbers"),
    ({"type": "Box", "shape": [2], "dtype": "nothing"}, "is no Box"),
    ({"type": "Box", "shape": "abc"}, "is no Box"),
    ({"class_path": "os.system"}, "has type None"),
]


@pytest.mark.parametrize(("given", "message"), NOT_GIVEN)
def test_invalid_space_is_refused(given, message):
    with pytest.raises(ConfigError, match=message) as caught:
        space_of(given, "data.action_space")
    assert re.match("data.action_space ", str(caught.value))
    assert "\n" not in str(caught.value)
