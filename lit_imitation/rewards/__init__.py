"""Reward models: learned rewards that replace the environment's reward."""

from lit_imitation.rewards.airl import AIRLDiscriminator
from lit_imitation.rewards.base import LearnableReward, RewardFactory, RewardModel
from lit_imitation.rewards.checkpoints import LearnedReward, load_reward
from lit_imitation.rewards.discriminator import AdversarialReward, Discriminator, DiscriminatorFactory
from lit_imitation.rewards.guided_cost import GuidedCost
from lit_imitation.rewards.tabular import (
    ConvolutionalReward,
    LinearReward,
    MLPReward,
    TabularReward,
    TabularRewardFactory,
)

__all__ = [
    "AIRLDiscriminator",
    "AdversarialReward",
    "ConvolutionalReward",
    "Discriminator",
    "DiscriminatorFactory",
    "GuidedCost",
    "LearnableReward",
    "LearnedReward",
    "LinearReward",
    "MLPReward",
    "RewardFactory",
    "RewardModel",
    "TabularReward",
    "TabularRewardFactory",
    "load_reward",
]
