"""Score tables from YAML: every method on every task, each over its seeds through `repeat`.

`python -m experiments table NAME` reads `experiments/tables/NAME.yaml` and writes `experiments/results/NAME.json`, one
entry per row with the results of every seed. An interrupted call resumes: `runs/tables/NAME` keeps finished seeds.

A table's file has `methods` and `tasks`; its rows are `METHOD/TASK` for all of them, or for the `tasks` that a method
names. The settings of a row come from the top of the file, its method, its task and its entry in `rows`, the later over
the earlier (`overrides`, `label` and `data` are merged):

    config:      a recipe's name or a whole recipe
    overrides:   arguments of `fit` in addition, {data.env_id: Hopper-v4}
    seeds:       how many; first_seed: the lowest
    label:       values copied into the result
    data:        fields of the recipe's `data` copied into the result, with the value where the recipe has none
    prepare:     a function of `experiments.measures` that returns the row with other settings, before it is run
    measure:     functions of `experiments.measures` whose dictionaries are added to the result
    compare:     further runs by name, each with `config` and `overrides`, for a measure

`{method}`, `{task}` and `{experts}` (the folder of published experts) are replaced in all text.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from lit_imitation.errors import ConfigError
from lit_imitation.training.recipes import find_recipe
from lit_imitation.training.repeat import repeat
from lit_imitation.utils.files import atomic_write

ROOT = Path(__file__).parents[1]
TABLES, RESULTS = ROOT / "experiments" / "tables", ROOT / "experiments" / "results"
EXPERTS = Path(os.environ.get("LIT_IMITATION_EXPERTS", ROOT.parent / "shared" / "experts"))
"""Experts and results published by others; rows that need one are left out where it is absent."""
MERGED = ("overrides", "label", "data")


class Row(NamedTuple):
    """One method on one task."""

    method: str
    task: str
    config: str | dict[str, Any]
    seeds: int
    first_seed: int = 0
    overrides: Mapping[str, Any] = {}
    label: Mapping[str, Any] = {}
    data: Mapping[str, Any] = {}
    prepare: str | None = None
    measure: Sequence[str] = ()
    compare: Mapping[str, Any] = {}

    @property
    def name(self) -> str:
        """`METHOD/TASK`."""
        return f"{self.method}/{self.task}"

    def recipe(self) -> dict[str, Any]:
        """The recipe without the overrides."""
        return read_config(self.config)

    def data_settings(self) -> dict[str, Any]:
        """`data.init_args` of the recipe with the overrides."""
        changed = {key.removeprefix("data."): value for key, value in self.overrides.items() if key.startswith("data.")}
        return dict(self.recipe()["data"]["init_args"]) | changed


class Done(NamedTuple):
    """A row whose seeds are finished, for the functions that measure more."""

    row: Row
    folder: Path
    jobs: int
    result: dict[str, Any]
    """The aggregate of `repeat`."""

    @property
    def runs(self) -> list[Path]:
        """The folder of each seed's run."""
        return [self.folder / f"seed_{seed}" for seed in self.result["seeds"]]

    def summaries(self) -> list[dict[str, Any]]:
        """`summary.json` of each seed."""
        return [json.loads((run / "summary.json").read_text(encoding="utf-8")) for run in self.runs]


def read_config(config: str | dict[str, Any]) -> dict[str, Any]:
    """A recipe as a dictionary, from its name or as given."""
    if isinstance(config, str):
        return dict(yaml.safe_load(Path(find_recipe(config)).read_text(encoding="utf-8")))
    return config


def arguments(overrides: Mapping[str, Any]) -> list[str]:
    """Overrides as arguments of `fit`."""
    return [
        f"--{key}={value if isinstance(value, str) else json.dumps(value)}"  # JSON is YAML
        for key, value in overrides.items()
    ]


def load(name: str) -> list[Row]:
    """The rows of a table.

    Raises:
        ConfigError: there is no such table, or it has a setting that does not exist.
    """
    file = TABLES / f"{name}.yaml"
    if not file.exists():
        raise ConfigError(f"there is no table {name}; there are {', '.join(tables())}")
    given = yaml.safe_load(file.read_text(encoding="utf-8"))
    shared = {key: value for key, value in given.items() if key not in ("methods", "tasks", "rows", "shared")}
    rows = []
    for method, of_method in given["methods"].items():
        of_method = dict(of_method or {})
        for task in of_method.pop("tasks", given["tasks"]):
            parts = (shared, of_method, given["tasks"][task] or {}, given.get("rows", {}).get(f"{method}/{task}", {}))
            settings: dict[str, Any] = {}
            for key, value in (item for part in parts for item in part.items()):
                if key not in Row._fields:
                    raise ConfigError(f"{file.name}, {method}/{task}: no setting is called {key}")
                settings[key] = {**settings.get(key, {}), **value} if key in MERGED else value
            names = {"method": str(method), "task": str(task), "experts": str(EXPERTS / "policies")}
            rows.append(Row(str(method), str(task), **_replaced(settings, names)))
    return rows


