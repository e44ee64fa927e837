"""The directory of a run: configuration, checkpoints, metrics, and the summary at the end."""

from __future__ import annotations

import itertools
import math
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning_utilities.core.rank_zero import rank_zero_info
from rich.console import Console
from rich.table import Table

from lit_imitation.methods.method import Method
from lit_imitation.methods.signals import Interrupted
from lit_imitation.training.loggers import MetricsCSV
from lit_imitation.utils.distributed import is_lost_peer
from lit_imitation.utils.files import atomic_write, write_json
from lit_imitation.utils.program import resume_command
from lit_imitation.utils.versions import versions


class LastCheckpoint(ModelCheckpoint):
    """Writes `checkpoints/last.ckpt` at the end of epochs, for `--ckpt_path last`.

    It writes after the first and the last epoch, and between them at most once every `SECONDS`. A recipe's own
    `ModelCheckpoint` keeps the best checkpoint, and its `save_last` writes only when the best changes. This callback
    runs after it, so that the last checkpoint includes its state of the epoch.
    """

    SECONDS = 1.0
    """Writing a small policy takes as long as ten of its gradient steps."""

    def __init__(self) -> None:
        super().__init__(filename="last", save_on_train_epoch_end=True, enable_version_counter=False)
        self._written = -math.inf
        self.epochs = 0
        """Epochs of training in the file."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A resumed run starts with the epochs of its checkpoint."""
        super().on_train_start(trainer, pl_module)
        self.epochs = trainer.current_epoch

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the checkpoint if the last one is old enough, or if this is the last epoch."""
        due = time.monotonic() - self._written >= self.SECONDS or _is_last_epoch(trainer)
        if trainer.strategy.reduce_boolean_decision(due, all=False):  # saving is joint work of all processes
            super().on_train_epoch_end(trainer, pl_module)
            self._written, self.epochs = time.monotonic(), trainer.current_epoch + 1


def _is_last_epoch(trainer: Trainer) -> bool:
    """Whether training stops at the end of this epoch."""
    epochs, steps = trainer.max_epochs, trainer.max_steps
    return trainer.should_stop or trainer.current_epoch + 1 == epochs or 0 <= steps <= trainer.global_step


def tell_saved(trainer: Trainer) -> str:
    """Tell how much of a training that is cut now has been saved, and how to resume it."""
    epochs = max((one.epochs for one in trainer.checkpoint_callbacks if isinstance(one, LastCheckpoint)), default=0)
    saved = "no epoch is saved yet" if not epochs else f"{epochs} epoch{'s are' if epochs > 1 else ' is'} saved"
    return f"{saved}; resume with: {resume_command(trainer.default_root_dir)}"


class RunDirectory(Callback):
    """Writes `config.yaml`, `checkpoints/last.ckpt` on SIGTERM, and `summary.json` to the Trainer's `default_root_dir`.

    `summary.json` is written at the end of fit, validate and test, and holds `method, env_id, seed, env_steps,
    gradient_steps, wall_seconds, evaluated_on, loss, accuracy, action_error, action_errors, return_mean, return_std,
    return_iqm, return_ci95, length_mean, success_rate, normalized_score, normalized_score_ci95, expert_return,
    expert_return_error, random_return, random_return_error, episodes, checkpoint, versions`. Unmeasured values are
    null; without an environment `env_id` is empty. Methods and callbacks may add metrics with `summary_figures`.
    `env_steps` and `gradient_steps` count the steps that trained the evaluated policy. `wall_seconds` is the time spent
    in `fit`, with evaluation, summed over all resumptions. Errors of returns are standard errors.

    Args:
        config: Configuration of the run as YAML, without its directory, so that `--config` accepts it again.
    """

    def __init__(self, config: str) -> None:
        self.config = config
        self.summary: dict[str, Any] = {}
        self._wall_seconds = 0.0
        self._started: float | None = None
        self._resumed = self._fitting_run = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write `config.yaml`."""
        self._fitting = stage == "fit"
        self._fitting_run |= self._fitting
        if stage == "fit" and trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            directory = Path(trainer.default_root_dir)
            directory.mkdir(parents=True, exist_ok=True)
            atomic_write(directory / "config.yaml", self.config)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock; without a checkpoint `metrics.csv` starts empty."""
        self._started = time.perf_counter()
        if not self._resumed:  # removes rows of a run that was killed before its first checkpoint
            self._rewind(trainer, itertools.repeat(0))

    @property
    def wall_seconds(self) -> float:
        """Seconds spent in `fit` so far."""
        running = time.perf_counter() - self._started if self._started is not None else 0.0
        return self._wall_seconds + running

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock and summarize the last validation; a test overwrites this summary."""
        self._wall_seconds, self._started = self.wall_seconds, None
        if isinstance(pl_module, Method):
            pl_module.gradient_steps = pl_module.count_gradient_steps()
        self._summarize(trainer, pl_module, best_checkpoint(trainer))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Summarize `validate`; validations within `fit` write no summary."""
        if trainer.state.fn == "validate":
            self._summarize(trainer, pl_module, trainer.ckpt_path)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Summarize `test`."""
        self._summarize(trainer, pl_module, trainer.ckpt_path)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """On SIGTERM, save everything up to the last finished batch; on SIGTERM and Ctrl-C, print how to resume."""
        terminated = isinstance(exception, SIGTERMException)
        if is_lost_peer(exception):  # the same signal may have ended the other process
            terminated = isinstance(pl_module, Method) and pl_module.signals.told
        if not (terminated or isinstance(exception, KeyboardInterrupt)) or not self._fitting_run:
            return
        # A round, rollout or validation cannot be saved halfway, and a signal can end a validation within its last
        # batch. The checkpoint of an earlier epoch then remains, and resuming repeats what came after it.
        whole = isinstance(exception, SIGTERMException) and not isinstance(exception, Interrupted)
        if whole and trainer.state.fn == "fit" and not trainer.validating:
            trainer.save_checkpoint(Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt")
            resume = resume_command(trainer.default_root_dir)
            rest = f" at step {trainer.global_step}, which is saved; resume with: {resume}"
        else:
            rest = f"; {tell_saved(trainer)}"
        how = "interrupted" if isinstance(exception, KeyboardInterrupt) else "terminated"
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            rank_zero_info(how + rest)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the configuration, so that the checkpoint can be tested alone, and the length of `metrics.csv`."""
        checkpoint["config"] = self.config
        checkpoint["metrics_rows"] = [
            logger.flush() for logger in trainer.loggers if isinstance(logger, MetricsCSV) and trainer.is_global_zero
        ]

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Drop the rows of `metrics.csv` that were written after the checkpoint."""
        if trainer.state.fn == "fit":
            self._resumed = True
            self._rewind(trainer, checkpoint.get("metrics_rows", []))

    @staticmethod
    def _rewind(trainer: Trainer, rows: Iterable[int]) -> None:
        if trainer.is_global_zero:
            loggers = [logger for logger in trainer.loggers if isinstance(logger, MetricsCSV)]
            for logger, kept in zip(loggers, rows, strict=False):
                logger.rewind(kept)

    def state_dict(self) -> dict[str, Any]:
        """Time spent in `fit` so far."""
        return {"wall_seconds": self.wall_seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the time spent in `fit`; a checkpoint that is only tested does not reset the clock."""
        if self._fitting or not self._wall_seconds:
            self._wall_seconds = state_dict["wall_seconds"]

    def _summarize(self, trainer: Trainer, module: LightningModule, checkpoint: Any) -> None:
        if not isinstance(module, Method):
            return
        figures, data = module.evaluation, module.datamodule
        expert, random = data.expert_reference, data.random_reference if "return_mean" in figures else None
        directory = Path(trainer.default_root_dir)

        def interval(name: str) -> list[float] | None:
            return [figures[f"{name}_low"], figures[f"{name}_high"]] if f"{name}_low" in figures else None

        path = Path(checkpoint).resolve() if checkpoint else None
        inside = path is not None and path.is_relative_to(directory.resolve())
        self.summary = {
            "method": module.method,
            "env_id": data.env_id,
            "seed": data.seed,
            "env_steps": module.env_steps,
            "gradient_steps": module.gradient_steps,
            "wall_seconds": round(self._wall_seconds, 3),
            "evaluated_on": _name_evaluation(figures, data.name_held_out(str(trainer.state.fn.value))),  # type: ignore[union-attr]
            **{name: figures.get(name) for name in ("loss", "accuracy", "action_error")},
            "action_errors": module.action_errors,
            **{name: figures.get(name) for name in ("return_mean", "return_std", "return_iqm")},
            "return_ci95": interval("return_ci95"),
            "length_mean": figures.get("length_mean"),
            "success_rate": figures.get("success_rate"),
            "normalized_score": figures.get("normalized_score"),
            "normalized_score_ci95": interval("normalized_score_ci95"),
            "expert_return": expert.mean if expert else None,
            "expert_return_error": expert.error if expert else None,
            "random_return": random.mean if random else None,
            "random_return_error": random.error if random else None,
            "episodes": int(figures.get("episodes", 0)),
            "checkpoint": str(path.relative_to(directory.resolve()) if path and inside else path or ""),
            "versions": versions(),
        }
        for owner in (module, *trainer.callbacks):  # type: ignore[attr-defined]
            if hasattr(owner, "summary_figures"):
                self.summary |= owner.summary_figures()
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            directory.mkdir(parents=True, exist_ok=True)
            write_json(directory / "summary.json", self.summary)

    def print_table(self, directory: str) -> None:
        """Print the summary as a table."""
        where = f"on {self.summary['env_id']}" if self.summary["env_id"] else "from a file, without an environment"
        table = Table(title=f"{self.summary['method']} {where}", title_justify="left")
        table.add_column("figure")
        table.add_column("value", justify="right", overflow="fold")
        for name, value in self.summary.items():
            if name in ("method", "env_id", "versions") or value is None or name.endswith(("_ci95", "_return_error")):
                continue
            if isinstance(value, list):
                if name != "action_errors" or not 1 < len(value) <= 8:  # too long for a table
                    continue
                value = ", ".join(f"{error:.3g}" for error in value)
            if name == "episodes" and not value:  # held-out trajectories alone
                continue
            text = f"{value:.3f}" if isinstance(value, float) else str(value)
            # Errors and intervals share the row of their value.
            if name in ("expert_return", "random_return") and self.summary[f"{name}_error"]:
                text += f" ± {self.summary[f'{name}_error']:.3f}"
            bounds = {"return_iqm": "return_ci95", "normalized_score": "normalized_score_ci95"}.get(name)
            if bounds and self.summary[bounds]:
                text += " [{:.3f}, {:.3f}]".format(*self.summary[bounds])
            table.add_row(name, text)
        table.add_row("directory", directory)
        # Rich assumes 80 columns for a file and would truncate paths.
        Console(width=None if sys.stdout.isatty() else 240).print(table)


def _name_evaluation(figures: Mapping[str, float], held_out: str) -> str | None:
    """Name what was measured: held-out trajectories, episodes, or both; None if nothing was."""
    measured = [held_out] * ("loss" in figures) + ["episodes"] * ("return_mean" in figures)
    return " and ".join(measured) or None


def best_checkpoint(trainer: Trainer) -> str:
    """Path of the best checkpoint of the run, else of the last one, else an empty text."""
    for kind in ("best_model_path", "last_model_path"):
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if path := getattr(callback, kind, ""):
                return str(path)
    return ""
