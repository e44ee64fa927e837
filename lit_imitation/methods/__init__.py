"""The methods: one LightningModule a rung of the ladder."""

from lit_imitation.methods.base import ImitationModule
from lit_imitation.methods.bc import BC
from lit_imitation.methods.rl import RL

__all__ = ["BC", "RL", "ImitationModule"]
