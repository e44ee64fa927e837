"""What identifies an environment between runs: its settings and its source."""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium
from gymnasium.vector import SyncVectorEnv

from lit_imitation.envs.make import Backend, make, make_single
from lit_imitation.utils.cache import Key, record_opened_files


def environment_key(env_id: str, backend: Backend, env_kwargs: dict[str, Any], **settings: Any) -> Key:
    """A `Key` with the environment's specification and the sources of its class, its wrappers, and their packages.

    Args:
        env_id: a registered Gymnasium id, or `module:Id-v0`.
        backend: of `make`.
        env_kwargs: passed to the environment.
        **settings: what the result depends on besides.
    """
    key = Key(env_id=env_id, backend=backend, **settings)
    with record_opened_files(key.opened):
        in_process = backend not in ("sync", "async")
        layer: Any = make(env_id, 1, 0, backend, **env_kwargs) if in_process else make_single(env_id, **env_kwargs)
        outermost = layer
        while layer is not None:
            key.add_code(type(layer))
            if isinstance(layer, SyncVectorEnv):
                layer = layer.envs[0]
            else:
                wrapper = isinstance(layer, gymnasium.Wrapper | gymnasium.vector.VectorWrapper)
                layer = layer.env if wrapper else None
        outermost.close()
    for name, value in env_kwargs.items():
        key.add(f"env_kwargs.{name}", value)
    module, _, name = env_id.rpartition(":")
    if module:
        key.add_module(module)
    try:
        spec = gymnasium.spec(name)
    except gymnasium.error.Error:  # an id that only EnvPool has
        return key
    for field in dataclasses.fields(spec):
        key.add(f"spec.{field.name}", getattr(spec, field.name))
    return key
