"""What figures are made with."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import torch

PACKAGES = ("torch", "lightning", "gymnasium", "numpy", "mujoco", "envpool", "box2d")


def installed(package: str) -> str | None:
    """The installed version, None without."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def versions() -> dict[str, str]:
    """Of Python, this package, the device, and what figures depend on."""
    found = {name: installed(name) for name in PACKAGES}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    ours = {"python": platform.python_version(), "lit_imitation": version("lit-imitation"), "device": device}
    return ours | {name: number for name, number in found.items() if number}
