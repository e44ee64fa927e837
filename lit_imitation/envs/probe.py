"""Checks of third-party environments on their first reset and step.

Gymnasium's checker warns about style on every step. These checks reject only unusable values, name the environment
and method, and cost nothing after the first step.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import Env, Space, Wrapper
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from gymnasium.vector import AutoresetMode, VectorEnv

from lit_imitation.errors import ConfigError

TRUSTED_PACKAGES = ("gymnasium.", "lit_imitation.")
"""Packages whose environments are not checked."""

_PARTS = ("observation", "reward", "terminated", "truncated", "info")


def probe(env: Env[Any, Any], env_id: str) -> None:
    """Check an environment's spaces now, and its first reset and step when they happen.

    Raises:
        ConfigError: A space is missing. Later, `reset` and `step` raise it if they return an unusable value.
    """
    for name in ("observation_space", "action_space"):
        _check_space(env, name, env_id)
    layer = env
    while isinstance(layer, Wrapper) and type(layer).__module__.startswith("gymnasium."):
        layer = layer.env
    if not type(layer).__module__.startswith(TRUSTED_PACKAGES):
        _Probe(layer, env_id).install()


def probe_vector(envs: VectorEnv[Any, Any, Any], env_id: str, num_envs: int) -> None:
    """Check a batched environment as `probe` does."""
    if type(envs.unwrapped).__module__.startswith(TRUSTED_PACKAGES):
        return
    for name in ("single_observation_space", "single_action_space", "observation_space", "action_space"):
        _check_space(envs, name, env_id)
    if envs.num_envs != num_envs:
        raise ConfigError(f"{env_id}: its batched version has num_envs {envs.num_envs} instead of {num_envs}")
    if not isinstance((envs.metadata or {}).get("autoreset_mode"), AutoresetMode):
        raise ConfigError(
            f"{env_id}: its batched version does not declare when it starts the next episode: set "
            'metadata["autoreset_mode"] to AutoresetMode.NEXT_STEP or SAME_STEP'
        )
    _VectorProbe(envs, env_id).install()


def _check_space(env: Any, name: str, env_id: str) -> None:
    try:
        space = getattr(env, name)
    except AttributeError as error:
        raise ConfigError(f"{env_id}: it has no {name}; set it to a gymnasium.spaces.Space in __init__") from error
    if not isinstance(space, Space):
        raise ConfigError(f"{env_id}: its {name} is a {type(space).__name__}, not a gymnasium.spaces.Space")


class _Probe:
    """Temporary replacement of an environment's `reset` and `step` that checks the first call of each."""

    def __init__(self, env: Any, env_id: str) -> None:
        self.env, self.env_id = env, env_id

    def install(self) -> None:
        """Replace the environment's methods by bound methods of this object, so that deep copies get their own."""
        if {"reset", "step"} & set(getattr(self.env, "__dict__", ())):
            return
        try:
            self.env.reset, self.env.step = self.reset, self.step
        except AttributeError:  # a class with slots
            return

    def reset(self, **arguments: Any) -> Any:
        """Check the first reset."""
        del self.env.reset
        parameters = inspect.signature(self.env.reset).parameters.values()
        takes = {parameter.name for parameter in parameters}
        missing = [name for name in arguments if name not in takes]
        if missing and not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
            raise self.error(
                "reset", f"takes no {' and no '.join(missing)}; it must be reset(*, seed=None, options=None)"
            )
        answer = self.env.reset(**arguments)
        if not isinstance(answer, tuple) or len(answer) != 2 or not isinstance(answer[1], dict):
            raise self.error("reset", f"returned {_summarize(answer)}; it must return (observation, info), info a dict")
        self.observation(answer[0], "reset")
        return answer

    def step(self, action: Any) -> Any:
        """Check the first step."""
        del self.env.step
        answer = self.env.step(action)
        if not isinstance(answer, tuple) or len(answer) != 5:
            old = ", as in the old Gym API" if isinstance(answer, tuple) else ""
            raise self.error("step", f"returned {_summarize(answer)}{old}; it must return ({', '.join(_PARTS)})")
        self.observation(answer[0], "step")
        for name, value in zip(_PARTS[1:4], answer[1:4], strict=True):
            self.number(name, value)
        if not isinstance(answer[4], dict):
            raise self.error("step", f"returned {_summarize(answer[4])} as info; it must be a dict")
        return answer

    def observation(self, value: Any, method: str) -> None:
        """Check that an observation fits the environment's space."""
        if what := _find_mismatch(value, self.env.observation_space):
            raise self.error(method, f"returned an observation {what}")

    def number(self, name: str, value: Any) -> None:
        """Check a reward or flag."""
        array = np.asarray(value)
        if array.size != 1 or array.dtype.kind not in "biuf":
            what = "one number" if name == "reward" else "True or False"
            raise self.error("step", f"returned {_summarize(value)} as {name}; it must be {what}")

    def error(self, method: str, what: str) -> ConfigError:
        return ConfigError(f"{self.env_id}: {method}() {what}")


