"""Methods: one LightningModule per algorithm."""

from lit_imitation.methods.airl import AIRL
from lit_imitation.methods.bc import BC
from lit_imitation.methods.gail import GAIL
from lit_imitation.methods.gcl import GCL
from lit_imitation.methods.iql import IQL
from lit_imitation.methods.maxent_irl import MaxEntIRL
from lit_imitation.methods.method import Method
from lit_imitation.methods.rl import RL
from lit_imitation.methods.rounds import RoundMethod

__all__ = ["AIRL", "BC", "GAIL", "GCL", "IQL", "RL", "MaxEntIRL", "Method", "RoundMethod"]
