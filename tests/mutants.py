"""Mutation testing: change one operator, constant, argument or statement at a time and see whether a fast test fails.

    python tests/mutants.py                              # the sample that `make mutants` tries
    python tests/mutants.py --only lit_imitation/rollout/episodes.py --count 40
    python tests/mutants.py --replay mutants.json        # the survivors of an earlier run again

Each mutant runs in a copy of the checkout, in a forked process that has torch and Lightning imported already. All tests
run once on the unchanged code, and coverage notes which of them execute which line. Of a mutant the fastest tests that
execute its statement run first, then the rest of their files (of `WIDER` and of the file that mirrors its own, where no
test does), until one fails. The same code and seed give the same sample.
Messages (`raise`, warnings, f-strings), `strict` of `zip`, annotations, docstrings and default arguments are not
mutated.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
SCOPE = ("lit_imitation/rl", "lit_imitation/rewards", "lit_imitation/rollout/episodes.py", "lit_imitation/data")
WIDER = {
    "lit_imitation/rl": [
        "tests/rl",
        "tests/test_ddp_arithmetic.py",
        "tests/methods/test_rl.py",
        "tests/methods/test_adversarial.py",
    ],
    "lit_imitation/rewards": ["tests/rewards", "tests/methods/test_adversarial.py", "tests/methods/test_gcl.py"],
    "lit_imitation/rewards/tabular.py": ["tests/rewards/test_tabular.py", "tests/methods/test_maxent_irl.py"],
    "lit_imitation/rollout/episodes.py": [
        "tests/rollout/test_episodes.py",
        "tests/methods/test_rl.py",
        "tests/methods/dagger/test_callback.py",
    ],
    "lit_imitation/data": [
        "tests/data",
        "tests/methods/test_bc.py",
        "tests/methods/test_adversarial.py",
        "tests/reliability/test_hostile_files.py",
        "tests/rollout/test_reference.py",
    ],
    "lit_imitation/data/tabular_module.py": ["tests/methods/test_maxent_irl.py", "tests/tabular"],
    "lit_imitation/data/trajectories.py": [
        "tests/tabular/test_trajectories.py",
        "tests/reliability/test_hostile_files.py",
    ],
}
"""Test files for a path, most specific entry first; they run after the file that mirrors it."""
LIMIT = 420.0
"""Seconds for one mutant; what takes longer hangs, and counts as killed."""
COMPARED = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
COMPUTED = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Add,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.Pow: ast.Mult,
}  # fmt: skip
SWAPPED = {
    "terminated": "done", "done": "terminated", "next_value": "value", "value": "next_value", "minimum": "maximum",
    "maximum": "minimum", "min": "max", "max": "min", "observation": "next_observation", "mean": "sum", "sum": "mean",
    "zeros": "ones", "ones": "zeros", "log": "exp", "exp": "log", "floor": "ceil",
}  # fmt: skip
"""Names and attributes that are mistaken for each other."""


TRIALS = "tests/reliability/test_hostile_files.py"
"""Of these only the ones that execute a statement are tried: each has a stage of its own."""
FIRST = 40
"""So many of the tests that execute a statement are tried before all others."""
Covering = dict[tuple[str, int], list[str]]
"""The tests that execute a line of a file, the fastest first."""


class Mutant(NamedTuple):
    """One changed place of one file."""

    path: str
    line: int
    statement: range
    """The lines of the statement that it is in, of a compound one those of its head."""
    before: str
    after: str
    source: str
    """The whole changed file."""


def places(tree: ast.Module) -> Iterator[tuple[ast.AST, ast.AST | None]]:
    """Each node that computes something, and a node that may take its place (None: leave the statement out)."""
    silent: set[int] = set()
    for node in ast.walk(tree):
        quiet = isinstance(node, ast.Raise | ast.JoinedStr | ast.Assert)
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            quiet |= "warn" in name or name in ("info", "print", "rank_zero_info", "TypeAlias", "cast", "overload")
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
            silent |= {id(child) for child in ast.walk(node.annotation)}
        if isinstance(node, ast.FunctionDef):
            settings = [*node.args.defaults, *node.args.kw_defaults, node.returns]
            silent |= {id(child) for each in settings if each is not None for child in ast.walk(each)}
        if isinstance(node, ast.keyword) and node.arg == "strict":  # of `zip`: an assertion
            quiet = True
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            quiet = True
        if quiet:
            silent |= {id(child) for child in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in silent:
            continue
        if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARED:
            yield node, ast.Compare(node.left, [COMPARED[type(node.ops[0])](), *node.ops[1:]], node.comparators)
        elif isinstance(node, ast.BinOp) and type(node.op) in COMPUTED:
            if not any(isinstance(side, ast.JoinedStr) for side in (node.left, node.right)):
                yield node, ast.BinOp(node.left, COMPUTED[type(node.op)](), node.right)
        elif isinstance(node, ast.BoolOp):
            yield node, ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
        elif isinstance(node, ast.UnaryOp):
            yield node, node.operand
        elif isinstance(node, ast.IfExp):
            yield node, ast.IfExp(node.test, node.orelse, node.body)
        elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
            value = not node.value if isinstance(node.value, bool) else node.value + 1
            yield node, ast.Constant(value)
        elif isinstance(node, ast.Name) and node.id in SWAPPED and isinstance(node.ctx, ast.Load):
            yield node, ast.Name(SWAPPED[node.id], ast.Load())
        elif isinstance(node, ast.Attribute) and node.attr in SWAPPED and isinstance(node.ctx, ast.Load):
            yield node, ast.Attribute(node.value, SWAPPED[node.attr], ast.Load())
        elif isinstance(node, ast.AugAssign) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
            yield node, None


def mutants(root: Path, scope: list[str]) -> list[Mutant]:
    """Every mutant of the files in scope."""
    found = []
    for entry in scope:
        top = root / entry
        for file in [top] if top.is_file() else sorted(top.rglob("*.py")):
            text = file.read_text()
            starts = [0]
            for line in text.encode().splitlines(keepends=True):
                starts.append(starts[-1] + len(line))
            raw, tree = text.encode(), ast.parse(text)
            for node, new in places(tree):
                first = starts[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]
                last = starts[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]
                after = "pass" if new is None else ast.unparse(new)
                after = (
                    f"({after})"
                    if isinstance(new, ast.expr) and not isinstance(new, ast.Constant | ast.Name)
                    else after
                )
                source = (raw[:first] + after.encode() + raw[last:]).decode()
                with contextlib.suppress(SyntaxError):  # where only one form of an expression can stand
                    compile(source, str(file), "exec")
                    before = raw[first:last].decode()
                    line = node.lineno  # type: ignore[attr-defined]
                    found.append(
                        Mutant(str(file.relative_to(root)), line, statement(tree, line), before, after, source)
                    )
    return found


def statement(tree: ast.Module, line: int) -> range:
    """The lines of the innermost statement around a line."""
    spans = []
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or line):
            body = getattr(node, "body", None)
            last = body[0].lineno - 1 if body else node.end_lineno or line
            if line <= last or not body:
                spans.append(range(node.lineno, max(last, node.lineno) + 1))
    return min(spans, key=len, default=range(line, line + 1))


class Recorder:
    """A pytest plugin that notes which test executes which lines of `folder`, and how long each takes."""

    def __init__(self, folder: Path) -> None:
        import coverage

        self.folder, self.seconds = folder, Counter[str]()
        self.coverage = coverage.Coverage(data_file=None, include=[f"{folder}/lit_imitation/*"], messages=False)
        self.coverage.start()

    def pytest_runtest_setup(self, item: Any) -> None:
        """Whatever is executed from here on is executed by this test."""
        self.coverage.switch_context(item.nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Add up set-up, call and tear-down."""
        self.seconds[report.nodeid] += report.duration

    def save(self, file: Path) -> None:
        """As JSON: per file and line the tests, the fastest first."""
        self.coverage.stop()
        data, found = self.coverage.get_data(), []
        for name in data.measured_files():
            path = str(Path(name).relative_to(self.folder))
            for line, tests in data.contexts_by_lineno(name).items():
                found.append([path, line, sorted(filter(None, tests), key=lambda test: self.seconds[test])])
        file.write_text(json.dumps(found))


