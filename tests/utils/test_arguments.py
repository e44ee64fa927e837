"""Type checks of constructor arguments."""

import inspect
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces

from lit_imitation import (
    BC,
    CategoricalPolicy,
    DAggerCallback,
    DemonstrationDataModule,
    EnvironmentDataModule,
    ImitationDataModule,
    LinearBeta,
    RolloutDataModule,
    TabularDataModule,
)
from lit_imitation.data.expert_module import ExpertDataModule
from lit_imitation.errors import ConfigError
from lit_imitation.policies import Policy
from lit_imitation.utils.arguments import TypeChecked, argument_names, constructor_signature
from lit_imitation.utils.descriptions import Describable

OBSERVATION, ACTION = spaces.Box(-1, 1, (3,)), spaces.Discrete(2)
DATA = {"env_id": "CartPole-v1", "expert": "scripted"}


@pytest.mark.parametrize(
    ("cls", "arguments"),
    [
        *((CategoricalPolicy, {"hidden_sizes": sizes}) for sizes in ([8], (8,), np.array([8, 4]), range(8, 10))),
        (CategoricalPolicy, {"hidden_sizes": [np.int32(8)], "dropout": 0}),
        (BC, {"learning_rate": np.float32(1e-3)}),
        (BC, {"learning_rate": torch.tensor(1e-3), "entropy_coefficient": 1}),
        (BC, {"policy": partial(CategoricalPolicy, hidden_sizes=(8,))}),
        (BC, {"policy": lambda observation_space, action_space: CategoricalPolicy(observation_space, action_space)}),
        (DemonstrationDataModule, {**DATA, "num_envs": np.int64(2), "seed": np.uint32(3), "expert_return": 500}),
        (DemonstrationDataModule, {**DATA, "num_envs": True, "expert_deterministic": 1}),
        (DemonstrationDataModule, {"env_id": "CartPole-v1", "demonstrations": Path("x.npz")}),
        (DemonstrationDataModule, {"env_id": "CartPole-v1", "demonstrations": (Path("x.npz"), "y.npz")}),
        (DAggerCallback, {"expert": "scripted", "beta": 1}),
        (DAggerCallback, {"expert": np.sign, "beta": LinearBeta(3)}),
    ],
)
def test_valid_arguments_pass(cls, arguments):
    cls(*((OBSERVATION, ACTION) if cls is CategoricalPolicy else ()), **arguments)


def test_abstract_class_raises():
    class Half(Policy):
        def decode(self, head, deterministic):
            return head

    with pytest.raises(ConfigError, match=r"^Half is abstract: it does not define loss; name a class that does$"):
        Half(OBSERVATION, ACTION, 2, hidden_sizes=[3], activation="relu", dropout=0.0)


class Root(TypeChecked):
    def __init__(self, first: int, *, second: str = "b", third: float = 0.5) -> None:
        self.given = first, second, third


class Forwarding(Root):
    def __init__(self, *args, extra: bool = False, second: str = "c", **kwargs) -> None:
        super().__init__(*args, second=second, **kwargs)


class WithoutConstructor(Forwarding):
    pass


class Open(TypeChecked):
    def __init__(self, known: int = 0, **anything) -> None:
        self.anything = anything


def test_forwarded_arguments_are_part_of_the_signature():
    parameters = constructor_signature(WithoutConstructor, evaluated=True).parameters
    assert list(parameters) == ["self", "first", "extra", "second", "third"]
    assert parameters["second"].default == "c"
    assert (parameters["third"].default, parameters["third"].annotation) == (0.5, float)
    assert parameters["third"].kind is inspect.Parameter.KEYWORD_ONLY
    assert argument_names(WithoutConstructor) == ["first", "extra", "second", "third"]
    assert argument_names(type("Empty", (), {})) == []


@pytest.mark.parametrize(
    ("cls", "args", "arguments", "message"),
    [
        (WithoutConstructor, (1,), {"third": "x"}, r"WithoutConstructor: third is 'x'; it must be a number"),
        (WithoutConstructor, ("x",), {}, r"WithoutConstructor: first is 'x'; it must be a whole number"),
        (WithoutConstructor, (1,), {"therd": 2.0}, r"WithoutConstructor has no argument therd; did you mean third\?"),
        (Root, (1,), {"xyz": 2.0}, r"Root has no argument xyz; it has first, second, third"),
        (Open, (), {"known": "x"}, r"Open: known is 'x'; it must be a whole number"),
        (DemonstrationDataModule, (), DATA | {"subsampel": 2}, r"DemonstrationDataModule .* did you mean subsample\?"),
        (DemonstrationDataModule, (), DATA | {"num_envs": "x"}, r"data\.num_envs is 'x'; it must be a whole number"),
        (ImitationDataModule, (), DATA | {"backend": "x"}, r"data\.backend is 'x'; choose one of auto, "),
        (ImitationDataModule, (), DATA | {"env_stepps": 2}, r"ImitationDataModule .* did you mean env_steps\?"),
    ],
)
def test_forwarded_arguments_are_checked(cls, args, arguments, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        cls(*args, **arguments)


def test_constructors_that_forward_nothing_take_any_keyword():
    assert Open(anything=1).anything == {"anything": 1}


def test_data_modules_accept_the_arguments_of_their_bases():
    names = {cls: set(argument_names(cls)) for cls in (DemonstrationDataModule, RolloutDataModule, TabularDataModule)}
    base = set(argument_names(EnvironmentDataModule))
    assert all(base < found for found in names.values())
    demonstrations = set(argument_names(ExpertDataModule))
    assert demonstrations < names[DemonstrationDataModule]
    assert set(argument_names(ImitationDataModule)) == demonstrations | names[RolloutDataModule]


class Base(Describable):
    def __init__(self, size: int = 3, *, rate: float = 0.5, fixed: str = "a") -> None:
        self.values = size, rate, fixed


class Derived(Base):
    def __init__(self, *, own: int = 1, **arguments) -> None:
        super().__init__(fixed="b", **arguments)


def test_descriptions_hold_inherited_defaults_but_not_fixed_values():
    one = Derived(rate=0.25)
    assert one.arguments == {"own": 1, "size": 3, "rate": 0.25}
    assert Derived(**one.arguments).values == one.values == (3, 0.25, "b")
