"""Type checks of constructor arguments."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces

from lit_imitation import BC, CategoricalPolicy, DAggerCallback, DemonstrationDataModule, LinearBeta
from lit_imitation.errors import ConfigError
from lit_imitation.policies import Policy

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
