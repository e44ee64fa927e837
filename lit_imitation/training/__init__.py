"""Everything around a training run: command line, run directory, progress, logging, checkpoints, repeated runs."""
