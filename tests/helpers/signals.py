"""Callback that puts its run into its own process group and sends it a signal at a chosen moment."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from typing import Any

from lightning import Callback, LightningModule, Trainer


class SendSignal(Callback):
    """Sends this process a signal.

    Args:
        name: `SIGKILL`, `SIGTERM` or `SIGINT`.
        step: First optimizer step after which the delay starts.
        delay: Delay in seconds.
        phase: `train`, or `validation` to start the delay at the first validation after the step.
    """

    def __init__(self, name: str, step: int, delay: float, phase: str = "train") -> None:
        self.signal, self.step, self.delay, self.phase = signal.Signals[name], step, delay, phase
        self._started = False
        os.setpgrp()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore SIGINT
        # As in a normal run; the default here would be the fork server of the tests.
        multiprocessing.set_start_method("fork", force=True)

    def _end(self) -> None:
        if not self._started:
            self._started = True
            threading.Timer(self.delay, os.kill, (os.getpid(), self.signal)).start()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Start the delay."""
        if self.phase == "train" and trainer.global_step >= self.step:
            self._end()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the delay."""
        if self.phase == "validation" and trainer.global_step >= self.step:
            self._end()