def tables() -> list[str]:
    """The names of all tables."""
    return sorted(path.stem for path in TABLES.glob("*.yaml"))


def stored(name: str) -> dict[str, dict[str, Any]]:
    """The results of a table by the names of its rows."""
    file = RESULTS / f"{name}.json"
    return {row["name"]: row for row in json.loads(file.read_text(encoding="utf-8"))} if file.exists() else {}


def store(name: str, row: dict[str, Any]) -> None:
    """Write one row to a table's results, in the order of the table."""
    rows = stored(name) | {row["name"]: row}  # read now: another call may have written its own rows meanwhile
    known = [one.name for one in load(name)]
    ordered = [rows[one] for one in (*known, *(one for one in rows if one not in known)) if one in rows]
    atomic_write(RESULTS / f"{name}.json", json.dumps(ordered, indent=1) + "\n")


def chosen(name: str, patterns: Sequence[str]) -> Iterator[Row]:
    """The rows of a table that a pattern names (`gail/*`), or all; without those whose expert is absent.

    Raises:
        ConfigError: a pattern names no row.
    """
    rows = load(name)
    for pattern in patterns:
        if not any(fnmatch(row.name, pattern) for row in rows):
            raise ConfigError(f"the table {name} has no row {pattern}; it has {', '.join(row.name for row in rows)}")
    for row in rows:
        if patterns and not any(fnmatch(row.name, pattern) for pattern in patterns):
            continue
        kind, _, path = str(row.overrides.get("data.expert", "")).partition(":")
        if kind == "npz" and not Path(path).exists():
            print(f"{name}, {row.name}: left out, there is no {path} (set $LIT_IMITATION_EXPERTS)")
            continue
        yield row


def fit(
    config: str | dict[str, Any], overrides: Mapping[str, Any], folder: Path, seeds: Sequence[int], jobs: int
) -> Any:
    """Run one recipe over consecutive seeds, or resume it; returns the aggregate of `repeat`."""
    if isinstance(config, dict):
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / "recipe.yaml", yaml.safe_dump(config, sort_keys=False))
        config = str(folder / "recipe.yaml")
    (result,) = repeat([config], len(seeds), jobs, folder, arguments(overrides), first_seed=seeds[0])["tasks"]
    return result


def run(name: str, patterns: Sequence[str] = (), seeds: int | None = None, jobs: int = 1) -> None:
    """Measure the rows of a table that have not been measured yet, and store each result when it is there.

    Args:
        name: Name of the table.
        patterns: Names or patterns of rows; empty for all.
        seeds: Number of seeds in place of the table's.
        jobs: Number of processes at a time.

    Raises:
        ConfigError: unknown table or row.
        TrainingError: a run failed.
    """
    from experiments import measures

    # Some tables use environments of the tests, in this process and in those of the runs.
    places = [str(ROOT), str(ROOT / "tests" / "helpers")]
    sys.path += [place for place in places if place not in sys.path]
    os.environ["PYTHONPATH"] = os.pathsep.join([*places, *filter(None, [os.environ.get("PYTHONPATH")])])
    for row in chosen(name, patterns):
        # In an argument of `fit` a path with a colon would be read as a mapping.
        folder = ROOT / "runs" / "tables" / name / re.sub(r"[^\w.-]+", "_", row.method) / row.task
        ready = getattr(measures, row.prepare)(row, folder) if row.prepare else row
        count = seeds or row.seeds
        numbers = range(row.first_seed, row.first_seed + count)
        result = fit(ready.config, ready.overrides, folder, numbers, jobs)
        done = Done(ready, folder, jobs, result)
        known = row.data_settings() if row.data else {}
        found: dict[str, Any] = {"name": row.name, **({"recipe": row.config} if isinstance(row.config, str) else {})}
        found |= {key: known.get(key, default) for key, default in row.data.items()}
        found |= {**row.label, **result}
        for measure in row.measure:
            found |= getattr(measures, measure)(done)
        store(name, found | {"method": row.method, "task": row.task})


def _replaced(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        for name, text in names.items():
            value = value.replace(f"{{{name}}}", text)
        return value
    if isinstance(value, dict):
        return {key: _replaced(one, names) for key, one in value.items()}
    if isinstance(value, list):
        return [_replaced(one, names) for one in value]
    return value
