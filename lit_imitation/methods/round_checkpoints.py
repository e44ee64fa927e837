"""`RoundCheckpoints`: checkpoints of methods that play rounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from lit_imitation.errors import ConfigError
from lit_imitation.methods.diagnostics import Alarms
from lit_imitation.methods.method import Method
from lit_imitation.methods.starting_policy import StartingPolicy
from lit_imitation.policies.checkpoints import describe
from lit_imitation.rewards import RewardModel
from lit_imitation.rl import Learner
from lit_imitation.utils.descriptions import Describable
from lit_imitation.utils.distributed import gather_to_first

if TYPE_CHECKING:
    Base = Method
else:
    Base = object


class RoundCheckpoints(Base):
    """Mixin of a method whose checkpoints hold its learner, its learned reward and data of past rounds."""

    learns_reward: ClassVar[bool]
    learner: Learner[Any]
    reward: RewardModel | None
    starting_policy: StartingPolicy
    alarms: Alarms | None = None
    """Counts rounds with cause for a warning."""
    _past: list[Any] | None = None
    """Data of past rounds, of every process, in the checkpoint from which training resumes."""

    def round_state(self) -> list[Any]:
        """Data of past rounds for a checkpoint, of this process: tensors and primitives."""
        return []

    def restored_round_state(self) -> list[Any] | None:
        """Data that `round_state` returned on this process when the checkpoint was written; None for a new run.

        Raises:
            ConfigError: the checkpoint is that of another number of processes.
        """
        if self._past is None:
            return None
        if len(self._past) != self.trainer.world_size:
            raise ConfigError(
                f"the checkpoint is that of {len(self._past)} processes; resume with {len(self._past)}, not "
                f"{self.trainer.world_size}"
            )
        mine: list[Any] = self._past[self.global_rank]
        return mine

    def count_gradient_steps(self) -> int:
        """Optimizer steps of the learner by now."""
        return self.learner.gradient_steps

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the learner's state, the description of a learned reward, and data of past rounds."""
        checkpoint["rounds"] = self.learner.rounds
        checkpoint["learner"] = self.learner.state()
        if self.learns_reward:
            checkpoint["reward"] = describe(self.reward)
        if self.alarms is not None:
            checkpoint["alarms"] = dict(self.alarms.rounds)
        checkpoint["past"] = gather_to_first(self.round_state())
        super().on_save_checkpoint(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the state; if the policy to start from is missing, start from the checkpoint's."""
        if not hasattr(self, "policy") and self.starting_policy.error is not None:
            if "origin" not in checkpoint.get("method", {}):
                raise self.starting_policy.error
            self.rebuild(checkpoint)
        super().on_load_checkpoint(checkpoint)
        self.learner.rounds, self.learner.gradient_steps = checkpoint["rounds"], checkpoint["gradient_steps"]
        if self.attached and self.trainer.state.fn == "fit":  # a replay buffer is of no use elsewhere
            self.learner.load_state(checkpoint.get("learner", {}))
        if self.alarms is not None:
            self.alarms.rounds = dict(checkpoint["alarms"])
        self._past = checkpoint["past"]

    def parts(self) -> dict[str, Describable | None]:
        """Learner, reward by any name, and the policy if one was given."""
        learned = {"reward": self.reward, "discriminator": self.reward} if self.learns_reward else {}
        return super().parts() | {"learner": self.learner} | learned

    def description(self) -> dict[str, Any]:
        """Description of the method, with the state of the policy at the start."""
        return super().description() | {"origin": dict(self.starting_policy.origin)}
