"""Helpers that the studies share: runs that are stored one by one, fits in process, intervals, figures, pages."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import logging
import multiprocessing
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lit_imitation.utils.files import atomic_write, write_json

if TYPE_CHECKING:
    from lightning import Callback
    from lightning.pytorch.loggers import Logger
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lit_imitation.data.module import EnvironmentDataModule
    from lit_imitation.methods import Method

Result: TypeAlias = dict[str, NDArray[Any]]
"""Measured arrays of a run, by name."""

COLUMN, PAGE = 3.4, 7.0
"""Widths of a printed column and page, in inches."""


class Run(NamedTuple):
    """One training run of a study: `function(**arguments, **inputs)` gives its result."""

    name: str
    function: Callable[..., Result]
    arguments: Mapping[str, Any]
    inputs: Mapping[str, Path] | None = None
    """Files of other runs' results; they must follow from `arguments`, which alone determine the file name."""

    def file(self, directory: Path) -> Path:
        """The file of its result; it depends on the name and the arguments."""
        text = json.dumps([self.function.__module__, self.arguments], sort_keys=True, default=str)
        return directory / f"{self.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.npz"

    def execute(self, directory: Path) -> None:
        """Run it, and write the result."""
        import torch

        torch.set_num_threads(1)
        buffer = io.BytesIO()
        with quiet():
            np.savez_compressed(buffer, **self.function(**self.arguments, **(self.inputs or {})))  # type: ignore[arg-type]
        atomic_write(self.file(directory), buffer.getvalue())


def execute(runs: Sequence[Run], directory: Path, jobs: int) -> list[Result]:
    """The results of `runs`, in their order; only runs without a file in `directory` are executed, `jobs` at a time."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    directory.mkdir(parents=True, exist_ok=True)
    missing = [run for run in runs if not run.file(directory).exists()]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("training runs", total=len(runs), completed=len(runs) - len(missing))
        if jobs == 1:
            for run in missing:
                run.execute(directory)
                progress.advance(task)
        elif missing:
            context = multiprocessing.get_context("spawn")  # forks of a process that has used torch can hang
            with ProcessPoolExecutor(min(jobs, len(missing)), mp_context=context) as pool:
                for future in as_completed([pool.submit(run.execute, directory) for run in missing]):
                    future.result()
                    progress.advance(task)
    results = []
    for run in runs:
        with np.load(run.file(directory), allow_pickle=False) as archive:
            results.append({name: archive[name] for name in archive.files})
    return results


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress Lightning's messages about every small fit."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        logger.setLevel(level)


def fit(
    module: Method,
    data: EnvironmentDataModule,
    epochs: int,
    directory: str,
    *callbacks: Callback,
    logger: Logger | None = None,
    validate: bool = True,
) -> None:
    """`Trainer.fit` on the CPU, with a validation every `epochs`, unless `validate` is false.

    A DataModule with `env_steps` determines the number of epochs itself.
    """
    from lightning import Trainer
    from lightning.pytorch.callbacks import Checkpoint

    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=-1 if getattr(data, "env_steps", None) is not None else epochs,
        check_val_every_n_epoch=epochs,
        num_sanity_val_steps=0,
        limit_val_batches=1.0 if validate else 0,
        logger=logger or False,
        # only the given callbacks' own
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=directory,
        callbacks=list(callbacks),
    )
    trainer.fit(module, datamodule=data)


# Numbers


class Estimate(NamedTuple):
    """A statistic over seeds with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """`1.96 [1.93, 1.99]`."""
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def over_seeds(
    values: ArrayLike, statistic: Callable[[NDArray[Any]], Any], resamples: int = 2000, seed: int = 0
) -> tuple[Any, Any, Any]:
    """`statistic` of `values: [seeds, ...]`, and the ends of its 95 % percentile bootstrap interval.

    Whole seeds are resampled, so the values of one seed stay together.

    Args:
        values: Array `[seeds, ...]`.
        statistic: Function from `[seeds, ...]` to a number or an array.
        resamples: Number of resamples of the seeds.
        seed: Seed of the resampling.
    """
    values = np.asarray(values, dtype=np.float64)
    generator = np.random.default_rng(seed)
    drawn = generator.integers(len(values), size=(resamples, len(values)))
    samples = np.array([statistic(values[rows]) for rows in drawn])
    low, high = np.quantile(samples, [0.025, 0.975], axis=0)
    return statistic(values), low, high


def mean(values: ArrayLike) -> tuple[Any, Any, Any]:
    """The mean over seeds of `[seeds, ...]`, with its interval."""
    return over_seeds(values, lambda sample: sample.mean(axis=0), resamples=1000)


