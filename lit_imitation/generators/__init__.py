"""Generators: how a policy improves under a reward. No Lightning here."""

from lit_imitation.generators.base import Generator, GeneratorFactory
from lit_imitation.generators.ppo import PPO
from lit_imitation.generators.replay import Replay
from lit_imitation.generators.sac import SAC

__all__ = ["PPO", "SAC", "Generator", "GeneratorFactory", "Replay"]
