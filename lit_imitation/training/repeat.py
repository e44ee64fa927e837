"""Runs a recipe for several seeds, each in its own process, and aggregates the results.

A folder of repeats holds `repeat.json` (the request), `seed_S/` (the run's files and its `log.txt`) for each seed, and,
once all seeds are done, `aggregate.json`. A second call with the same request continues: seeds with a summary are read,
seeds with a checkpoint resume from it, and the remaining seeds start from the beginning.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import yaml
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from lit_imitation.errors import ConfigError, LitImitationError, TrainingError
from lit_imitation.training.recipes import find_recipe
from lit_imitation.utils.files import FileLock, check_local, expand_user, write_json
from lit_imitation.utils.integrity import check_file
from lit_imitation.utils.statistics import Scale, interquartile_mean, stratified_score_interval

SCORES = ("return_mean", "return_iqm", "normalized_score")
"""Fields of a summary that are aggregated with intervals; only the last may be null where there is an environment."""

HELD_OUT = ("loss", "accuracy", "action_error")
"""Fields about held-out demonstrations, aggregated likewise; each may be null."""

_REFERENCES = ("expert_return", "expert_return_error", "random_return", "random_return_error")
_AVERAGES = (*_REFERENCES, "env_steps", "gradient_steps", "wall_seconds")
_OURS = ("--config", "--seed_everything", "--trainer.default_root_dir", "--ckpt_path")
_GRACE_SECONDS = 60.0
LARGEST_SUMMARY = 2**24
"""Largest size of a summary in bytes; DAgger's, with one entry per round, has a few thousand."""
_TAIL_LINES = 20


def repeat(
    config: list[str],
    seeds: int,
    jobs: int,
    out: Path,
    overrides: list[str],
    first_seed: int = 0,
    trust: bool = False,
) -> dict[str, Any]:
    """Fit the recipe `config` with the seeds `first_seed … first_seed + seeds − 1`, `jobs` at a time.

    A seed that fails does not stop the others. On SIGINT or SIGTERM, all runs receive SIGTERM, which makes them write a
    checkpoint. They get a minute to end; a second signal kills them at once. Signals are only caught in the main
    thread, so call this function there.

    Args:
        config: Recipes to combine, names or files, as for `fit --config`.
        seeds: Number of seeds; a larger number than in an earlier call adds seeds.
        jobs: Number of processes at a time. Each gets its share of the cores as `OMP_NUM_THREADS`, unless that is set.
        out: Folder of the repeats; see the module.
        overrides: Further arguments of `fit`, the same for every seed.
        first_seed: Lowest seed.
        trust: Pass `--trust true` to the runs.

    Returns:
        The contents of `out/aggregate.json`: the result of `aggregate`, and the request as `config` and `overrides`.

    Raises:
        ConfigError: A recipe cannot be read, `overrides` sets an option that `repeat` sets, or `out` holds another
            request.
        TrainingError: Seeds failed; the message names each of them, how it ended, and the end of its log.
        KeyboardInterrupt: SIGINT was received, and the runs have ended.
        SystemExit: SIGTERM was received, and the runs have ended.
    """
    if seeds < 1 or jobs < 1:
        raise ConfigError(f"--seeds {seeds} --jobs {jobs}: both must be at least 1")
    if first_seed < 0:
        raise ConfigError(f"--first_seed {first_seed}: it must be at least 0")
    for argument in overrides:
        if argument.split("=")[0] in _OURS:
            raise ConfigError(f"{argument}: repeat sets this option for every seed; leave it out")
    given = [*overrides, "--trust", "true"] if trust else overrides  # trust is not part of the request
    check_local(str(out), "--out")
    for path in config:  # fails before anything is written
        _read_recipe(path)
    out.mkdir(parents=True, exist_ok=True)
    hold = FileLock(out / ".lock", str(out), "wait for that call of repeat or stop it, or choose another --out")
    try:
        return _repeat(config, seeds, jobs, out, overrides, given, first_seed)
    finally:
        hold.release()


