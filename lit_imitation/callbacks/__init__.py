"""What happens around training: the run's directory and summary, progress, trajectories, videos."""

from lit_imitation.callbacks.dagger import DAggerCallback
from lit_imitation.callbacks.human_labels import HumanLabels
from lit_imitation.callbacks.progress import ProgressBar, ProgressLines
from lit_imitation.callbacks.run import LastCheckpoint, RunDirectory
from lit_imitation.callbacks.trajectories import TrajectoryWriter
from lit_imitation.callbacks.video import VideoLogger

__all__ = [
    "DAggerCallback",
    "HumanLabels",
    "LastCheckpoint",
    "ProgressBar",
    "ProgressLines",
    "RunDirectory",
    "TrajectoryWriter",
    "VideoLogger",
]
