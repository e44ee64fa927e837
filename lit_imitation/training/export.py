"""The command `export`: trained policies and learned rewards as files that run without this package."""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lit_imitation.errors import ConfigError, LitImitationError, require
from lit_imitation.policies.checkpoints import find_checkpoint, load_policy, read_checkpoint
from lit_imitation.rewards.checkpoints import load_reward
from lit_imitation.training.export_formats import FORMATS, Format, Runtime
from lit_imitation.training.export_graphs import ExportGraph, PolicyGraph, RewardGraph, nest
from lit_imitation.training.export_metadata import describe_export
from lit_imitation.utils.files import atomic_write, check_local, expand_user, replace_nonfinite

TOLERANCE = 1e-5
"""Largest difference between file and package, in units of the output."""
ROUNDING = 2.0**-23
"""Relative change of the weights that shows how far rounding can move an output."""
ROUNDING_FACTOR, MOST_TOLERANCE = 4.0, 1e-3
"""Multiple of that change which is tolerated where it is larger than `TOLERANCE`, and a limit on it."""
BATCH_SIZES = (1, 3, 17, 128)
"""Sizes of the batches that are compared."""
CALLS, WARM_UP_CALLS = 200, 20
"""Calls whose median is the latency, and calls before them."""


class ExportError(LitImitationError):
    """A policy or reward cannot be exported, or its file does not compute what the checkpoint does."""


class Parity(NamedTuple):
    """Agreement of an exported file with the package."""

    largest_difference: float
    """Over all outputs, in units of the output."""
    tolerance: float
    """Largest difference allowed."""
    batch_sizes: tuple[int, ...] = BATCH_SIZES
    """Batches of random inputs that were compared."""


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `export`."""
    parser.add_argument("checkpoint", metavar="DIR", help="directory of a run, or a checkpoint file")
    parser.add_argument(
        "--format",
        default="onnx",
        choices=list(FORMATS),
        help="onnx for onnxruntime, torch_export for torch.export.load (default: onnx)",
    )
    parser.add_argument(
        "--part",
        default="all",
        choices=["all", "policy", "reward"],
        help="part to export (default: the policy, and the reward if the run learned one)",
    )
    parser.add_argument(
        "--out", default="", metavar="FOLDER", help="folder to write (default: the folder export of the run)"
    )
    parser.add_argument(
        "--stochastic", action="store_true", help="draw actions, by random numbers that are an input of the file"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the files of an earlier export")
    parser.add_argument(
        "--trust",
        default="false",
        choices=["true", "false"],
        help="allow a checkpoint that names classes outside this package (default: false)",
    )


def run_export(options: argparse.Namespace) -> None:
    """Export the parts of a checkpoint, and print where they are, how well they agree, and how fast they run.

    Raises:
        ConfigError: There is no such checkpoint or part, or a file exists already.
        ExportError: A part cannot be exported, or the file computes something else.
        MissingExtraError: A package of the extra `onnx` is missing.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)  # as both runtimes are measured
    check_local(options.out, "--out")
    kind, trust = FORMATS[options.format], options.trust == "true"
    for package in kind.packages:
        require(package, "onnx", "export to ONNX")
    file = find_checkpoint(options.checkpoint)
    checkpoint = read_checkpoint(file)
    run = file.parent.parent if file.parent.name == "checkpoints" else file.parent
    folder = expand_user(options.out) if options.out else run / "export"
    parts = [options.part]
    if options.part == "all":
        parts = ["policy", "reward"] if "reward" in checkpoint else ["policy"]
    targets = [folder / f"{part}{suffix}" for part in parts for suffix in (kind.suffix, ".json")]
    if not options.overwrite and (existing := [path for path in targets if path.exists()]):
        raise ConfigError(f"{existing[0]} exists; add --overwrite to replace it, or choose another --out")
    folder.mkdir(parents=True, exist_ok=True)  # fails before the work
    for part in parts:
        graph: ExportGraph
        if part == "policy":
            graph = PolicyGraph(load_policy(file, trust=trust), options.stochastic)
        else:
            graph = _reward_graph(file, trust)
        print(export(graph, describe_export(graph, checkpoint, file), folder / part, kind), flush=True)


def _reward_graph(file: Path, trust: bool) -> RewardGraph:
    try:
        return RewardGraph(load_reward(file, trust=trust).model)
    except LitImitationError:
        raise
    except Exception as error:
        raise _cannot_export("reward", file, error) from error


