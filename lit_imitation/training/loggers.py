"""`metrics.csv`, the log that needs no account and no network."""

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
    """Writes `DIR/metrics.csv`, one row a logging call, and goes on where an interrupted run stopped.

    Lightning's own CSV logger starts the file anew when a run is resumed. Here rows are added to a file that is there,
    unless `rewind` says otherwise: a test in the directory of its run does not cost the run its log.

    Args:
        save_dir: the run's directory.
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
        """None of its own: files lie in the run's directory itself."""
        return ""

    @property
    def version(self) -> str:
        """None of its own."""
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
        """Nothing: `config.yaml` has them all."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add a row."""
        self._pending.append({"step": step, **{k: float(v) for k, v in metrics.items()}})
        if len(self._pending) >= 100:
            self.flush()

    @rank_zero_only
    def save(self) -> None:
        """Write what is pending."""
        self.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what is pending; after a failure as far as that works, so that the failure is what is reported."""
        with suppress(OSError) if status == "failed" else nullcontext():
            self.flush()

    def flush(self) -> int:
        """Write what is pending and return the number of rows in the file."""
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
        """Keep the first `rows` rows of an existing file and go on after them."""
        kept = self._read()[:rows] if self.path.exists() else []
        self._pending, self._rows = [], len(kept)
        # A column that only later rows had would not be there yet.
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
        except OSError as error:  # a full disk: half a row would be read as one
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
