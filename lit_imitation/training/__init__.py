"""What surrounds a method: command line, run directory, progress, logging, checkpoints, repeated runs."""
