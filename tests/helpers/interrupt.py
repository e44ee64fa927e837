"""Callback that sends its own process a signal during a run."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

from lightning import Callback, LightningModule, Trainer


class Interrupt(Callback):
    """Sends this process a signal `delay` seconds after optimizer step `step`.

    Args:
        step: First step after which the delay starts.
        delay: Delay in seconds.
        name: `SIGKILL` or `SIGTERM`.
    """

    def __init__(self, step: int, delay: float, name: str) -> None:
        self.step, self.delay, self.signal = step, delay, signal.Signals[name]
        self._started = False

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Start the delay."""
        if trainer.global_step >= self.step and not self._started:
            self._started = True
            threading.Timer(self.delay, os.kill, (os.getpid(), self.signal)).start()