def export(graph: ExportGraph, metadata: dict[str, Any], stem: Path, kind: type[Format]) -> str:
    """Write a graph to `stem` with the suffix of a format, and its metadata to `stem` with `.json`.

    Args:
        graph: What to export.
        metadata: What the file says about it; parity and latency are added.
        stem: Path without suffix.
        kind: Format.

    Returns:
        Lines about the file, parity and latency.

    Raises:
        ExportError: The graph cannot be exported, or the file would compute something else; then nothing is written.
    """
    try:
        converted = kind(graph)
        runtime = kind.run(converted.to_bytes(""))
    except Exception as error:  # torch's exporters raise many different errors
        raise _cannot_export(metadata["kind"], metadata["trained"], error) from error
    parity = check_parity(graph, runtime, kind.runtime_name)
    example = graph.examples(1, 0)
    latency = {"torch": latency_ms(lambda inputs: graph.reference(**inputs), example)}
    latency[kind.runtime_name] = latency_ms(runtime, example)
    metadata = metadata | {"parity": parity._asdict(), "latency_ms": latency}
    text = json.dumps(replace_nonfinite(metadata), indent=2, allow_nan=False)
    path = stem.with_name(stem.name + kind.suffix)
    atomic_write(path, converted.to_bytes(text))
    atomic_write(stem.with_name(f"{stem.name}.json"), text + "\n")
    times = ", ".join(f"{name} {value:.3f} ms" for name, value in latency.items())
    sizes = ", ".join(map(str, parity.batch_sizes))
    return (
        f"{path}: {metadata['kind']}, {metadata['trained']}\n"
        f"  parity: largest difference {parity.largest_difference:.1e} in batches of {sizes} "
        f"(allowed: {parity.tolerance:.1e})\n"
        f"  latency of a batch of 1, median of {CALLS}: {times}"
    )


def _cannot_export(part: str, what: object, error: Exception) -> ExportError:
    reason = (str(error) or "no text").strip().splitlines()[0]
    return ExportError(f"the {part} of {what} cannot be exported: {type(error).__name__}: {reason:.300}")


@torch.no_grad()
def check_parity(graph: ExportGraph, runtime: Runtime, name: str) -> Parity:
    """Compare a runtime with the package on random inputs.

    Rounding differs between runtimes. Outputs that differ by more than `TOLERANCE` are still equal if a change of all
    weights by ±1 in their last bit moves them as far, as in ε-prediction at the highest noise level: `ROUNDING_FACTOR`
    times that distance is allowed, up to `MOST_TOLERANCE`.

    Args:
        graph: The graph before its export.
        runtime: What the exported file computes.
        name: Name of the runtime, for the message.

    Returns:
        The largest difference, and what was allowed.

    Raises:
        ExportError: They differ by more.
    """
    largest, allowed = 0.0, TOLERANCE
    for seed, count in enumerate(BATCH_SIZES):
        inputs = graph.examples(count, seed)
        expected, found = graph.reference(**inputs), runtime(inputs)
        if (found.shape, found.dtype) != (expected.shape, expected.dtype):
            raise ExportError(
                f"{name} returns {found.dtype} {list(found.shape)} for a batch of {count}; expected {expected.dtype} "
                f"{list(expected.shape)}, so no file was written"
            )
        unit = graph.scale(expected)
        difference = float(((found - expected).abs() / unit).max())
        tolerance = TOLERANCE
        if difference > TOLERANCE:
            moved = float(((_with_rounded_weights(graph, inputs) - expected).abs() / unit).max())
            tolerance = max(TOLERANCE, min(ROUNDING_FACTOR * moved, MOST_TOLERANCE))
        if not difference <= tolerance:  # also if it is not a number
            raise ExportError(
                f"{name} differs from the package by {difference:.1e} units in a batch of {count}, more than "
                f"{tolerance:.1e}, so no file was written"
            )
        largest, allowed = max(largest, difference), max(allowed, tolerance)
    return Parity(largest, allowed)


def _with_rounded_weights(graph: ExportGraph, inputs: dict[str, Tensor]) -> Tensor:
    """Output of the graph after its weights and buffers changed by ±1 in the last bit."""
    generator, changed = torch.Generator().manual_seed(0), {}
    for name, one in [*graph.named_parameters(), *graph.named_buffers()]:
        if one.is_floating_point():
            sign = torch.randint(0, 2, one.shape, generator=generator) * 2 - 1
            changed[name] = one * (1.0 + ROUNDING * sign)
    output: Tensor = torch.func.functional_call(graph, changed, (), nest(inputs))
    return output


def latency_ms(runtime: Runtime, inputs: dict[str, Tensor]) -> float:
    """Median time of a call, in milliseconds."""
    times = []
    for _ in range(WARM_UP_CALLS + CALLS):
        start = time.perf_counter()
        runtime(inputs)
        times.append(time.perf_counter() - start)
    return 1e3 * median(times[WARM_UP_CALLS:])
