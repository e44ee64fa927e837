"""The methods: one LightningModule a rung of the ladder."""

from lit_imitation.methods.base import ImitationModule
from lit_imitation.methods.bc import BC

__all__ = ["BC", "ImitationModule"]