def _repeat(
    config: list[str],
    seeds: int,
    jobs: int,
    out: Path,
    overrides: list[str],
    given: list[str],
    first_seed: int,
) -> dict[str, Any]:
    """Run and aggregate the seeds, while the caller holds the lock on `out`."""
    _record_request(out, config, overrides)
    summaries: dict[int, dict[str, Any]] = {}
    failures: dict[int, str] = {}
    waiting = list(range(first_seed, first_seed + seeds))
    for seed in list(waiting):
        try:
            summaries[seed] = _read_summary(out / f"seed_{seed}", seed)
        except TrainingError:
            continue
        waiting.remove(seed)

    running: dict[int, subprocess.Popen[bytes]] = {}
    with _progress() as progress, _signals() as received:
        bar = progress.add_task("seeds", total=seeds, completed=len(summaries), latest="")
        try:
            while (waiting or running) and not received:
                while waiting and len(running) < jobs:
                    seed = waiting.pop(0)
                    try:
                        running[seed] = _start(config, seed, out / f"seed_{seed}", given, _cores() // jobs)
                    except LitImitationError as error:
                        failures[seed] = str(error)
                time.sleep(0.05)
                for seed in [seed for seed, process in running.items() if process.poll() is not None]:
                    code = running.pop(seed).returncode
                    try:
                        summaries[seed] = _result(out / f"seed_{seed}", seed, code)
                        latest = f"seed {seed}: {_describe(summaries[seed])}"
                    except TrainingError as error:
                        failures[seed] = str(error)
                        latest = f"seed {seed}: failed"
                    progress.update(bar, completed=len(summaries) + len(failures), latest=latest)
        finally:
            _stop(running.values(), received)
    if received:
        if received[0] == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + received[0])
    if failures:
        texts = "\n\n".join(failures[seed] for seed in sorted(failures))
        raise TrainingError(f"{len(failures)} of {seeds} seeds failed; {len(summaries)} have results.\n\n{texts}")

    result = {"config": config, "overrides": overrides, **aggregate([summaries[seed] for seed in sorted(summaries)])}
    write_json(out / "aggregate.json", result)
    return result


