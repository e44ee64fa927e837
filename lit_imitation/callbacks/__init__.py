"""What happens around training: the run's directory and summary, progress, trajectories, videos."""

from lit_imitation.callbacks.progress import ProgressBar
from lit_imitation.callbacks.run import LastCheckpoint, RunDirectory
from lit_imitation.callbacks.trajectories import TrajectoryWriter
from lit_imitation.callbacks.video import VideoLogger

__all__ = ["LastCheckpoint", "ProgressBar", "RunDirectory", "TrajectoryWriter", "VideoLogger"]
