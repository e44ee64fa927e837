"""Checkpoints that are whole or not there."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from lit_imitation.errors import ConfigError
from lit_imitation.policies.checkpoints import read_checkpoint
from lit_imitation.utils.files import atomic_write, check_local


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target and renames, so that a kill during the write leaves the previous checkpoint whole.

    Lightning's own writes to the system's temporary folder first, and moves: a copy, where that is another disk.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write `checkpoint` to `path`."""
        check_local(str(path), "checkpoint")
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, buffer.getvalue())

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint whose members agree with their checksums; nothing in it is executed.

        Raises:
            ConfigError: a URL, no checkpoint, damaged, or with optimizer states that are no numbers.
        """
        checkpoint = read_checkpoint(path)
        if not isinstance(checkpoint.get("state_dict", {}), dict):
            raise ConfigError(f"{path} holds a state_dict that is no dictionary")
        for key in ("optimizer_states", "current_model_state"):  # an average of weights keeps the last ones there
            _check_numbers(checkpoint.get(key), f"{path}: {key}")
        return checkpoint


def _check_numbers(held: Any, what: str) -> None:
    """Raise `ConfigError` for a tensor that is complex, or holds NaN, or is larger than what is stored of it."""
    if isinstance(held, dict):
        for key, value in held.items():
            _check_numbers(value, f"{what}.{key}")
    elif isinstance(held, list | tuple):
        for i, value in enumerate(held):
            _check_numbers(value, f"{what}[{i}]")
    elif isinstance(held, torch.Tensor):
        if held.layout != torch.strided or held.numel() * held.element_size() > held.untyped_storage().nbytes():
            raise ConfigError(f"{what} is not a plain tensor")
        if held.is_complex():
            raise ConfigError(f"{what} holds {held.dtype}; real numbers are needed")
        if held.is_floating_point() and held.isnan().any():
            raise ConfigError(f"{what} holds nan; the file is damaged or its training diverged")
