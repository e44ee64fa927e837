"""Experts trained with Stable-Baselines3, from its zip files."""

from __future__ import annotations

import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from lit_imitation.errors import ExpertError, require
from lit_imitation.experts.base import Array, Expert, checked, space_mismatch
from lit_imitation.utils.files import expand_user
from lit_imitation.utils.integrity import check_file
from lit_imitation.utils.trust import is_trusted

UNREADABLE = (
    OSError,
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    RuntimeError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What reading a zip or JSON raises; recursion is a runtime error."""

LARGEST_DATA = 2**26
"""Bytes of the JSON in a zip; a model's has some ten thousand."""


def load_sb3(
    path: str | Path,
    observation_space: Space[Any],
    action_space: Space[Any],
    *,
    deterministic: bool = True,
    trust: bool = False,
) -> Expert:
    """The model in the zip, on the CPU: PPO, A2C, SAC, TD3, DDPG or DQN.

    The statistics of a `VecNormalize` wrapper are not in the zip: for a model trained under one, write a function that
    applies them (`package.module:function`).

    Args:
        path: what `model.save` wrote.
        observation_space: the environment's.
        action_space: the environment's.
        deterministic: as in `model.predict`; draws come from torch's global stream.
        trust: permit the file to execute code, which opening it means.

    Raises:
        ExpertError: not trusted, not such a zip, an unknown algorithm, or a model for other spaces.
        MissingExtraError: Stable-Baselines3 is not installed.
    """
    name, path = f"sb3:{path}", expand_user(path)
    if not (trust or is_trusted()):
        raise ExpertError(
            f"expert {name}: a Stable-Baselines3 zip holds pickles, and opening it executes whatever code they name. "
            "If you know where the file comes from, allow it: --trust true on the command line, "
            "data.trust: true in a recipe, trust=True in Python"
        )
    stable_baselines3 = require("stable_baselines3", "sb3", f"expert {name}")
    algorithm = getattr(stable_baselines3, _algorithm(path))
    # Schedules were pickled as bytecode of the Python that wrote them; acting needs none.
    unused = {"learning_rate": 0.0, "lr_schedule": _zero, "clip_range": _zero, "clip_range_vf": None}
    try:
        model = algorithm.load(path, device="cpu", custom_objects=unused)
    except Exception as error:  # unpickling can fail in any way
        raise ExpertError(f"expert {name} cannot be loaded: {type(error).__name__}: {error}") from error
    if space_mismatch(model.action_space, action_space, bounds=True):
        raise ExpertError(f"expert {name} acts in {model.action_space}, the environment in {action_space}")

    reads = model.observation_space
    misfit = f"expert {name} reads {reads}, the environment gives {observation_space}"
    if isinstance(reads, spaces.Dict) and (
        not reads.is_np_flattenable or space_mismatch(spaces.flatten_space(reads), observation_space, bounds=True)
    ):
        raise ExpertError(f"{misfit} (dictionaries flattened)")

    def predict(observation: Array) -> Any:
        given: Any = observation
        if isinstance(reads, spaces.Dict):  # which `make` has flattened
            rows: list[Any] = [spaces.unflatten(reads, row) for row in observation]
            given = {key: np.stack([row[key] for row in rows]) for key in reads}
        return model.predict(given, deterministic=deterministic)

    try:  # Stable-Baselines3 itself knows which observations it can transpose or flatten
        zeros = np.zeros((1, *(observation_space.shape or ())), observation_space.dtype)
        # Zeros are no one-hot vector.
        sample: Any = spaces.flatten(reads, reads.sample()) if isinstance(reads, spaces.Dict) else zeros[0]
        _, state = predict(sample[None])
    except Exception as error:  # and raises a different one for each way they can be wrong
        raise ExpertError(f"{misfit}: {error}") from error
    if state is not None:
        raise ExpertError(
            f"expert {name} is recurrent: it wants its state back at every step. Write a function that keeps it "
            "(package.module:function)"
        )
    return checked(predict, action_space, name)


_SETTINGS = {
    "policy_delay": "TD3",
    "target_entropy": "SAC",
    "exploration_fraction": "DQN",
    "clip_range": "PPO",
    "gae_lambda": "A2C",
}
"""A setting that each algorithm saves and those after it do not."""


def _zero(_progress: float) -> float:
    return 0.0


def _algorithm(path: str | Path) -> str:
    """The name of the class that wrote the zip, from the JSON in it alone."""
    try:
        with zipfile.ZipFile(check_file(path, ExpertError)) as archive:
            if archive.getinfo("data").file_size > LARGEST_DATA:
                raise ValueError("its member 'data' is too large")
            data = json.loads(archive.read("data"))
        module = str(data["policy_class"]["__module__"])
    except FileNotFoundError as error:
        raise ExpertError(f"expert sb3:{path}: no such file") from error
    except UNREADABLE as error:
        raise ExpertError(f"expert sb3:{path} is not a Stable-Baselines3 zip ({error})") from error
    # The policy may be of anybody's class, so the settings tell; DDPG is written as the TD3 that it is.
    found = [name for setting, name in _SETTINGS.items() if setting in data]
    if not found or module.partition(".")[0] == "sb3_contrib":
        raise ExpertError(
            f"expert sb3:{path} has a policy of module {module}; known are PPO, A2C, SAC, TD3, DDPG and DQN. For "
            "another algorithm write a function (package.module:function)"
        )
    return found[0]
