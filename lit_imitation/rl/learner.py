"""What a learner is: a policy, and a way to improve it under a reward."""

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
    """Improves `policy` from rounds of experience, whose rewards come from wherever its caller takes them."""

    argument_owner = "learner"
    context = ("observation_space", "action_space", "policy")
    policy: Policy
    gamma: float
    """The discount."""
    replays: bool = False
    """Whether it learns from transitions of earlier rounds too. It asks `reward` for theirs itself then, each time:
    what a model of the reward says of a transition changes while the model learns."""
    reward: Callable[[Transitions], Tensor] | None = None
    """`[*batch]` transitions to `[*batch]` rewards, where they are not the environment's own."""
    demonstrations: Transitions | None = None
    """`[N]` transitions with rewards of their own, half of every minibatch of a learner that `replays`."""

    @property
    def acts_at_random(self) -> bool:
        """Whether the coming round's actions, or the last one's before `update`, are not the policy's but uniform."""
        return False

    @abstractmethod
    def optimizers(self) -> list[Optimizer]:
        """Made once, when the parameters are on the device where they stay; `update` steps them itself."""

    @abstractmethod
    def update(self, experience: Experience, progress: float) -> dict[str, Tensor]:
        """Improve the policy; `progress` in [0, 1) is the share of training that is over. Returns what to log, `[]`."""

    @property
    def descents(self) -> Sequence[Descent]:
        """What takes its gradient steps, in the order of `optimizers`; empty before those are made."""
        return []

    def begin(self) -> None:
        """The environments were reset: what is carried from one round to the next is so no longer."""

    def train(self: _Self, mode: bool = True) -> _Self:
        """Dropout stays off: what is learned from is what the policy said as it acted, and that was without."""
        return super().train(False)

    def explorer(self) -> Explorer:
        """What acts in the rounds that `update` is given."""
        return self.policy.explorer()

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs beside parameters, buffers and optimizers, as tensors and primitives."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse."""

    compile_gradient: bool = False
    """Whether gradients are compiled; those of a reward that is learned beside it are then too."""
    rounds: int = 0
    """Rounds learned from so far."""
    gradient_steps: int = 0
    """Optimizer steps so far."""


LearnerFactory: TypeAlias = Callable[[Space[Any], Space[Any], "Policy | None"], Learner[Any]]
"""Builds a learner from the spaces, around a policy that is there already or one of its own choice."""
