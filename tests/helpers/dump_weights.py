"""Callback that saves the final weights of each process."""

from pathlib import Path

import torch
from lightning import Callback


class DumpWeights(Callback):
    def on_fit_end(self, trainer, pl_module):
        file = Path(trainer.default_root_dir) / f"weights_{trainer.global_rank}.pt"
        state = {name: value.clone() for name, value in pl_module.state_dict().items()}
        counts = {"env_steps": pl_module.env_steps, "gradient_steps": pl_module.count_gradient_steps()}
        torch.save(state | {name: torch.tensor(value) for name, value in counts.items()}, file)
