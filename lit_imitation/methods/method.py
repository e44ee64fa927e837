"""`Method`: a policy that learns by blocks of gradient steps."""

from __future__ import annotations

from typing import TypeVar

from lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_imitation.methods.evaluation import Evaluated
from lit_imitation.methods.resumable import Resumable
from lit_imitation.methods.run_hooks import RunHooks
from lit_imitation.methods.steps import block_rates, check_losses, count_steps, log_rows
from lit_imitation.optim.descent import Descent
from lit_imitation.optim.optimization import Optimization
from lit_imitation.policies import Policy, PolicyFactory, default_policy
from lit_imitation.rollout import Actor
from lit_imitation.utils.descriptions import Describable

Self = TypeVar("Self", bound="Method")


class Method(Evaluated, RunHooks, Resumable, Describable, LightningModule):
    """A policy, trained by gradient steps on blocks and judged by rollouts in the environment.

    A method defines `training_step`, which turns a block of work into optimizer steps by `descend`, and
    `configure_optimizers`, which builds the `Descent`s. Validation batches are held-out `Transitions` or finished
    `Episode`s of the current policy.

    Args:
        policy: Builds the policy from observation and action space; by default categorical for discrete and Gaussian
            for continuous actions.
    """

    argument_owner = "model"
    policy: Policy
    descent: Descent

    def __init__(self, policy: PolicyFactory | None = None) -> None:
        super().__init__()
        self.automatic_optimization = False
        self._policy_factory = policy or default_policy
        self.optimization = Optimization()

    @property
    def method(self) -> str:
        """Name of the method in summaries and run directories."""
        return type(self).__name__.lower()

    def configure_model(self) -> None:
        """Build the policy once the spaces are known; callbacks that copy the model may ask for it early."""
        if not hasattr(self, "policy") and self.attached:
            self.policy = self._policy_factory(self.datamodule.observation_space, self.datamodule.action_space)

    def actor(self, deterministic: bool = True) -> Actor:
        """What acts in evaluation: the mode of the policy, or draws from it."""
        return self.policy.actor(deterministic)

    def build_optimizer(self, parameters: list[nn.Parameter]) -> Optimizer | None:
        """Another optimizer of torch, for a subclass that wants one; None for Adam with the method's settings."""
        return None

    @property
    def accumulate_batches(self) -> int:
        """Minibatches of one optimizer step."""
        return self.optimization.accumulate_batches

    def descend(self, **columns: Tensor) -> Tensor:
        """Take the optimizer steps of a block `[K, B, …]` by `self.descent`.

        Args:
            columns: Arguments of the loss in their order, `[K, B, …]` each.

        Returns:
            `[steps, 1 + K + 1]`: loss, statistics and norm of the gradient of each step.

        Raises:
            TrainingError: a loss is not finite; names the step, its minibatch and the last good checkpoint.
        """
        rates = block_rates(self.descent, self.trainer, len(next(iter(columns.values()))))
        with self.signals.after_block():
            statistics = self.descent.steps(*columns.values(), rates=rates)
        check_losses(statistics[:, 0], columns, self.trainer, self.accumulate_batches)
        count_steps(self.trainer, len(statistics))
        return statistics

    def log_steps(self, figures: dict[str, Tensor], last: bool = False) -> None:
        """Log figures of the last optimizer steps, every `trainer.log_every_n_steps` of them.

        Args:
            figures: Values by name, `[steps]` each.
            last: Log the last step in any case.
        """
        chosen = log_rows(self.trainer, figures, last)
        if chosen is not None:
            self.log_dict({name: values[chosen].float() for name, values in figures.items()}, logger=False)
