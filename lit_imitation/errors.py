"""The errors a user can mend: each says what was wrong, where, and what to do."""

from __future__ import annotations

import importlib
from types import ModuleType


class LitImitationError(Exception):
    """Every error that this package raises on purpose; the command line prints its text without a traceback."""


class DemonstrationError(LitImitationError):
    """A demonstration file or array is not what it should be; the text names file, key and row."""


class ExpertError(LitImitationError):
    """An expert cannot be found, cannot be loaded, or answered with something that is not an action."""


class UnsupportedSpaceError(LitImitationError):
    """An observation or action space that no policy here can read or write."""


class ConfigError(LitImitationError):
    """A setting of a recipe or of the command line that cannot work."""


class UsageError(ConfigError):
    """A command line or a recipe that cannot be understood."""

    exit_status = 2
    """As argparse ends a command."""


class TrainingError(LitImitationError):
    """Training stopped itself: a loss that is not finite, an environment that broke."""


class MissingExtraError(LitImitationError, ImportError):
    """An optional dependency is not installed; the text names the `pip install` that mends it."""


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """Import `module`, or raise `MissingExtraError` naming the extra that brings it.

    Args:
        module: dotted name to import.
        extra: the extra of this package that installs it.
        purpose: what it is needed for, for the message ("environment LunarLander-v3").
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f'{purpose} needs {module.split(".")[0]}: pip install "lit-imitation[{extra}]"'
        ) from error
