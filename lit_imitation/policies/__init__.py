"""Policies: distributions over actions given observations."""

from lit_imitation.networks.critic import QFunctions, Value
from lit_imitation.policies.base import Policy, PolicyFactory
from lit_imitation.policies.categorical import CategoricalPolicy, MultiCategoricalPolicy
from lit_imitation.policies.checkpoints import default_policy, default_policy_class, load_policy
from lit_imitation.policies.continuous import DeterministicPolicy, GaussianPolicy
from lit_imitation.policies.ensemble import EnsemblePolicy
from lit_imitation.policies.squashed import SquashedGaussianPolicy

__all__ = [
    "CategoricalPolicy",
    "DeterministicPolicy",
    "EnsemblePolicy",
    "GaussianPolicy",
    "MultiCategoricalPolicy",
    "Policy",
    "PolicyFactory",
    "QFunctions",
    "SquashedGaussianPolicy",
    "Value",
    "default_policy",
    "default_policy_class",
    "load_policy",
]
