"""Package versions and hardware."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import torch

PACKAGES = ("torch", "lightning", "gymnasium", "numpy", "mujoco", "envpool", "box2d")


def installed_version(package: str) -> str | None:
    """Installed version of a package, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def versions() -> dict[str, str]:
    """Versions of Python, this package and its main dependencies, and the name of the device."""
    found = {name: installed_version(name) for name in PACKAGES}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    base = {"python": platform.python_version(), "lit_imitation": version("lit-imitation"), "device": device}
    return base | {name: number for name, number in found.items() if number}