def interval(values: ArrayLike) -> dict[str, Any]:
    """For JSON: the mean over seeds and its 95 % bootstrap interval."""
    value, low, high = mean(values)
    return {"mean": float(value), "ci95": [float(low), float(high)]}


def with_interval(values: ArrayLike) -> dict[str, Any]:
    """For JSON: the mean over seeds, its 95 % bootstrap interval, and the value of each seed."""
    return interval(values) | {"seeds": np.asarray(values, dtype=np.float64).tolist()}


def log_log_slope(x: ArrayLike, y: ArrayLike) -> Estimate:
    """The exponent b of y ≈ a xᵇ, by least squares of log(mean of y over seeds) on log x, with its interval.

    The mean is taken before the logarithm, because a single seed may have cost 0.

    Args:
        x: Positive array `[K]`.
        y: Array `[seeds, K]`.
    """
    log_x = np.log(np.asarray(x, dtype=np.float64))
    centered = log_x - log_x.mean()

    def slope(sample: NDArray[Any]) -> Any:
        # A resample of only zeros has no exponent; a tiny number keeps the quantiles defined.
        return centered @ np.log(np.maximum(sample.mean(axis=0), 1e-12)) / (centered @ centered)

    return Estimate(*(float(end) for end in over_seeds(y, slope)))


# Pages


def write(out: Path, summary: Mapping[str, Any], page: Callable[[Mapping[str, Any]], str]) -> None:
    """Write `out/STUDY.json` and the page `out/STUDY.md`."""
    write_json(out / f"{summary['study']}.json", summary)
    atomic_write(out / f"{summary['study']}.md", page(summary))


# Figures


class Style(NamedTuple):
    """Line style of one method: color (Okabe & Ito), dashes and marker, each sufficient to identify it."""

    label: str
    color: str
    dashes: Any
    marker: str


EXPERT = Style("expert", "#000000", (0, (1, 1)), "s")
BC = Style("BC", "#D55E00", (0, ()), "o")
DAGGER = Style("DAgger", "#0072B2", (0, (5, 2)), "^")
RECOVERABLE = Style("BC, recoverable", "#E69F00", (0, (4, 1, 1, 1)), "D")
FINETUNED = Style("BC, then PPO", "#009E73", (0, ()), "v")
SCRATCH = Style("PPO from scratch", "#0072B2", (0, (5, 2)), "P")
GAIL = Style("GAIL", "#009E73", (0, ()), "v")
PPO = Style("PPO on the true reward", "#CC79A7", (0, (4, 1, 1, 1)), "P")
REFERENCE = "#666666"


def new_figure(width: float, height: float, *args: Any, **kwargs: Any) -> tuple[Figure, Any]:
    """A figure of the given size in inches and its axes, like `matplotlib.pyplot.subplots` without a display."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    mpl.rcParams.update(
        {
            "font.size": 8,
            "axes.titlesize": 8,
            "axes.labelsize": 8,
            "legend.fontsize": 7.5,
            "xtick.labelsize": 7.5,
            "ytick.labelsize": 7.5,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "legend.frameon": False,
            "lines.linewidth": 1.4,
            "lines.markersize": 4,
            "svg.hashsalt": "0",  # deterministic files
        }
    )
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.06)  # type: ignore[union-attr, call-arg]
    return figure, figure.subplots(*args, **kwargs)


def draw(
    axes: Axes, x: ArrayLike, band: tuple[Any, Any, Any], style: Style, label: str | None = None, marked: bool = False
) -> None:
    """Draw a mean `[K]` over `x` with its interval shaded."""
    value, low, high = band
    marker = style.marker if marked else ""
    name = style.label if label is None else label
    axes.plot(x, value, color=style.color, linestyle=style.dashes, marker=marker, label=name, zorder=3)
    axes.fill_between(np.asarray(x), low, high, color=style.color, alpha=0.22, linewidth=0)


def letter(axes: Sequence[Axes]) -> None:
    """Number the panels (a), (b), … before their titles."""
    for index, one in enumerate(axes):
        title = one.get_title()
        one.set_title("")
        one.set_title(f"({chr(ord('a') + index)}) {title}", loc="left")


def save_figure(figure: Figure, path: Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write `path` as `.png`, `.svg`, and the plotted numbers as `.csv`."""
    for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix, dpi=220, metadata=metadata)
        atomic_write(path.with_suffix(f".{suffix}"), buffer.getvalue())
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([[f"{v:.6g}" if isinstance(v, float) else v for v in row] for row in rows])
    atomic_write(path.with_suffix(".csv"), text.getvalue())