class _VectorProbe(_Probe):
    """Probe of a batched environment."""

    def observation(self, value: Any, method: str) -> None:
        space, number = self.env.single_observation_space, self.env.num_envs
        if not isinstance(space, Box | Discrete | MultiDiscrete | MultiBinary):
            return
        array = np.asarray(value)
        wanted = (number, *(space.shape or ()))
        if array.shape != wanted:
            raise self.error(method, f"returned observations {list(array.shape)}; {space} needs {list(wanted)}")
        if what := _find_mismatch(array[0], space):
            raise self.error(method, f"returned an observation {what}")

    def number(self, name: str, value: Any) -> None:
        array, number = np.asarray(value), self.env.num_envs
        if array.shape[:1] != (number,) or array.size != number or array.dtype.kind not in "biuf":
            raise self.error("step", f"returned {_summarize(value)} as {name}; it must be an array [{number}]")


def _find_mismatch(value: Any, space: Space[Any], flattened: bool = False) -> str:
    """Describe why an observation does not fit its space; empty if it fits.

    Args:
        value: Observation.
        space: Observation space of the environment.
        flattened: Check only the number of elements, for a part of an observation that will be flattened.
    """
    if isinstance(space, Dict):
        if not isinstance(value, Mapping) or not set(space.spaces) <= set(value):
            keys = f"a dict of {sorted(map(str, value))}" if isinstance(value, Mapping) else _summarize(value)
            return f"that is {keys}; the observation space has {sorted(map(str, space.spaces))}"
        inner = {key: _find_mismatch(value[key], one, True) for key, one in space.spaces.items()}
        return next((f"whose {key!r} is one {what}" for key, what in inner.items() if what), "")
    if isinstance(space, Tuple):
        if not isinstance(value, tuple | list) or len(value) != len(space.spaces):
            return f"that is {_summarize(value)}; the observation space has {len(space.spaces)} parts"
        parts = (_find_mismatch(part, one, True) for one, part in zip(space.spaces, value, strict=True))
        return next((what for what in parts if what), "")
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        return f"that is {_summarize(value)}, not an array; the observation space is {space}"
    if isinstance(space, Box | Discrete | MultiDiscrete | MultiBinary):
        shape = space.shape or ()
        if flattened and array.size == math.prod(shape):
            array = array.reshape(shape)
        if array.dtype.kind not in "biuf" or array.shape != shape:
            return f"that is {_summarize(value)}; the observation space is {space}"
        if flattened and isinstance(space, Box):
            return ""
        if not np.can_cast(array.dtype, space.dtype, "same_kind"):
            return f"of dtype {array.dtype}, which does not fit the observation space {space}"
        if not isinstance(space, Box) and not space.contains(array.astype(space.dtype)):
            return f"{array.tolist()}, which is not in the observation space {space}"
    return ""


def _summarize(value: Any) -> str:
    """Describe a value in a few words."""
    if isinstance(value, np.ndarray):
        return f"an array {list(value.shape)} of {value.dtype}"
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return repr(value) if value is None or isinstance(value, bool | int | float) else f"a {type(value).__name__}"
