"""Logger that writes `metrics.csv`."""

from __future__ import annotations

import csv
import io
import os
from argparse import Namespace
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import Logger

from lit_imitation.utils.files import atomic_write, with_path


class MetricsCSV(Logger):
    """Writes `DIR/metrics.csv`, one row per logging call, and continues the file of an interrupted run.

    Lightning's own CSV logger overwrites the file when a run is resumed. This one appends to an existing file unless
    `rewind` is called, so that a test in the directory of a run keeps the run's log.

    Args:
        save_dir: Directory of the run.
    """

    def __init__(self, save_dir: str) -> None:
        super().__init__()
        self._dir = save_dir
        self.path = Path(save_dir) / "metrics.csv"
        self._columns: list[str] = []
        self._pending: list[dict[str, Any]] = []
        self._rows = 0

    @property
    def name(self) -> str:
        """Empty: files are directly in the run's directory."""
        return ""

    @property
    def version(self) -> str:
        """Empty: runs have directories instead of versions."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run's directory."""
        return self._dir

    @property
    def log_dir(self) -> str:
        """The run's directory."""
        return self._dir

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: `config.yaml` has the hyper-parameters."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add a row; every 100 rows are written at once."""
        self._pending.append({"step": step, **{k: float(v) for k, v in metrics.items()}})
        if len(self._pending) >= 100:
            self.flush()

    @rank_zero_only
    def save(self) -> None:
        """Write pending rows."""
        self.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write pending rows. After a failure, ignore errors of writing, so that the failure itself is reported."""
        with suppress(OSError) if status == "failed" else nullcontext():
            self.flush()

    def flush(self) -> int:
        """Write pending rows and return the number of rows in the file."""
        if not self._pending:
            return self._rows
        if not self._columns and self.path.exists():
            held = self._read()
            self._columns, self._rows = list(held[0]) if held else [], len(held)
        rows = self._pending
        new = [column for row in rows for column in row if column not in self._columns]
        new = list(dict.fromkeys(new))
        if new and self._columns:
            self._rewrite([*self._read(), *rows], self._columns + new)
        elif new:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._rewrite(rows, new)
        else:
            self._append(rows)
        self._columns += new
        self._rows += len(rows)
        self._pending = []
        return self._rows

    def rewind(self, rows: int) -> None:
        """Keep the first `rows` rows of an existing file and continue after them."""
        kept = self._read()[:rows] if self.path.exists() else []
        self._pending, self._rows = [], len(kept)
        # Drops columns that first appear in later rows.
        self._columns = [c for c in (kept[0] if kept else {}) if any(row[c] for row in kept)]
        if kept:
            self._rewrite([{c: row[c] for c in self._columns} for row in kept], self._columns)
        else:
            self.path.unlink(missing_ok=True)

    def _append(self, rows: list[dict[str, Any]]) -> None:
        text = io.StringIO(newline="")
        csv.DictWriter(text, self._columns).writerows(rows)
        size = self.path.stat().st_size
        try:
            with self.path.open("a", newline="") as file:
                file.write(text.getvalue())
        except OSError as error:  # the disk is full: half a row would be read as a whole one
            with suppress(OSError):
                os.truncate(self.path, size)
            raise with_path(error, self.path) from error

    def _read(self) -> list[dict[str, Any]]:
        with self.path.open(newline="") as file:
            return list(csv.DictReader(file))

    def _rewrite(self, rows: list[dict[str, Any]], columns: list[str]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns)
        writer.writeheader()
        writer.writerows(rows)
        atomic_write(self.path, text.getvalue())
