"""Errors a user can fix: each says what was wrong, where, and what to do."""

from __future__ import annotations

import importlib
from types import ModuleType


class LitImitationError(Exception):
    """Base class of the package's own errors; the command line prints the text without a traceback."""


class DemonstrationError(LitImitationError):
    """Invalid demonstration file or array; the text names file, key and row."""


class ExpertError(LitImitationError):
    """An expert cannot be found or loaded, or returned something other than an action."""


class UnsupportedSpaceError(LitImitationError):
    """Observation or action space that no policy in this package supports."""


class ConfigError(LitImitationError):
    """Invalid setting in a recipe or on the command line."""


class UsageError(ConfigError):
    """Command line or recipe that cannot be parsed."""

    exit_status = 2
    """Exit status that argparse uses for usage errors."""


class TrainingError(LitImitationError):
    """Training had to stop: a loss is not finite, or an environment failed."""


class MissingExtraError(LitImitationError, ImportError):
    """Missing optional dependency; the text gives the `pip install` command that adds it."""


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """Import `module`, or raise `MissingExtraError` with the extra that installs it.

    Args:
        module: Dotted name of the module.
        extra: Extra of this package that installs the module.
        purpose: Feature that needs the module, for the message ("environment LunarLander-v3").

    Returns:
        The imported module.

    Raises:
        MissingExtraError: The module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f'{purpose} needs {module.split(".")[0]}: pip install "lit-imitation[{extra}]"'
        ) from error
