"""DAgger: a callback that relabels the learner's own states (Ross et al. 2011)."""

from lit_imitation.methods.dagger.callback import DAggerCallback
from lit_imitation.methods.dagger.human_labels import HumanLabels

__all__ = ["DAggerCallback", "HumanLabels"]
