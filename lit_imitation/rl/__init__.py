"""Generators: how a policy improves under a reward. No Lightning here."""

from lit_imitation.rl.learner import Generator, GeneratorFactory
from lit_imitation.rl.ppo import PPO
from lit_imitation.rl.replay import Replay
from lit_imitation.rl.sac import SAC

__all__ = ["PPO", "SAC", "Generator", "GeneratorFactory", "Replay"]
