"""Count the reliability trials and how many held, into `docs/reliability.md` and `results/reliability.json`.

`python -m experiments.reliability` (`make reliability`) runs every test under `tests/reliability`, including the slow
ones. A test is a trial, and its id begins with its kind. The result of `make mutants` is added from
`results/mutants.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path
from typing import Any

from experiments.markdown import put_between_markers, table
from lit_imitation.utils.files import atomic_write
from lit_imitation.utils.versions import versions

ROOT = Path(__file__).parent.parent
SUITES = {
    "hostile_files": "Hostile files",
    "bad_inputs": "Bad inputs",
    "faults": "Faults while running",
    "kills": "Kills",
}
PAGE, RESULTS = ROOT / "docs" / "reliability.md", ROOT / "experiments" / "results"


def trials(reports: list[Path]) -> dict[str, dict[str, Any]]:
    """Per suite, from pytest's JUnit reports: trials and how many held, by kind; skipped; names of the failed."""
    found: dict[str, dict[str, Any]] = {
        suite: {"tried": Counter(), "held": Counter(), "skipped": 0, "failed": []} for suite in SUITES
    }
    for case in (case for report in reports for case in ElementTree.parse(report).iter("testcase")):
        suite = case.get("classname", "").rpartition(".test_")[2]
        if suite not in found:
            continue
        name = case.get("name", "")
        kind = re.sub(r"^test_|\[.*", "", name).replace("_", " ")
        if given := re.search(r"\[(.+)\]", name):
            kind = given[1].partition("-")[0].replace("_", " ")
        if case.find("skipped") is not None:
            found[suite]["skipped"] += 1
            continue
        found[suite]["tried"][kind] += 1
        if case.find("failure") is None and case.find("error") is None:
            found[suite]["held"][kind] += 1
        else:
            found[suite]["failed"].append(name)
    return found


def tables(found: dict[str, dict[str, Any]], mutants: dict[str, Any] | None) -> str:
    """Markdown: one row per suite, then for each suite one row per kind."""
    head = ["tried", "held"]
    suites = [
        [f"{title} (`tests/reliability/test_{suite}.py`)", *(str(sum(found[suite][name].values())) for name in head)]
        for suite, title in SUITES.items()
    ]
    if mutants is not None:
        noticed = mutants["tried"] - mutants["survived"]
        suites.append(
            ["One-line mutations noticed by a fast test (`make mutants`)", str(mutants["tried"]), str(noticed)]
        )
    parts = [table(["suite", *head], suites)]
    for suite, title in SUITES.items():
        kinds = sorted(found[suite]["tried"].items())
        rows = [[kind, str(count), str(found[suite]["held"].get(kind, 0))] for kind, count in kinds]
        parts.append(f"### {title}\n\n{table(['kind', *head], rows)}")
    return "\n\n".join(parts)


def main() -> None:
    """Run the suites, and write the counts and the page's tables."""
    parser = argparse.ArgumentParser(description="run the reliability suites and count the trials that held")
    parser.add_argument("--jobs", default="2", help="pytest workers (default: 2)")
    parser.add_argument("--fast", action="store_true", help="omit the slow trials")
    parser.add_argument("--report", type=Path, nargs="+", help="use these JUnit reports instead of running the suites")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        reports = options.report or [Path(directory) / "report.xml"]
        if options.report is None:
            command = [sys.executable, "-m", "pytest", "tests/reliability", "-q", "-n", options.jobs]
            command += ["-m", "not slow" if options.fast else "slow or not slow", f"--junitxml={reports[0]}"]
            subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
        found = trials(reports)
    atomic_write(RESULTS / "reliability.json", json.dumps({**found, "versions": versions()}, indent=1) + "\n")
    mutants = RESULTS / "mutants.json"
    put_between_markers(
        PAGE, {"reliability": tables(found, json.loads(mutants.read_text()) if mutants.exists() else None)}
    )
    failed = [name for suite in found.values() for name in suite["failed"]]
    print(f"{PAGE.relative_to(ROOT)} written; failed trials: {', '.join(failed) or 'none'}")


if __name__ == "__main__":
    main()
