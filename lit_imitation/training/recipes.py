"""The recipes that come with the package: finding one by its name, and listing them all."""

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
"""The subfolder of settings that stack behind a recipe."""


class Recipe(NamedTuple):
    """What the list of recipes says about one."""

    name: str
    """`bc/lunar_lander`, as `--config` takes it."""
    task: str
    """The environment's id; empty for an overlay."""
    method: str
    score: str
    """Measured, by the recipe's first comment: the normalized score, or the return where no expert is compared with."""
    time: str
    """Of a run, by the same comment."""
    text: str
    """The first line of the comment."""


def recipe_files() -> dict[str, Path]:
    """The files of all recipes and overlays by their names."""
    return {path.relative_to(FOLDER).with_suffix("").as_posix(): path for path in sorted(FOLDER.glob("*/*.yaml"))}


def find_recipe(name: str) -> str:
    """The file that `--config name` means.

    A file of that path comes first, with or without `.yaml`; then the recipe of that name. Text that is itself YAML is
    returned as it is.

    Raises:
        ConfigError: neither a file nor a recipe; the text names similar recipes.
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
        f"--config {name}: no such file, and no recipe of that name; {near}`lit-imitation recipes` lists the recipes"
    )


def with_recipes_found(arguments: list[str]) -> list[str]:
    """Command-line arguments in which every `--config NAME` names a file."""
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
    """One entry of the list."""
    content = recipe_files()[name].read_text(encoding="utf-8")
    comment = " ".join(line.lstrip("# ") for line in content.splitlines() if line.startswith("#"))
    measured = comment.partition("Measured, ")[2]
    time = re.search(r": ([^:]*?)(?: a run)? on 2 cores", measured)
    score = re.search(r"normali[sz]ed score (-?[\d.]*\d)", measured) or re.search(r"(return -?[\d.]*\d)", measured)
    config: dict[str, Any] = yaml.safe_load(content)
    data = config.get("data", {}).get("init_args", {})
    return Recipe(
        name,
        data.get("env_id", ""),
        "" if name.startswith(f"{OVERLAYS}/") else _method(config),
        score[1] if score else "",
        time[1] if time else "",
        content.partition("\n")[0].lstrip("# "),
    )


def _method(config: dict[str, Any]) -> str:
    """`BC`, `DAgger`, `GAIL`, …; of reinforcement learning its learner."""
    model, trainer = config["model"], config.get("trainer", {})
    if any("DAgger" in callback["class_path"] for callback in trainer.get("callbacks", [])):
        return "DAgger"
    name = str(model["class_path"]).rpartition(".")[2]
    if name == "RL":
        learner = model.get("init_args", {}).get("learner", {})
        name = str(learner.get("class_path", "PPO")).rpartition(".")[2]
    return name


def listing(pattern: str = "") -> str:
    """A table of the recipes whose name, task or method contains `pattern`, then the overlays.

    Raises:
        ConfigError: there are none.
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
        lines += [""] * bool(lines) + ["stacked behind a recipe with a second --config:"]
        lines += [f"{one.name:20}{one.text}" for one in overlays]
    return "\n".join(lines)
