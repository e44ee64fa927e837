"""Reward models: what a transition is worth when the environment does not say, or is not asked."""

from lit_imitation.rewards.base import RewardModel

__all__ = ["RewardModel"]
