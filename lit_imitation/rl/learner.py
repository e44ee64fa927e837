"""The interface of a learner: a policy and a way to improve it under a reward."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

from gymnasium import Space
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_imitation.optim.descent import Descent
from lit_imitation.policies import Policy
from lit_imitation.policies.base import Explorer
from lit_imitation.transitions import Transitions
from lit_imitation.utils.descriptions import Describable

Experience = TypeVar("Experience")
_Self = TypeVar("_Self", bound="Learner[Any]")


class Learner(Describable, nn.Module, ABC, Generic[Experience]):
    """Improves `policy` from rounds of experience. The caller decides where the rewards come from."""

    argument_owner = "learner"
    context = ("observation_space", "action_space", "policy")
    policy: Policy
    descent: Descent
    """The one `Descent` of a learner with one optimizer; others override `descents`."""
    gamma: float
    """Discount γ."""
    replays: bool = False
    """Whether the learner also uses transitions of earlier rounds. It then calls `reward` each time it uses them, since
    the rewards that a model gives change while the model learns."""
    reward: Callable[[Transitions], Tensor] | None = None
    """Maps transitions `[*batch]` to rewards `[*batch]`; `None` uses the environment's own."""
    demonstrations: Transitions | None = None
    """Transitions `[N]` with their own rewards, which fill half of every minibatch of a learner that `replays`."""

    @property
    def acts_at_random(self) -> bool:
        """Whether the actions of the round that `update` receives next are uniformly random, not the policy's."""
        return False

    @abstractmethod
    def optimizers(self) -> list[Optimizer]:
        """Create the optimizers, once, when the parameters are on their final device. `update` steps them itself."""

    @abstractmethod
    def update(self, experience: Experience, progress: float) -> dict[str, Tensor]:
        """Improve the policy with one round.

        Args:
            experience: The round.
            progress: Completed share of training, in [0, 1).

        Returns:
            Metrics to log, each `[]`.
        """

    @property
    def descents(self) -> Sequence[Descent]:
        """One `Descent` per optimizer, in the order of `optimizers`; empty before that is called."""
        return [self.descent] if hasattr(self, "descent") else []

    def begin(self) -> None:
        """Drop what is carried over between rounds, because the environments were reset."""

    def train(self: _Self, mode: bool = True) -> _Self:
        """Keep evaluation mode: the rollout's log-probabilities were computed without dropout."""
        return super().train(False)

    def explorer(self) -> Explorer:
        """The actor that plays the rounds for `update`."""
        return self.policy.explorer()

    def state(self) -> dict[str, Any]:
        """Checkpoint state other than parameters, buffers and optimizers, as tensors and primitives."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned."""

    compile_gradient: bool = False
    """Whether gradients are compiled, including those of a reward model that is trained along with the learner."""
    rounds: int = 0
    """Number of rounds used so far."""
    gradient_steps: int = 0
    """Number of optimizer steps so far."""


LearnerFactory: TypeAlias = Callable[[Space[Any], Space[Any], "Policy | None"], Learner[Any]]
"""Builds a learner from the observation space, the action space, and a policy; `None` lets it build its own policy."""
