"""`Clock`: a callback that writes when each block or round of a training ended. It imports nothing of the package."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback


class Clock(Callback):
    """Writes `[seconds, processor seconds]` at the end of each `training_step`.

    Args:
        file: JSON file to write at the end of training.
    """

    def __init__(self, file: str) -> None:
        self.file, self.ends = file, list[list[float]]()

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Record the time."""
        self.ends.append([time.perf_counter(), time.process_time()])

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        """Write all times."""
        Path(self.file).write_text(json.dumps(self.ends))
