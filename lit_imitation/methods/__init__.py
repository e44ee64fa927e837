"""Methods: one LightningModule per algorithm."""

from lit_imitation.methods.airl import AIRL
from lit_imitation.methods.bc import BC
from lit_imitation.methods.cql import CQL
from lit_imitation.methods.gail import GAIL
from lit_imitation.methods.gcl import GCL
from lit_imitation.methods.iql import IQL
from lit_imitation.methods.maxent_irl import MaxEntIRL
from lit_imitation.methods.method import Method
from lit_imitation.methods.rl import RL
from lit_imitation.methods.rounds import RoundMethod
from lit_imitation.methods.td3_bc import TD3BC

__all__ = ["AIRL", "BC", "CQL", "GAIL", "GCL", "IQL", "RL", "TD3BC", "MaxEntIRL", "Method", "RoundMethod"]
