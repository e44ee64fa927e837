"""`OfflineMethod`: base class of reinforcement learning from recorded transitions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from torch import nn

from lit_imitation.data.offline_module import OfflineDataModule
from lit_imitation.errors import ConfigError
from lit_imitation.methods.checkpoints import spaces_of
from lit_imitation.methods.method import Method
from lit_imitation.networks.critic import QFunctions
from lit_imitation.networks.mlp import Activation
from lit_imitation.optim.optimization import Optimization
from lit_imitation.policies import PolicyFactory
from lit_imitation.policies.sequence import SequencePolicy
from lit_imitation.rl.action_values import make_q_functions
from lit_imitation.transitions import Transitions
from lit_imitation.utils.ranges import check_at_least, check_between, check_positive
from lit_imitation.windows import WindowSize


class OfflineMethod(Method):
    """A policy π and Q-functions Q_1, Q_2, learned from recorded transitions (s, a, r, s', terminated) alone.

    Target networks follow as Q̄ ← Q̄ + τ (Q − Q̄) after each step. A truncated transition bootstraps its value.

    Subclasses define `configure_optimizers` and `training_step`.

    Args:
        policy: Builds the policy from observation and action space.
        hidden_sizes: Hidden layers of the Q-functions, and of other functions of state that a subclass learns.
        activation: Activation between these.
        learning_rate: Learning rate of Adam.
        gamma: Discount γ.
        tau: Step size τ of the target networks.
        optimization: Clipping, weight decay, schedule and averaging of weights.
        compile: Compile the gradients: a minute at the start, then faster steps.

    Raises:
        ConfigError: An argument is out of range.
    """

    critic: QFunctions
    target: QFunctions
    needs_next_actions = False
    """Whether a step reads `next_action`, which otherwise is not gathered for each minibatch."""

    def __init__(
        self,
        policy: PolicyFactory | None = None,
        hidden_sizes: Sequence[int] = (256, 256),
        activation: Activation = "relu",
        learning_rate: float = 3e-4,
        gamma: float = 0.99,
        tau: float = 0.005,
        optimization: Optimization | None = None,
        compile: bool = False,
    ) -> None:
        check_at_least("model", 1, **{f"hidden_sizes[{i}]": size for i, size in enumerate(hidden_sizes)})
        check_positive("model", learning_rate=learning_rate)
        check_between("model", 0.0, 1.0, gamma=gamma, tau=tau)
        super().__init__(policy)
        self.hidden_sizes, self.activation = list(hidden_sizes), activation
        self.learning_rate, self.gamma, self.tau = learning_rate, gamma, tau
        self.optimization, self.compile_gradient = optimization or Optimization(), compile
        if self.optimization.accumulate_batches > 1:
            raise ConfigError(
                f"model.optimization.accumulate_batches is {self.optimization.accumulate_batches}; "
                f"{type(self).__name__} takes a step per minibatch: raise data.batch_size instead"
            )

    def configure_model(self) -> None:
        """Build the policy and what judges it once the spaces are known."""
        if hasattr(self, "policy") or not self.attached:
            return
        super().configure_model()
        self.build_values(*self.datamodule.spaces)

    def rebuild(self, checkpoint: dict[str, Any]) -> None:
        """Build the same for the spaces of a checkpoint."""
        super().rebuild(checkpoint)
        self.build_values(*spaces_of(checkpoint))

    def build_values(self, observation_space: Any, action_space: Any) -> None:
        """Build the Q-functions and their targets."""
        name, policy = type(self).__name__, self.policy
        if isinstance(policy, SequencePolicy) and policy.window != WindowSize():
            raise ConfigError(
                f"{name} values single actions, but model.policy plans {policy.horizon} from {policy.n_obs_steps} "
                "observations: set its n_obs_steps, horizon and n_action_steps to 1"
            )
        self.critic = make_q_functions(
            observation_space, action_space, self.hidden_sizes, self.activation, policy.encoder.kind
        )
        self.target = deepcopy(self.critic).requires_grad_(False)

    @property
    def judges(self) -> Sequence[nn.Module]:
        """Functions of the observation beside the policy, which standardize it as the policy does."""
        return [self.critic, self.target]

    def setup(self, stage: str) -> None:
        """Build, and standardize observations by the training split."""
        self.configure_model()
        if stage != "fit":
            return
        data = self.datamodule
        if not isinstance(data, OfflineDataModule):
            raise ConfigError(
                f"{type(self).__name__} learns from recorded transitions with rewards; use "
                f"lit_imitation.OfflineDataModule, not {type(data).__name__}"
            )
        if not self.needs_next_actions:
            data.train.next_action = None
        self.policy.fit_normalizer(data.train.observation, data.train.action)
        for judge in self.judges:
            judge.encoder.copy_statistics(self.policy.encoder)  # type: ignore[union-attr, operator]

    @abstractmethod
    def training_step(self, block: Transitions, batch_idx: int) -> None:
        """Take the gradient steps of a block `[K, B]` of transitions."""
