"""The command `inspect`: what a file of demonstrations holds, as tables or as JSON."""

from __future__ import annotations

import argparse
import json
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lit_imitation.data.inspection import Inspection, KeySummary, Statistics, inspect_recording
from lit_imitation.data.sources import open_recording
from lit_imitation.envs.make import make_single
from lit_imitation.utils.files import replace_nonfinite


def add_inspect_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `inspect`."""
    parser.add_argument("source", metavar="FILE", help="file, folder, minari:ID or hf:NAME, as for data.demonstrations")
    parser.add_argument(
        "--data.observation_keys", dest="observation_keys", nargs="+", metavar="KEY",
        help="observations that the estimate of multimodality compares (default: all that are no images)",
    )  # fmt: skip
    parser.add_argument(
        "--data.filter_key", dest="filter_key", default="", metavar="NAME", help="filter key of a robomimic file"
    )
    parser.add_argument(
        "--data.env_id", dest="env_id", default="", metavar="ID",
        help="environment whose bounds the actions are compared with",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def run_inspect(options: argparse.Namespace) -> None:
    """Inspect one source and print what it holds.

    Raises:
        DemonstrationError: The source cannot be read.
        ConfigError: The environment does not exist.
    """
    space = None
    if options.env_id:
        env = make_single(options.env_id)
        space = env.action_space
        env.close()
    with open_recording(options.source, options.filter_key, lenient=True) as recording:
        found = inspect_recording(recording, options.observation_keys, space)
    if options.json:
        print(json.dumps(replace_nonfinite(to_dict(found)), indent=2, allow_nan=False))
    else:
        console = Console(highlight=False)
        for part in report(found):
            console.print(part, soft_wrap=isinstance(part, str))


def to_dict(inspection: Inspection) -> dict[str, Any]:
    """Primitives of an inspection, for JSON."""
    held: dict[str, Any] = inspection._asdict()
    held["keys"] = [key._asdict() for key in inspection.keys]
    for field in ("lengths", "returns", "multimodality"):
        held[field] = None if held[field] is None else held[field]._asdict()
    if inspection.multimodality is not None:
        held["multimodality"]["verdict"] = inspection.multimodality.verdict
    return held


def report(inspection: Inspection) -> list[Table | str]:
    """The format, tables of keys and episodes, and a line for each fault and note."""
    keys = Table(box=box.SIMPLE)
    for heading in ("key", "shape", "dtype", "range"):
        keys.add_column(heading)
    for key in inspection.keys:
        keys.add_row(escape(key.name), escape(str(list(key.shape))), key.dtype, _range(key))
    facts = Table(box=box.SIMPLE, show_header=False)
    for label, text in _facts(inspection):
        facts.add_row(label, escape(text))
    wrong = [f"wrong: {escape(fault)}" for fault in inspection.faults] or ["nothing wrong was found"]
    return [
        escape(f"{inspection.source}: {inspection.format}"),
        keys,
        facts,
        *wrong,
        *(f"note: {escape(note)}" for note in inspection.notes),
    ]


def _range(key: KeySummary) -> str:
    if key.low is None or key.high is None:
        return "unknown"
    sampled = f" ({key.rows} of {key.total:,} rows)" if key.rows < key.total else ""
    return f"{key.low:.4g} to {key.high:.4g}{sampled}"


def _facts(inspection: Inspection) -> list[tuple[str, str]]:
    facts = [
        ("episodes", f"{inspection.episodes:,} with {inspection.steps:,} steps"),
        ("lengths", _statistics(inspection.lengths)),
        ("returns", "no rewards" if inspection.returns is None else _statistics(inspection.returns)),
        ("ends", f"{inspection.terminated} terminated, {inspection.episodes - inspection.terminated} truncated"),
    ]
    if inspection.actions_at_bounds is not None:
        facts.append(("actions at bounds", f"{inspection.actions_at_bounds:.1%} of the components"))
    found = inspection.multimodality
    if found is None:
        facts.append(("multimodality", "not estimated: it takes vectors of observations in at least 9 episodes"))
    else:
        facts.append(("multimodality", found.verdict))
        facts.append(("", f"two groups of actions in {found.several:.0%} of {found.states} states"))
        facts.append(("", f"{found.spread:.0%} of the actions' spread is left at the same state"))
        facts.append(("", f"neighbors: {found.neighbors} episodes, at {found.distance:.0%} of the usual distance"))
    facts += [(key, str(value)) for key, value in inspection.metadata.items()]
    return facts


def _statistics(statistics: Statistics) -> str:
    return f"{statistics.mean:.4g} on average, {statistics.low:.4g} to {statistics.high:.4g}"