def aggregate(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Aggregate the summaries of runs: per task, which is (method, env_id), over seeds, and per method over tasks.

    Each of `SCORES` and `HELD_OUT` becomes `{values, mean, mean_ci95, iqm, iqm_ci95}`: one value per run, their mean
    and interquartile mean, and the 95 % stratified-bootstrap interval of each. The strata are tasks, so the bootstrap
    resamples seeds within each task. The interval of the normalized score includes the errors of the expert's and the
    random return, which all seeds of a task share. A run without a value has null in `values` and is ignored otherwise.
    If no run has one, the whole score is null. Runs without an environment have an empty `env_id`.

    Args:
        summaries: Contents of the runs' `summary.json`.

    Returns:
        `tasks`: Tasks in order of first appearance, each with `method, env_id, seeds, versions`, the `SCORES` and
        `HELD_OUT`, and the means over seeds of `expert_return, random_return`, their standard errors `…_error`,
        `env_steps, gradient_steps, wall_seconds` (null where unknown). Versions that differ between seeds are joined by
        commas.

        `overall`: For each method `{env_ids, normalized_score}`, with the scores of all its tasks pooled.

    Raises:
        ValueError: There are no summaries.
        ConfigError: A seed of a task appears twice.
    """
    if not summaries:
        raise ValueError("there are no summaries to aggregate")
    tasks: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for summary in summaries:
        tasks.setdefault((summary["method"], summary["env_id"]), []).append(summary)
    for (method, env_id), runs in tasks.items():
        seeds = [run["seed"] for run in runs]
        if len(set(seeds)) < len(seeds):
            raise ConfigError(f"{method} on {env_id}: a seed appears more than once among {seeds}")
    methods: dict[str, list[str]] = {}
    for method, env_id in tasks:
        methods.setdefault(method, []).append(env_id)
    return {
        "tasks": [
            {
                "method": method,
                "env_id": env_id,
                "seeds": [run["seed"] for run in runs],
                **{field: _score([[run.get(field) for run in runs]]) for field in (*SCORES[:-1], *HELD_OUT)},
                **{field: _score([[run.get(field) for run in runs]], [_scale(runs)]) for field in SCORES[-1:]},
                **{field: _average([run.get(field) for run in runs]) for field in _AVERAGES},
                "versions": _versions([run.get("versions") or {} for run in runs]),
            }
            for (method, env_id), runs in tasks.items()
        ],
        "overall": {
            method: {
                "env_ids": env_ids,
                "normalized_score": _score(
                    [[run.get("normalized_score") for run in tasks[method, env_id]] for env_id in env_ids],
                    [_scale(tasks[method, env_id]) for env_id in env_ids],
                ),
            }
            for method, env_ids in methods.items()
        },
    }


def table(result: Mapping[str, Any]) -> Table:
    """Table of what `aggregate` returned, at most 80 columns wide."""
    rows = Table(title="over seeds, with 95 % bootstrap intervals", box=box.SIMPLE)
    for heading in ("", "mean", "IQM"):
        rows.add_column(heading, no_wrap=True)

    def add(label: str, score: Mapping[str, Any] | None, digits: int) -> None:
        if score is not None:
            if abs(score["mean"]) >= 1000:
                digits = 0
            cells = []
            for name in ("mean", "iqm"):
                low, high = score[f"{name}_ci95"]
                # The backslash keeps rich from reading the bracket as markup.
                cells.append(rf"{score[name]:.{digits}f} \[{low:.{digits}f}, {high:.{digits}f}]")
            rows.add_row(label, *cells)

    for task in result["tasks"]:
        where = task["env_id"] or "held-out demonstrations"
        rows.add_row(f"{where}\n{task['method']}, {len(task['seeds'])} seeds")
        add("  return", task["return_mean"], 1)
        add("  return, IQM", task["return_iqm"], 1)
        add("  normalized score", task["normalized_score"], 3)
        for field in HELD_OUT if not task["env_id"] else ():
            add(f"  {field.replace('_', ' ')}", task[field], 4)
        for label, field in (("expert", "expert_return"), ("random", "random_return")):
            if task[field] is not None:
                error = f" ± {task[f'{field}_error']:.1f}" if task[f"{field}_error"] else ""
                rows.add_row(f"  {label} return", f"{task[field]:.1f}{error}")
        rows.add_section()
    for method, overall in result["overall"].items():
        if len(overall["env_ids"]) > 1:
            rows.add_row(f"all {len(overall['env_ids'])} tasks\n{method}")
            add("  normalized score", overall["normalized_score"], 3)
    return rows


def add_repeat_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `repeat`; `parse_known_args` leaves the remaining ones for `fit`."""
    parser.add_argument(
        "--config",
        action="append",
        required=True,
        metavar="RECIPE",
        help="recipe, name or file; repeat the option to combine several",
    )
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds (default: 5)")
    parser.add_argument("--first_seed", type=int, default=0, help="lowest seed (default: 0)")
    parser.add_argument("--trust", default="false", choices=["true", "false"], help="passed to every run of fit")
    parser.add_argument("--jobs", type=int, default=2, help="number of processes at a time (default: 2)")
    parser.add_argument(
        "--out",
        type=expand_user,
        metavar="DIR",
        help="folder of the runs (default: runs/repeat/METHOD-TASK of the recipe)",
    )


def run_repeat(namespace: argparse.Namespace, extra: list[str]) -> None:
    """Run `repeat` with parsed arguments and print the table.

    Args:
        namespace: Parsed arguments of `repeat`.
        extra: Remaining arguments, for `fit`.
    """
    recipe = expand_user(namespace.config[0]).resolve()
    out = namespace.out or Path("runs", "repeat", f"{recipe.parent.name}-{recipe.stem}")
    console = Console()
    try:
        trust = namespace.trust == "true"
        result = repeat(namespace.config, namespace.seeds, namespace.jobs, out, extra, namespace.first_seed, trust)
    except KeyboardInterrupt:
        console.print("Stopped. The same command continues from here.")
        raise SystemExit(128 + signal.SIGINT) from None
    console.print(table(result))
    console.print(str(out / "aggregate.json"), soft_wrap=True)


def _command(config: list[str], seed: int, directory: Path, overrides: list[str], resume: bool) -> list[str]:
    recipes = [argument for path in config for argument in ("--config", path)]
    ours = ["--seed_everything", str(seed), "--trainer.default_root_dir", str(directory)]
    last = ["--ckpt_path", "last"] if resume else []
    return [sys.executable, "-m", "lit_imitation", "fit", *recipes, *overrides, *ours, *last]


def _record_request(out: Path, config: list[str], overrides: list[str]) -> None:
    """Write the request to `out`, or raise `ConfigError` if `out` holds another one.

    Recipes are compared by content, so that a moved recipe or a changed comment is the same request.
    """
    # The round trip makes types comparable: JSON has fewer of them than YAML.
    request = json.loads(
        json.dumps({"config": [_read_recipe(path) for path in config], "overrides": overrides}, default=str)
    )
    record = out / "repeat.json"
    if record.exists():
        try:
            before = json.loads(check_file(record, ConfigError, LARGEST_SUMMARY).read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(f"{record} is not JSON ({error}); choose another --out") from error
        if before != request:
            old, new = dict(_leaves(before)), dict(_leaves(request))
            differences = [
                f"  {key}: was {old.get(key, 'absent')}, is now {new.get(key, 'absent')}"
                for key in sorted(old.keys() | new.keys())
                if old.get(key) != new.get(key)
            ]
            raise ConfigError(
                f"{out} holds repeats of another request; choose another --out or delete it. Differences:\n"
                + "\n".join(differences)
            )
    elif any(out.glob("seed_*")):
        raise ConfigError(f"{out} holds seed_* folders but no repeat.json; choose another --out")
    else:
        out.mkdir(parents=True, exist_ok=True)
        write_json(record, request)


def _read_recipe(path: str) -> Any:
    try:
        return yaml.safe_load(expand_user(find_recipe(path)).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"--config {path}: cannot be read: {error}") from error


def _leaves(tree: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Values below `tree` as JSON, each with its dotted path; a list under `config` has one branch per recipe."""
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from _leaves(value, f"{path}.{key}" if path else key)
    elif path == "config" and isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from _leaves(value, f"config[{index}]")
    else:
        yield path, json.dumps(tree)


def _start(
    config: list[str], seed: int, directory: Path, overrides: list[str], threads: int
) -> subprocess.Popen[bytes]:
    import fcntl  # missing on Windows, where this module can still be imported

    directory.mkdir(exist_ok=True)
    with (directory / "log.txt").open("ab") as log:
        # The run inherits the open log and thus the lock, and keeps it even if this process is killed. A later call
        # then neither deletes the folder of a live run nor starts a second run in it.
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"seed {seed}: a process of an earlier call still runs in {directory}; wait for it or stop it, then "
                "call again"
            ) from None
        except OSError:
            pass  # the file system has no locks
        resume = (directory / "checkpoints" / "last.ckpt").exists()
        if not resume:
            for left in directory.iterdir():
                if left.is_dir() and not left.is_symlink():
                    shutil.rmtree(left)
                elif left.name != "log.txt":
                    left.unlink()
            log.truncate(0)
        environment = os.environ.copy()
        environment.setdefault("OMP_NUM_THREADS", str(max(1, threads)))
        # With buffering, output would reach the log after the traceback, or never if the run is killed.
        environment.setdefault("PYTHONUNBUFFERED", "1")
        return subprocess.Popen(
            _command(config, seed, directory, overrides, resume),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            # Ctrl-C in a terminal reaches the whole process group, but the runs should only get our SIGTERM.
            start_new_session=True,
        )


def _stop(processes: Collection[subprocess.Popen[bytes]], received: list[int]) -> None:
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + _GRACE_SECONDS
    while any(process.poll() is None for process in processes) and time.monotonic() < deadline and len(received) < 2:
        time.sleep(0.05)
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list: an exception at any line could lose a process just started."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[latest]}"),
    )


def _cores() -> int:
    # A container or `taskset` may allow fewer cores than the machine has; macOS does not report it.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _result(directory: Path, seed: int, code: int) -> dict[str, Any]:
    """Summary of a run that ended with `code`; raises `TrainingError` with the end of its log if it failed."""
    log = directory / "log.txt"
    if code == 0:
        try:
            return _read_summary(directory, seed)
        except TrainingError as error:
            how = f"ended with exit code 0, but {error}"
    elif code < 0:
        how = f"was killed by {signal.Signals(-code).name}"
    else:
        how = f"failed with exit code {code}"
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 16384))
        tail = file.read().decode(errors="replace").splitlines()[-_TAIL_LINES:]
    raise TrainingError("\n".join([f"seed {seed} {how}. The end of {log}:", *(f"  {line}" for line in tail)]))


def _read_summary(directory: Path, seed: int) -> dict[str, Any]:
    path = directory / "summary.json"
    if not path.exists():
        raise TrainingError(f"{path} is missing")
    try:
        summary = json.loads(check_file(path, TrainingError, LARGEST_SUMMARY).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise TrainingError(f"{path} is not JSON: {error}") from error
    if not isinstance(summary, dict):
        raise TrainingError(f"{path} is not a JSON object")
    for field in ("method", "env_id"):
        if not isinstance(summary.get(field), str):
            raise TrainingError(f"{path}: {field} is {summary.get(field)!r:.80}, not a name")
    if type(summary.get("seed")) is not int or summary["seed"] != seed:
        raise TrainingError(f"{path}: seed is {summary.get('seed')!r:.80}, not {seed}")
    for field in (*SCORES, *HELD_OUT):
        value = summary.get(field)
        optional = field == "normalized_score" or field in HELD_OUT or not summary["env_id"]
        if not (_is_number(value) or (value is None and optional)):
            raise TrainingError(f"{path}: {field} is {value!r:.80}, not a number of a possible size")
    versions = summary.get("versions")
    if versions is not None and not isinstance(versions, dict):
        raise TrainingError(f"{path}: versions is a {type(versions).__name__}, not an object")
    return summary


def _is_number(value: Any) -> bool:
    # Means and intervals overflow beyond 1e100, and a whole number can be too large for a float.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e100


def _describe(summary: Mapping[str, Any]) -> str:
    score = summary.get("normalized_score")
    if summary.get("return_mean") is None:
        return ", ".join(f"{field} {summary[field]:.4g}" for field in HELD_OUT if summary.get(field) is not None)
    return f"return {summary['return_mean']:.1f}" + ("" if score is None else f", normalized {score:.3f}")


def _scale(runs: Sequence[Mapping[str, Any]]) -> Scale:
    """The points 0 and 1 of the normalized score, with their errors in units of the score."""
    means = {field: _average([run.get(field) for run in runs]) for field in _REFERENCES}
    expert, expert_error, random, random_error = means.values()
    if expert is None or random is None or expert == random:
        return Scale(1.0, 0.0)
    width = abs(expert - random)
    return Scale(1.0, 0.0, (expert_error or 0.0) / width, (random_error or 0.0) / width)


def _score(strata: list[list[float | None]], scales: Sequence[Scale] | None = None) -> dict[str, Any] | None:
    known = [[value for value in stratum if value is not None] for stratum in strata]
    exact = Scale(1.0, 0.0)
    ends = [scale for scale, stratum in zip(scales or [exact] * len(known), known, strict=True) if stratum]
    known = [stratum for stratum in known if stratum]
    if not known:
        return None
    pooled = np.concatenate(known)
    return {
        "values": [value for stratum in strata for value in stratum],
        "mean": float(pooled.mean()),
        "mean_ci95": list(stratified_score_interval(known, ends, np.mean)),
        "iqm": float(interquartile_mean(pooled)),
        "iqm_ci95": list(stratified_score_interval(known, ends, interquartile_mean)),
    }


def _average(values: list[Any]) -> float | None:
    return float(np.mean(values)) if all(_is_number(value) for value in values) else None


def _versions(runs: list[Mapping[str, str]]) -> dict[str, str]:
    names = dict.fromkeys(name for run in runs for name in run)
    return {name: ", ".join(dict.fromkeys(str(run[name]) for run in runs if name in run)) for name in names}
