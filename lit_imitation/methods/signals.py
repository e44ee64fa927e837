"""SIGTERM: a run stops where it can go on exactly."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch
from lightning import LightningModule
from lightning.pytorch.trainer.states import TrainerStatus
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lit_imitation.utils import interruption
from lit_imitation.utils.distributed import all_reduce, world_size

PATIENCE = 10.0
"""Seconds that a validation has to end after SIGTERM; after that its epoch is given up."""


class Interrupted(SIGTERMException):
    """SIGTERM inside a round, a rollout or a validation: half of one is not worth a checkpoint."""


def is_attached(module: LightningModule) -> bool:
    """Whether a Trainer runs the module; without one a checkpoint is being loaded."""
    try:
        return module.trainer is not None
    except RuntimeError:
        return False


class StopSignal:
    """Hears SIGTERM and stops the method's run: between blocks, or inside a round.

    Lightning's own handler sends a message to the other processes, which they could take for another one in the middle
    of an exchange. Here each process only notes the signal, and all agree on where to stop.

    Args:
        method: Method whose run is stopped.
        saves_between_blocks: Whether a checkpoint after any block is exact.
    """

    def __init__(self, method: LightningModule, saves_between_blocks: bool) -> None:
        self.method, self.saves_between_blocks = method, saves_between_blocks
        self.told = False
        """Whether the signal came to this process."""
        self._since: float | None = None
        self._in_block = False

    def listen(self) -> None:
        """Take SIGTERM from now on; Lightning restores the former handler at the end of the run."""
        if self.method.trainer.state.fn != "fit" or not self.method.trainer.validating:
            self.told, self._since = False, None
        interruption.raise_if_stopped, interruption.is_requested = self.check, lambda: self.told
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._note)

    @staticmethod
    def forget() -> None:
        """Nothing runs that could be stopped."""
        interruption.raise_if_stopped = interruption.is_requested = None

    def _note(self, number: int, frame: FrameType | None) -> None:
        launcher = self.method.trainer.strategy.launcher
        if launcher is not None and not self.told:
            launcher.kill(signal.Signals(number))  # the processes that Lightning started
        self.told = True

    @contextmanager
    def after_block(self) -> Iterator[None]:
        """Hold the signal back until the block of gradient steps inside is done."""
        self._in_block = True
        try:
            yield
        finally:
            self._in_block = False

    def check(self, agreed: bool = False) -> None:
        """Raise `Interrupted` if the signal came; a validation of a method that trains on blocks gets `PATIENCE`.

        Args:
            agreed: The signal came to one of several processes, and all stop here.
        """
        if self._in_block or not is_attached(self.method):
            return
        trainer = self.method.trainer
        if trainer.state.status != TrainerStatus.RUNNING:
            return
        if agreed:
            raise Interrupted
        if self._since is None and self.told:
            self._since = time.monotonic()
        if self._since is None:
            return
        waits = trainer.state.fn == "fit" and trainer.validating and self.saves_between_blocks
        if not waits or time.monotonic() - self._since > PATIENCE:
            raise Interrupted

    def stop_between_blocks(self) -> None:
        """Raise where a checkpoint of all processes is exact: after a block that does not end its epoch."""
        if not self.method.trainer.is_last_batch and self._agreed():
            raise SIGTERMException

    def stop_between_epochs(self) -> None:
        """Raise after an epoch and its validation, whose checkpoint is written."""
        if self._agreed():
            raise Interrupted

    def _agreed(self) -> bool:
        if world_size() == 1:
            return self.told
        told = torch.tensor(float(self.told), device=self.method.device)
        return bool(all_reduce(told).item())
