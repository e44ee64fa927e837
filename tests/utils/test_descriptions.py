"""Serialization of objects and reconstruction from it."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from lit_imitation import PPO, CategoricalPolicy, GaussianPolicy
from lit_imitation.errors import ConfigError
from lit_imitation.methods.dagger.schedules import LinearBeta
from lit_imitation.policies import Policy
from lit_imitation.utils.descriptions import (
    build,
    decode,
    describe,
    differences,
    encode,
    find_undescribed,
    plain_numbers,
    to_plain,
)
from lit_imitation.utils.trust import trust_scope

SPACES = Box(-1, 1, (3,), np.float32), Discrete(2)


def round_trip(value):
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def square(x):
    return x


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (np.float64(0.1), 0.1),
        (np.float32(0.1), float(np.float32(0.1))),
        (np.longdouble(0.5), 0.5),
        (np.int64(7), 7),
        (np.uint8(7), 7),
        (np.bool_(True), True),
        (np.str_("tanh"), "tanh"),
        (np.array(0.25), 0.25),
        (torch.tensor(3), 3),
        (torch.tensor(0.5, dtype=torch.float64), 0.5),
        ([np.int64(3), (np.float64(0.5), {"a": np.bool_(False)})], [3, (0.5, {"a": False})]),
        ({np.str_("a"): np.int64(1)}, {"a": 1}),
    ],
)
def test_numpy_and_torch_numbers_become_python(value, wanted):
    def same(found):
        assert found == wanted
        assert str(found) == str(wanted)  # 3 and not 3.0, and no np.float64(0.1)

    same(plain_numbers(value))
    same(decode(round_trip(encode(value))))


@pytest.mark.parametrize(
    "value",
    [
        None,
        1 + 2j,
        b"x",
        float("inf"),
        (1, [2, (3,)]),
        {"a": {"__kind__": "class"}},
        {1: "a", (2, 3): "b"},
        {4, 5},
        frozenset({6}),
        Path("a/b"),
        Box(-np.inf, np.inf, (2,), np.float32),
        Box(-2.0, np.inf, (), np.float64),
        Discrete(3, start=-1),
        torch.float64,
        GaussianPolicy,
        torch.nn.GELU,
        square,
        torch.tanh,
        torch.nn.functional.gelu,
        LinearBeta(4),
    ],
    ids=lambda value: getattr(value, "__name__", repr(value)),  # the repr of a function contains its address
)
def test_values_round_trip(value):
    with trust_scope(False, [f"{__name__}.square"]):
        found = decode(round_trip(encode(value)))
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("dtype", ["f4", "f8", "f2", "g", "i2", "u4", "?", "c16", "U3"])
def test_arrays_round_trip(dtype):
    array = np.array([[0, 1], [1, 0]]).astype(dtype)
    found = decode(round_trip(encode({"x": [array]})))["x"][0]
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


def test_factories_round_trip():
    found = decode(round_trip(encode(partial(GaussianPolicy, hidden_sizes=np.array([4]), dropout=np.float32(0.5)))))
    assert found.func is GaussianPolicy
    assert list(found.keywords["hidden_sizes"]) == [4]
    assert found.keywords["dropout"] == 0.5


@pytest.mark.parametrize(
    "value",
    [
        {"__kind__": "function", "module": "os", "name": "system"},
        {"__kind__": "function", "module": "torch", "name": "load"},
        {"__kind__": "function", "module": "torch", "name": "os.system"},
        {"__kind__": "function", "module": "torch", "name": "builtins.eval"},
        {"__kind__": "function", "module": "torch", "name": "from_file"},
        {"__kind__": "function", "module": "torch", "name": "hub.load"},
        {"__kind__": "function", "module": "torch.nn.functional", "name": "torch"},
        {"__kind__": "function", "module": "torch.nn.functional", "name": "torch.os.system"},
        {"__kind__": "function", "module": "subprocess", "name": "Popen"},
        {"__kind__": "function", "module": "numpy", "name": "save"},
        {"__kind__": "function", "module": "shutil", "name": "rmtree"},
        {"__kind__": "class", "class": "subprocess.Popen"},
        {"__kind__": "object", "class": "subprocess.Popen", "arguments": {"args": ["true"]}},
        {"__kind__": "object", "class": "torch.nn.modules.linear.Linear", "arguments": {}},
        {"__kind__": "partial", "of": encode(square), "args": [1], "keywords": {}},
        {"__kind__": "partial", "of": {"__kind__": "class", "class": "torch.nn.modules.linear.Linear"}, "args": []},
    ],
    ids=lambda value: getattr(value, "__name__", repr(value)),  # the repr of a function contains its address
)
def test_description_runs_no_foreign_code(value):
    with pytest.raises(ConfigError):
        decode(value)


def test_undescribed_settings_are_reported():
    class Odd:
        pass

    policy = OwnPolicy(*SPACES, odd=Odd(), deep={"f": [lambda x: x]})
    description = round_trip(describe(policy))
    assert [name.split(" ")[0] for name in find_undescribed(description)] == ["odd", "deep.f"]
    with pytest.raises(ConfigError, match=r"could not store a .*Odd.*: pass it by keyword"):
        build(description, Policy, named=[OwnPolicy])


class Mixin:
    def __init__(self, *given, shift=0.0, **more):
        super().__init__(*given, **more)
        self.shift = shift


class OwnPolicy(Mixin, CategoricalPolicy):
    """User-defined policy with its own argument and further keyword arguments."""

    def __init__(self, *spaces, odd=None, deep=None, **more):
        super().__init__(*spaces, **more)


class MixedPolicy(Mixin, CategoricalPolicy):
    """User-defined policy that inherits its constructor."""


def test_outermost_constructor_arguments_are_recorded():
    policy = OwnPolicy(*SPACES, shift=np.float32(0.5), hidden_sizes=np.array([4]), odd="x")
    again = build(round_trip(describe(policy)), Policy, named=[partial(OwnPolicy)])
    assert type(again) is OwnPolicy
    assert (again.shift, again.arguments["odd"]) == (0.5, "x")
    assert again.network.layers[0].weight.shape == (4, 3)
    mixed = MixedPolicy(*SPACES, shift=1.5, hidden_sizes=[4])
    with trust_scope(True):
        assert build(describe(mixed), Policy).shift == 1.5
    plain_one = MixedPolicy(observation_space=SPACES[0], action_space=SPACES[1])
    assert plain_one.arguments == {"shift": 0.0, **CategoricalPolicy(*SPACES).arguments}


def test_differences_include_defaults():
    one, other = PPO(*SPACES), PPO(*SPACES, gamma=0.9, hidden_sizes=[64, 64])
    assert describe(one)["arguments"]["gae_lambda"] == 0.95
    assert differences(describe(one), describe(other)) == [("gamma", 0.99, 0.9)]
    assert differences({"a": torch.ones(2)}, {"a": torch.ones(2)}) == []
    assert differences(encode(GaussianPolicy), encode(CategoricalPolicy)) == [
        ("", "GaussianPolicy", "CategoricalPolicy")
    ]


def test_to_plain_keeps_tensors_and_converts_numpy():
    state = {"a": np.float64(0.5), "b": [np.arange(3)], "c": torch.tensor(2.0), "d": Path("x"), "e": np.bool_(True)}
    found = round_trip(to_plain(state))
    assert (found["a"], found["d"], found["e"]) == (0.5, "x", True)
    assert torch.equal(found["b"][0], torch.arange(3))
    assert torch.equal(found["c"], torch.tensor(2.0))  # as in the state of `EarlyStopping`
