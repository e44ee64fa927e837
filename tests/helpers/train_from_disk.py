"""Program that clones a file and prints as JSON how long that took: `train_from_disk.py FILE MEMORY`."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from lightning import Callback, Trainer, seed_everything

from lit_imitation import BC, DemonstrationDataModule, GaussianPolicy


class Clock(Callback):
    """Times from the start of the program to training, and from there to the end of the epoch."""

    def on_train_epoch_start(self, trainer: Trainer, *args: Any) -> None:
        """Training begins."""
        self.began = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, *args: Any) -> None:
        """Training ends."""
        self.seconds = time.perf_counter() - self.began
        self.samples = trainer.global_step * trainer.datamodule.batch_size  # type: ignore[attr-defined]


def main(source: str, memory: str) -> None:
    """Train for one epoch."""
    started = time.perf_counter()
    seed_everything(0)
    data = DemonstrationDataModule(demonstrations=source, memory=memory, batch_size=64, val_fraction=0.02)
    clock = Clock()
    silent = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(max_epochs=1, accelerator="cpu", devices=1, callbacks=[clock], **silent)
    trainer.fit(BC(lambda *spaces: GaussianPolicy(*spaces, hidden_sizes=[64, 64])), data)
    told = {"before": clock.began - started, "training": clock.seconds, "rate": clock.samples / clock.seconds}
    print(json.dumps({**told, "samples": clock.samples, "streams": data.stored is not None}))


if __name__ == "__main__":
    main(*sys.argv[1:])
