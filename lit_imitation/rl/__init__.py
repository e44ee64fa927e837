"""Reinforcement learning: PPO and SAC, which improve a policy under a reward. This room does not import Lightning."""

from lit_imitation.rl.learner import Learner, LearnerFactory
from lit_imitation.rl.ppo import PPO
from lit_imitation.rl.replay import Replay
from lit_imitation.rl.sac import SAC

__all__ = ["PPO", "SAC", "Learner", "LearnerFactory", "Replay"]
