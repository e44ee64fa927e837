"""The recipes that come with the package: lookup by name, and a list of all."""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from lit_imitation.errors import ConfigError
from lit_imitation.utils.files import expand_user

FOLDER = Path(__file__).parents[1] / "configs"
"""In a checkout a link to the top-level `configs`; in a wheel a copy of it."""

OVERLAYS = "trainer"
"""Subfolder of the overlays, which are settings to put after a recipe."""


class Recipe(NamedTuple):
    """One entry of the list of recipes."""

    name: str
    """Name that `--config` accepts, like `bc/lunar_lander`."""
    task: str
    """Id of the environment; `your file` for a recipe without one; empty for an overlay."""
    method: str
    """Name of the method; empty for an overlay."""
    score: str
    """Measured score, from the recipe's first comment: the normalized score, or the return if it has no expert."""
    time: str
    """Duration of a run, from the same comment."""
    text: str
    """First line of the comment."""


def recipe_files() -> dict[str, Path]:
    """Files of all recipes and overlays by name."""
    return {path.relative_to(FOLDER).with_suffix("").as_posix(): path for path in sorted(FOLDER.glob("*/*.yaml"))}


def find_recipe(name: str) -> str:
    """Find the file that `--config name` means.

    A file of that path takes precedence, with or without `.yaml`, over the recipe of that name.

    Args:
        name: Path of a file, name of a recipe, or YAML text.

    Returns:
        Path of the file; YAML text is returned unchanged.

    Raises:
        ConfigError: The name is neither a file nor a recipe; the message names similar recipes.
    """
    if "\n" in name or name.lstrip().startswith("{"):
        return name
    path = expand_user(name)
    for file in (path, path.with_name(f"{path.name}.yaml")) if path.name else ():
        if file.is_file():
            return str(file)
    files = recipe_files()
    wanted = name.removesuffix(".yaml").removeprefix("configs/")
    if wanted in files:
        return str(files[wanted])
    similar = [known for known in files if known.rpartition("/")[2] == wanted.rpartition("/")[2]]
    similar += [known for known in get_close_matches(wanted, files, n=3) if known not in similar]
    near = f"did you mean {' or '.join(similar)}? " if similar else ""
    raise ConfigError(
        f"--config {name}: no file or recipe has that name; {near}`lit-imitation recipes` lists the recipes"
    )


def resolve_recipes(arguments: list[str]) -> list[str]:
    """Replace every `--config NAME` among command-line arguments by the recipe's file."""
    found = list(arguments)
    for i, argument in enumerate(arguments):
        option, assigned, value = argument.partition("=")
        if option not in ("--config", "-c"):
            continue
        if assigned:
            found[i] = f"{option}={find_recipe(value)}"
        elif i + 1 < len(arguments):
            found[i + 1] = find_recipe(arguments[i + 1])
    return found


def read_recipe(name: str) -> Recipe:
    """Read the list entry of one recipe."""
    content = recipe_files()[name].read_text(encoding="utf-8")
    comment = " ".join(line.lstrip("# ") for line in content.splitlines() if line.startswith("#"))
    measured = comment.partition("Measured, ")[2]
    time = re.search(r": ([^:]*?)(?: a run)? on 2 cores", measured)
    score = re.search(r"normali[sz]ed score (-?[\d.]*\d)", measured) or re.search(r"(return -?[\d.]*\d)", measured)
    config: dict[str, Any] = yaml.safe_load(content)
    data = config.get("data", {}).get("init_args", {})
    overlay = name.startswith(f"{OVERLAYS}/")
    return Recipe(
        name,
        "" if overlay else data.get("env_id", "your file"),
        "" if overlay else _method(config),
        score[1] if score else "",
        time[1] if time else "",
        content.partition("\n")[0].lstrip("# "),
    )


def _method(config: dict[str, Any]) -> str:
    """Name of a recipe's method, like `BC`, `DAgger` or `GAIL`; for reinforcement learning, that of its learner."""
    model, trainer = config["model"], config.get("trainer", {})
    if any("DAgger" in callback["class_path"] for callback in trainer.get("callbacks", [])):
        return "DAgger"
    name = str(model["class_path"]).rpartition(".")[2]
    if name == "RL":
        learner = model.get("init_args", {}).get("learner", {})
        name = str(learner.get("class_path", "PPO")).rpartition(".")[2]
    return name


def listing(pattern: str = "") -> str:
    """Table of the recipes whose name, task or method contains `pattern`, followed by the overlays.

    Raises:
        ConfigError: No recipe or overlay matches.
    """
    every = [read_recipe(name) for name in recipe_files()]
    chosen = [one for one in every if pattern.lower() in " ".join((one.name, one.task, one.method)).lower()]
    if not chosen:
        raise ConfigError(f"no recipe has {pattern!r} in its name, task or method; `lit-imitation recipes` lists all")
    recipes, overlays = [one for one in chosen if one.task], [one for one in chosen if not one.task]
    lines = []
    if recipes:
        rows = [("recipe", "task", "method", "score", "time"), *(one[:5] for one in recipes)]
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        lines += [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        ]
    if overlays:
        lines += [""] * bool(lines) + ["overlays, added after a recipe with a second --config:"]
        lines += [f"{one.name:20}{one.text}" for one in overlays]
    return "\n".join(lines)
