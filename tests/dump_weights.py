"""A callback of the tests: what each process ends with."""

from pathlib import Path

import torch
from lightning import Callback


class DumpWeights(Callback):
    def on_fit_end(self, trainer, pl_module):
        file = Path(trainer.default_root_dir) / f"weights_{trainer.global_rank}.pt"
        torch.save({name: value.clone() for name, value in pl_module.policy.state_dict().items()}, file)
