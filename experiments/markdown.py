"""Markdown that every table and page shares: tables, estimates with intervals, and text between markers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lit_imitation.utils.files import atomic_write


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(line) + " |" for line in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def columns(rows: Sequence[Any], *pairs: tuple[str, Callable[[Any], object]]) -> str:
    """A Markdown table with one line per row, from pairs of a column's heading and its function of the row."""
    return table([head for head, _ in pairs], [[str(cell(row)) for _, cell in pairs] for row in rows])


def estimate(value: float, ends: Sequence[float] | None, form: str = ".3f", bold: bool = False) -> str:
    """`0.981 [0.971, 0.991]`; without `ends` the value alone."""
    mark = "**" if bold else ""
    interval = f" [{ends[0]:{form}}, {ends[1]:{form}}]" if ends is not None else ""
    return f"{mark}{value:{form}}{mark}{interval}"


def options(given: Mapping[str, Any]) -> str:
    """`batch_size 64, gamma 0.99`."""
    return ", ".join(f"{name} {value}" for name, value in given.items())


def put_between_markers(page: Path, made: Mapping[str, str]) -> None:
    """Replace what `page` has between `<!-- NAME -->` and `<!-- /NAME -->`, for every name in `made` that it marks."""
    text = page.read_text(encoding="utf-8")
    for name, content in made.items():
        before, mark, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- /{name} -->")
        if mark:
            text = f"{before}{mark}{content}\n{end}{after}"
    atomic_write(page, text)


def put_into_comment(recipe: Path, measured: str) -> None:
    """Replace the part of a recipe's first comment that starts at "# Measured", or append it to the comment."""
    head, model, after = recipe.read_text(encoding="utf-8").partition("model:")
    atomic_write(recipe, head.partition("# Measured")[0] + measured + model + after)
