"""Atomic writing and safe reading of checkpoints."""

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
    """Writes a checkpoint next to its target and renames it, so that a kill cannot damage the previous checkpoint.

    Lightning's own plugin moves the file from the system's temporary folder, which is not atomic across disks.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write `checkpoint` to `path` atomically."""
        check_local(str(path), "checkpoint")
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, buffer.getvalue())

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint, verify its checksums, and execute nothing in it.

        Raises:
            ConfigError: The path is a URL, the file is damaged or not a checkpoint, or optimizer states are not
                ordinary numbers.
        """
        checkpoint = read_checkpoint(path)
        if not isinstance(checkpoint.get("state_dict", {}), dict):
            raise ConfigError(f"{path} holds a state_dict that is not a dictionary")
        for key in ("optimizer_states", "current_model_state"):  # the latter holds weights before averaging
            _check_numbers(checkpoint.get(key), f"{path}: {key}")
        return checkpoint


def _check_numbers(held: Any, what: str) -> None:
    """Raise `ConfigError` for a tensor that is complex, contains NaN, or exceeds its stored data."""
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
