"""Cache key of an environment: its settings and source code."""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium
from gymnasium.vector import SyncVectorEnv

from lit_imitation.envs.make import Backend, make, make_single
from lit_imitation.utils.cache import Key, record_opened_files


def environment_key(env_id: str, backend: Backend, env_kwargs: dict[str, Any], **settings: Any) -> Key:
    """Build a `Key` from an environment's specification and the sources of its class, wrappers and their packages.

    Args:
        env_id: Registered Gymnasium id, or `module:Id-v0`.
        backend: Backend, as in `make`.
        env_kwargs: Arguments of the environment.
        **settings: Other settings that the result depends on.

    Returns:
        The key.
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
    except gymnasium.error.Error:  # EnvPool alone provides this id
        return key
    for field in dataclasses.fields(spec):
        key.add(f"spec.{field.name}", getattr(spec, field.name))
    return key
