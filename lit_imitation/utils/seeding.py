"""Seed derivation and isolated random streams."""

from __future__ import annotations

import random
import zlib
from typing import Any

import numpy as np
import torch


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Derive a seed in [0, 2³¹) for one purpose, independent of other purposes: `derive_seed(0, "split")`."""
    words = [zlib.crc32(str(word).encode()) for word in purpose]
    return int(np.random.SeedSequence([seed, *words]).generate_state(1)[0] >> 1)


class RandomStream:
    """Context manager that swaps the global random streams of Python, NumPy and torch for its own.

    Code inside the block is independent of random numbers drawn before, and leaves no trace for code after it. When
    the block is entered again, its stream continues.

    Args:
        seed: Seed of the streams inside the block.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._inner: tuple[Any, ...] | None = None
        self._outer: tuple[Any, ...] = ()

    def __enter__(self) -> None:
        self._outer = _get()
        if self._inner is None:
            random.seed(self._seed)
            np.random.seed(self._seed)  # noqa: NPY002 - third-party experts sample from this stream
            torch.manual_seed(self._seed)
        else:
            _set(*self._inner)

    def __exit__(self, *exception: object) -> None:
        self._inner = _get()
        _set(*self._outer)


def get_states() -> dict[str, Any]:
    """States of the global random streams, as primitives and tensors for a checkpoint."""
    (version, words, gauss), (name, keys, *rest), cpu, cuda = _get()
    return {
        "python": [version, torch.tensor(words), gauss],  # 625 numbers take long to write one by one
        "numpy": [str(name), torch.from_numpy(keys.astype(np.int64)), *rest],
        "torch": cpu,
        "cuda": cuda,
    }


def set_states(states: dict[str, Any]) -> None:
    """Inverse of `get_states`."""
    version, words, gauss = states["python"]
    name, keys, *rest = states["numpy"]
    _set(
        (version, tuple(words.tolist()), gauss),
        (name, keys.numpy().astype(np.uint32), *rest),
        states["torch"],
        states["cuda"],
    )


def _get() -> tuple[Any, ...]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda  # noqa: NPY002


def _set(python: Any, numpy: Any, cpu: torch.Tensor, cuda: list[torch.Tensor]) -> None:
    random.setstate(python)
    np.random.set_state(numpy)  # noqa: NPY002
    torch.set_rng_state(cpu)
    if cuda and torch.cuda.is_available():  # the checkpoint's machine may have had more or fewer GPUs
        for device, state in zip(range(torch.cuda.device_count()), cuda, strict=False):
            torch.cuda.set_rng_state(state, device)