def tests_of(path: str, root: Path) -> list[str]:
    """Test files for a mutant of `path`, the one that mirrors it first."""
    parts = Path(path).relative_to("lit_imitation")
    mirror = root / "tests" / parts.parent / f"test_{parts.stem.strip('_')}.py"
    wider = max((key for key in WIDER if path.startswith(key)), key=len)
    first = [str(mirror.relative_to(root))] if mirror.exists() else []
    return [*first, *(test for test in WIDER[wider] if test not in first)]


def run_tests(copy: Path, tests: list[str], seconds: float = LIMIT, record: bool = False) -> str:
    """Run fast tests in a copy of the checkout, in a forked process: `killed`, `survived` or `hung`.

    With `record` it leaves in `covering.json` what `Recorder` notes.
    """
    child = os.fork()
    if child == 0:
        os.setsid()
        os.chdir(copy)
        sys.path[:0] = [str(copy), str(copy / "tests" / "helpers")]
        os.environ.update(
            PYTHONPATH=f"{copy}:{copy / 'tests'}", PYTHONDONTWRITEBYTECODE="1", HYPOTHESIS_DATABASE="none"
        )
        sys.dont_write_bytecode = True
        log = os.open(copy / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        import pytest

        code, recorder = 3, Recorder(copy) if record else None
        try:
            options = ["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "-p", "no:xdist"]
            code = int(pytest.main([*tests, *options], plugins=[] if recorder is None else [recorder]))
            if recorder is not None:
                recorder.save(copy / "covering.json")
        finally:
            os._exit(code)
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)  # what the tests left running
            return "survived" if os.waitstatus_to_exitcode(status) in (0, 5) else "killed"  # 5: every test is slow
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "hung"


def attempt(mutant: Mutant, copy: Path, covering: Covering) -> str:
    """Try one mutant in a copy."""
    file = copy / mutant.path
    original = file.read_text()
    file.write_text(mutant.source)
    for compiled in (file.parent / "__pycache__").glob(f"{file.stem}.*.pyc"):
        compiled.unlink()
    near = list(dict.fromkeys(test for n in mutant.statement for test in covering.get((mutant.path, n), [])))
    # A fixture is executed for the first test that asks for it; so the rest of these files may see the mutant, too.
    files = {test.partition("::")[0] for test in near} - {TRIALS} or tests_of(mutant.path, copy)
    try:
        for tests in (near[:FIRST], [*sorted(files), *(test for test in near[FIRST:] if test.startswith(TRIALS))]):
            if tests and (result := run_tests(copy, tests)) != "survived":
                return result
        return "survived"
    finally:
        file.write_text(original)


def sample(found: list[Mutant], count: int, seed: int) -> list[Mutant]:
    """`count` mutants on different lines, drawn by a fixed seed."""
    rng = random.Random(seed)
    rng.shuffle(found)
    lines: set[tuple[str, int]] = set()
    chosen = []
    for mutant in found:
        if (mutant.path, mutant.line) not in lines:
            lines.add((mutant.path, mutant.line))
            chosen.append(mutant)
    return chosen[:count]


def main() -> None:
    """Try a sample and report the survivors."""
    parser = argparse.ArgumentParser(description="mutation testing of the fast tests")
    parser.add_argument("--count", type=int, default=200, help="mutants to try (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (default: 0)")
    parser.add_argument("--only", nargs="+", default=list(SCOPE), help="files or folders (default: the whole scope)")
    parser.add_argument("--jobs", type=int, default=2, help="mutants tried at the same time (default: 2)")
    parser.add_argument("--replay", help="a report; try its survivors again")
    parser.add_argument("--out", default="mutants.json", help="report to write (default: mutants.json)")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    import gymnasium  # noqa: F401  imported once, for the forks
    import lightning  # noqa: F401
    import torch
    import torchmetrics  # noqa: F401

    torch.set_num_threads(1)
    found = mutants(ROOT, options.only)
    if options.replay:
        places_again = {
            (m["path"], m["before"], m["after"]) for m in json.loads(Path(options.replay).read_text())["survivors"]
        }
        chosen = [mutant for mutant in found if (mutant.path, mutant.before, mutant.after) in places_again]
    else:
        chosen = sample(found, options.count, options.seed)
    print(f"{len(found)} mutants are possible, {len(chosen)} are tried", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        copies: Queue[Path] = Queue()
        for number in range(options.jobs):
            copy = Path(directory) / str(number)
            shutil.copytree(
                ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv*", "runs", "docs", "*.pyc", ".*_cache")
            )
            copies.put(copy)
        whole = sorted({test for mutant in chosen for test in tests_of(mutant.path, ROOT)})
        if run_tests(copy, whole, 20 * LIMIT, record=True) != "survived":  # a test that always fails kills all
            sys.exit(f"these tests fail without any mutation:\n{(copy / 'log.txt').read_text()[-3000:]}")
        recorded = json.loads((copy / "covering.json").read_text())
        covering: Covering = {(path, line): tests for path, line, tests in recorded}
        results: list[tuple[Mutant, str]] = []

        def one(mutant: Mutant) -> None:
            copy = copies.get()
            try:
                result = attempt(mutant, copy, covering)
            finally:
                copies.put(copy)
            results.append((mutant, result))
            print(
                f"{len(results):4d} {result:8s} {mutant.path}:{mutant.line}  {mutant.before!r} -> {mutant.after!r}",
                flush=True,
            )

        with ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(one, chosen))
    survivors = [mutant for mutant, result in results if result == "survived"]
    report = {
        "possible": len(found), "tried": len(results), "survived": len(survivors), "seed": options.seed,
        "survivors": [{"path": m.path, "line": m.line, "before": m.before, "after": m.after} for m in survivors],
    }  # fmt: skip
    Path(options.out).write_text(json.dumps(report, indent=1) + "\n")
    print(f"{len(survivors)} of {len(results)} survived ({len(survivors) / max(1, len(results)):.1%}); {options.out}")


if __name__ == "__main__":
    main()
