"""Sources of demonstrations: one reader per format, the same columns from each, and no code run from any file."""

from __future__ import annotations

from typing import Any

import gymnasium

from lit_imitation.data.array_files import read_file
from lit_imitation.data.columns import UNREADABLE, Columns
from lit_imitation.data.hugging_face import read_hugging_face
from lit_imitation.data.minari_datasets import read_minari
from lit_imitation.errors import DemonstrationError
from lit_imitation.utils.trust import refuse_url


def read_columns(source: str, observation_space: gymnasium.Space[Any] | None = None) -> Columns:
    """Read the columns of a file, of `minari:ID` or of `hf:NAME`.

    Args:
        source: Path or name of the source.
        observation_space: The environment's observation space, if there is one. If it was flattened from a Dict or
            Tuple (`original`), the dataset's observations are flattened in that order.

    Raises:
        DemonstrationError: The source is missing, damaged, of another format than its name says, lacks a key, or has
            other observation keys than the environment.
        MissingExtraError: The source's library is not installed.
    """
    refuse_url(source, "demonstrations", DemonstrationError)
    if not source.startswith(("minari:", "hf:")):
        return read_file(source)
    try:
        if source.startswith("minari:"):
            return read_minari(source, getattr(observation_space, "original", None))
        return read_hugging_face(source)
    except (
        *UNREADABLE,
        TypeError,
        AttributeError,
        LookupError,
        RecursionError,
    ) as error:  # missed by the reader's own checks
        raise DemonstrationError(f"{source}: cannot be read ({type(error).__name__}: {error})") from error
