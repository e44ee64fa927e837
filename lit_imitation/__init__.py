"""lit_imitation: imitation learning and inverse reinforcement learning on PyTorch Lightning.

Public names are attributes of this module and are loaded on first use. Importing the package, or loading a policy,
therefore imports neither Lightning nor a tracker nor a plotting library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lit_imitation.data.demonstration_module import DemonstrationDataModule
    from lit_imitation.data.demonstrations import Demonstrations, read_demonstrations, write_demonstrations
    from lit_imitation.data.imitation_module import ImitationDataModule
    from lit_imitation.data.module import EnvironmentDataModule
    from lit_imitation.data.rollout_module import RolloutDataModule
    from lit_imitation.data.tabular_module import TabularDataModule
    from lit_imitation.envs.make import make
    from lit_imitation.experts import load_expert
    from lit_imitation.methods import AIRL, BC, GAIL, GCL, RL, MaxEntIRL, Method, RoundMethod
    from lit_imitation.methods.dagger.callback import DAggerCallback
    from lit_imitation.methods.dagger.human_labels import HumanLabels
    from lit_imitation.methods.dagger.schedules import ExponentialBeta, IndicatorBeta, LinearBeta
    from lit_imitation.metrics.epic import EPIC
    from lit_imitation.metrics.occupancy import OccupancyDivergence
    from lit_imitation.metrics.reward_recovery import ExpectedValueDifference
    from lit_imitation.optim.descent import Descent
    from lit_imitation.optim.optimization import Optimization
    from lit_imitation.policies import (
        CategoricalPolicy,
        CVAEPolicy,
        DeterministicPolicy,
        DiffusionPolicy,
        EnsemblePolicy,
        FlowPolicy,
        GaussianPolicy,
        MixturePolicy,
        MultiCategoricalPolicy,
        Policy,
        PolicyFactory,
        QuantizedPolicy,
        SequencePolicy,
        SquashedGaussianPolicy,
        VQBeTPolicy,
        load_policy,
    )
    from lit_imitation.rewards import (
        AIRLDiscriminator,
        ConvolutionalReward,
        Discriminator,
        GuidedCost,
        LinearReward,
        MLPReward,
        RewardModel,
        load_reward,
    )
    from lit_imitation.rl import PPO, SAC, Learner, LearnerFactory, Replay
    from lit_imitation.rollout import Episodes, Round, collect
    from lit_imitation.tabular import BinaryWorld, GridWorld, ObjectWorld, TabularMDP
    from lit_imitation.transitions import Transitions

_HOMES = {
    "AIRL": "methods",
    "AIRLDiscriminator": "rewards",
    "BC": "methods",
    "BinaryWorld": "tabular",
    "CategoricalPolicy": "policies",
    "collect": "rollout",
    "ConvolutionalReward": "rewards",
    "CQL": "methods",
    "CVAEPolicy": "policies",
    "DAggerCallback": "methods.dagger",
    "DemonstrationDataModule": "data.demonstration_module",
    "Demonstrations": "data.demonstrations",
    "Descent": "optim.descent",
    "DeterministicPolicy": "policies",
    "DiffusionPolicy": "policies",
    "Discriminator": "rewards",
    "EnsemblePolicy": "policies",
    "EnvironmentDataModule": "data.module",
    "EPIC": "metrics.epic",
    "Episodes": "rollout",
    "ExpectedValueDifference": "metrics.reward_recovery",
    "ExponentialBeta": "methods.dagger.schedules",
    "FlowPolicy": "policies",
    "GAIL": "methods",
    "GaussianPolicy": "policies",
    "GCL": "methods",
    "GridWorld": "tabular",
    "GuidedCost": "rewards",
    "HumanLabels": "methods.dagger",
    "ImitationDataModule": "data.imitation_module",
    "IndicatorBeta": "methods.dagger.schedules",
    "IQL": "methods",
    "Learner": "rl",
    "LearnerFactory": "rl",
    "LinearBeta": "methods.dagger.schedules",
    "LinearReward": "rewards",
    "load_expert": "experts",
    "load_policy": "policies",
    "load_reward": "rewards",
    "make": "envs",
    "MaxEntIRL": "methods",
    "Method": "methods",
    "MixturePolicy": "policies",
    "MLPReward": "rewards",
    "MultiCategoricalPolicy": "policies",
    "ObjectWorld": "tabular",
    "OccupancyDivergence": "metrics.occupancy",
    "OfflineDataModule": "data.offline_module",
    "Optimization": "optim.optimization",
    "Policy": "policies",
    "PolicyFactory": "policies",
    "PPO": "rl",
    "QuantizedPolicy": "policies",
    "read_demonstrations": "data.demonstrations",
    "Replay": "rl",
    "RewardModel": "rewards",
    "RL": "methods",
    "RolloutDataModule": "data.rollout_module",
    "Round": "rollout",
    "RoundMethod": "methods",
    "RoundRecorder": "training.round_recorder",
    "SAC": "rl",
    "SequencePolicy": "policies",
    "SquashedGaussianPolicy": "policies",
    "TD3BC": "methods",
    "TabularDataModule": "data.tabular_module",
    "TabularMDP": "tabular",
    "Transitions": "transitions",
    "VQBeTPolicy": "policies",
    "write_demonstrations": "data.demonstrations",
}

__version__ = "0.1.0"
__all__ = [
    "AIRL",
    "BC",
    "CQL",
    "EPIC",
    "GAIL",
    "GCL",
    "IQL",
    "PPO",
    "RL",
    "SAC",
    "TD3BC",
    "AIRLDiscriminator",
    "BinaryWorld",
    "CVAEPolicy",
    "CategoricalPolicy",
    "ConvolutionalReward",
    "DAggerCallback",
    "DemonstrationDataModule",
    "Demonstrations",
    "Descent",
    "DeterministicPolicy",
    "DiffusionPolicy",
    "Discriminator",
    "EnsemblePolicy",
    "EnvironmentDataModule",
    "Episodes",
    "ExpectedValueDifference",
    "ExponentialBeta",
    "FlowPolicy",
    "GaussianPolicy",
    "GridWorld",
    "GuidedCost",
    "HumanLabels",
    "ImitationDataModule",
    "IndicatorBeta",
    "Learner",
    "LearnerFactory",
    "LinearBeta",
    "LinearReward",
    "MLPReward",
    "MaxEntIRL",
    "Method",
    "MixturePolicy",
    "MultiCategoricalPolicy",
    "ObjectWorld",
    "OccupancyDivergence",
    "OfflineDataModule",
    "Optimization",
    "Policy",
    "PolicyFactory",
    "QuantizedPolicy",
    "Replay",
    "RewardModel",
    "RolloutDataModule",
    "Round",
    "RoundMethod",
    "RoundRecorder",
    "SequencePolicy",
    "SquashedGaussianPolicy",
    "TabularDataModule",
    "TabularMDP",
    "Transitions",
    "VQBeTPolicy",
    "collect",
    "load_expert",
    "load_policy",
    "load_reward",
    "make",
    "read_demonstrations",
    "write_demonstrations",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
