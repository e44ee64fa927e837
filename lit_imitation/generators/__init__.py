"""Generators: how a policy improves under a reward. No Lightning here."""

from lit_imitation.generators.base import Generator, GeneratorFactory
from lit_imitation.generators.ppo import PPO

__all__ = ["PPO", "Generator", "GeneratorFactory"]
