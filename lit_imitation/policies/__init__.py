"""Policies: distributions over actions given observations."""

from lit_imitation.networks.critic import QFunctions, Value
from lit_imitation.policies.base import Policy, PolicyFactory
from lit_imitation.policies.categorical import CategoricalPolicy, MultiCategoricalPolicy
from lit_imitation.policies.checkpoints import default_policy, default_policy_class, load_policy
from lit_imitation.policies.continuous import DeterministicPolicy, GaussianPolicy
from lit_imitation.policies.cvae import CVAEPolicy
from lit_imitation.policies.diffusion import DiffusionPolicy
from lit_imitation.policies.ensemble import EnsemblePolicy
from lit_imitation.policies.flow import FlowPolicy
from lit_imitation.policies.mixture import MixturePolicy
from lit_imitation.policies.quantized import QuantizedPolicy
from lit_imitation.policies.sequence import SequencePolicy
from lit_imitation.policies.squashed import SquashedGaussianPolicy
from lit_imitation.policies.vq_bet import VQBeTPolicy

__all__ = [
    "CVAEPolicy",
    "CategoricalPolicy",
    "DeterministicPolicy",
    "DiffusionPolicy",
    "EnsemblePolicy",
    "FlowPolicy",
    "GaussianPolicy",
    "MixturePolicy",
    "MultiCategoricalPolicy",
    "Policy",
    "PolicyFactory",
    "QFunctions",
    "QuantizedPolicy",
    "SequencePolicy",
    "SquashedGaussianPolicy",
    "VQBeTPolicy",
    "Value",
    "default_policy",
    "default_policy_class",
    "load_policy",
]
