"""Name of the running program, for commands in messages that can be pasted into a shell."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path


def program() -> str:
    """Program name as the user called it: `lit-imitation`, `python -m lit_imitation` or `python train.py`."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py" and called.parent.name == "lit_imitation":
        return "python -m lit_imitation"
    if called.name == "train.py":
        return f"python {shlex.quote(sys.argv[0])}"
    return "lit-imitation"


def resume_command(directory: str | Path) -> str:
    """Complete command that resumes the run in `directory`."""
    config, folder = (shlex.quote(str(path)) for path in (Path(directory) / "config.yaml", directory))
    return f"{program()} fit --config {config} --trainer.default_root_dir {folder} --ckpt_path last"
