"""Rendered tables and pages, against the stored results."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from experiments import markdown, render

ROOT = Path(__file__).parents[2]


@pytest.fixture
def copy(tmp_path, monkeypatch):
    for name in ("README.md", "docs", "configs"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name)
        else:
            shutil.copy(source, tmp_path / name)
    monkeypatch.setattr(render, "ROOT", tmp_path)
    return tmp_path


def pages(folder):
    files = [folder / "README.md", *folder.glob("docs/*.md"), *folder.glob("configs/*/*.yaml")]
    return {file.relative_to(folder): file.read_text() for file in files}


def test_pages_and_comments_are_those_of_the_stored_results(copy):
    """`python -m experiments render` was run after the last change of a result or a page."""
    before = pages(copy)
    render.render()
    assert pages(copy) == before


@pytest.mark.integration
def test_lost_tables_and_comments_are_rendered_again(copy):
    before = pages(copy)
    for file in (copy / "README.md", *copy.glob("docs/*.md")):
        file.write_text(re.sub(r"(<!-- (\w+) -->\n).*?(<!-- /\2 -->)", r"\1\3", file.read_text(), flags=re.DOTALL))
    for name in render.STUDIES:
        (copy / "docs" / f"{name}.md").unlink()
    recipe = copy / "configs" / "bc" / "cartpole.yaml"
    recipe.write_text(re.sub(r"# Measured.*?(?=model:)", "", recipe.read_text(), flags=re.DOTALL))
    assert pages(copy) != before
    render.render()
    assert pages(copy) == before


def test_every_table_has_a_place_and_every_place_a_table():
    found = [
        name
        for file in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))
        for name in re.findall(r"^<!-- (\w+) -->$", file.read_text(), re.MULTILINE)
    ]
    assert set(found) == set(render.TABLES)
    assert len(found) == len(set(found))


def test_cells():
    row = {
        "normalized_score": {"mean": 0.98765, "mean_ci95": [0.9, 1.0], "values": [0.9, 1.0]},
        "return_mean": {"mean": 1.23456, "mean_ci95": [1.0, 2.0], "values": [1.0]},
        "wall_seconds": 99.6,
    }
    assert render.score_of(row, bold=True) == "**0.988** [0.900, 1.000]"
    assert render.return_of(row) == "1.235"  # one seed has no interval
    assert render.duration(row) == "100 s"
    assert render.duration({"wall_seconds": 750}) == "12 min"


def test_a_markdown_table_from_columns():
    made = markdown.columns([1, 2], ("n", str), ("square", lambda n: n * n))
    assert made == "| n | square |\n|---|---|\n| 1 | 1 |\n| 2 | 4 |"


def test_only_marked_text_is_replaced(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- a -->\nold\n<!-- /a -->\nafter\n")
    markdown.put_between_markers(page, {"a": "new", "b": "elsewhere"})
    assert page.read_text() == "before\n<!-- a -->\nnew\n<!-- /a -->\nafter\n"
