"""Experts trained with Stable-Baselines3, loaded from its zip files."""

from __future__ import annotations

import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from lit_imitation.errors import ExpertError, require
from lit_imitation.experts.base import Array, checked, space_mismatch
from lit_imitation.rollout import Actor
from lit_imitation.utils.files import expand_user
from lit_imitation.utils.integrity import check_file
from lit_imitation.utils.spaces import flat_space, is_flattenable
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
"""Errors of reading a zip or JSON file; `RecursionError` is a `RuntimeError`."""

LARGEST_DATA = 2**26
"""Maximum size in bytes of the JSON in a zip; that of a model has about ten thousand."""


def load_sb3(
    path: str | Path,
    observation_space: Space[Any],
    action_space: Space[Any],
    *,
    deterministic: bool = True,
    trust: bool = False,
) -> Actor:
    """Load a PPO, A2C, SAC, TD3, DDPG or DQN model on the CPU.

    The zip does not have the statistics of a `VecNormalize` wrapper. For a model trained with one, write a function
    that applies them (`package.module:function`).

    Args:
        path: The file that `model.save` wrote.
        observation_space: Space of a single environment, as `make` gives it.
        action_space: Space of a single environment.
        deterministic: As in `model.predict`; draws come from torch's global stream.
        trust: Whether to open the file, which can execute code.

    Raises:
        ExpertError: The file is not trusted or is not such a zip, the algorithm is unknown, or the model was made for
            other spaces.
        MissingExtraError: Stable-Baselines3 is not installed.
    """
    name, path = f"sb3:{path}", expand_user(path)
    if not (trust or is_trusted()):
        raise ExpertError(
            f"expert {name}: a Stable-Baselines3 zip contains pickles, and opening it executes the code they name. "
            "If you trust the source of the file, allow it: --trust true on the command line, "
            "data.trust: true in a recipe, trust=True in Python"
        )
    stable_baselines3 = require("stable_baselines3", "sb3", f"expert {name}")
    algorithm = getattr(stable_baselines3, _algorithm(path))
    # Schedules were pickled as bytecode of the Python that wrote them; acting does not need them.
    unused = {"learning_rate": 0.0, "lr_schedule": _zero, "clip_range": _zero, "clip_range_vf": None}
    try:
        model = algorithm.load(path, device="cpu", custom_objects=unused)
    except Exception as error:  # unpickling can fail in any way
        raise ExpertError(f"expert {name} cannot be loaded: {type(error).__name__}: {error}") from error
    if space_mismatch(model.action_space, action_space, bounds=True):
        raise ExpertError(f"expert {name} acts in {model.action_space}, the environment in {action_space}")

    reads = model.observation_space
    misfit = f"expert {name} reads {reads}, the environment gives {observation_space}"
    flat = flat_space(reads) if isinstance(reads, spaces.Dict) and is_flattenable(reads) else None
    if isinstance(reads, spaces.Dict) and (flat is None or space_mismatch(flat, observation_space, bounds=True)):
        raise ExpertError(f"{misfit} (dictionaries flattened)")

    def predict(observation: Array) -> Any:
        given: Any = observation if flat is None else flat.unflatten(observation)  # `make` has flattened it
        return model.predict(given, deterministic=deterministic)

    try:  # Stable-Baselines3 itself knows which observations it can transpose or flatten
        zeros = np.zeros((1, *(observation_space.shape or ())), observation_space.dtype)
        # Zeros are not a one-hot vector.
        sample: Any = zeros[0] if flat is None else flat.flatten(reads.sample())
        _, state = predict(sample[None])
    except Exception as error:  # of a different type for each mismatch
        raise ExpertError(f"{misfit}: {error}") from error
    if state is not None:
        raise ExpertError(
            f"expert {name} is recurrent: it needs its state back at every step. Write a class that keeps the "
            "state and clears it in reset(mask), and name it by data.expert.class_path"
        )
    return checked(predict, observation_space, action_space, name)


_SETTINGS = {
    "policy_delay": "TD3",
    "target_entropy": "SAC",
    "exploration_fraction": "DQN",
    "clip_range": "PPO",
    "gae_lambda": "A2C",
}
"""A setting that each algorithm saves and the algorithms below it do not save."""


def _zero(_progress: float) -> float:
    return 0.0


def _algorithm(path: str | Path) -> str:
    """Name of the class that wrote the zip, read from its JSON only."""
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
    # The policy may be of any class, so the settings identify the algorithm. DDPG is saved as its general case TD3.
    found = [name for setting, name in _SETTINGS.items() if setting in data]
    if not found or module.partition(".")[0] == "sb3_contrib":
        raise ExpertError(
            f"expert sb3:{path} has a policy of module {module}; supported are PPO, A2C, SAC, TD3, DDPG and DQN. For "
            "another algorithm write a function (package.module:function)"
        )
    return found[0]
