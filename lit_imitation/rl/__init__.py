"""Learners: how a policy improves under a reward. No Lightning here."""

from lit_imitation.rl.learner import Learner, LearnerFactory
from lit_imitation.rl.ppo import PPO
from lit_imitation.rl.replay import Replay
from lit_imitation.rl.sac import SAC

__all__ = ["PPO", "SAC", "Learner", "LearnerFactory", "Replay"]
