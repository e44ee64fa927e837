"""Behavioral cloning: supervised learning of the expert's actions (Pomerleau 1991)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_imitation.methods.data_checks import check_demonstration_data, check_entropy, check_held_out
from lit_imitation.methods.method import Method
from lit_imitation.optim.descent import Descent
from lit_imitation.optim.optimization import Optimization
from lit_imitation.optim.tracing import is_traceable
from lit_imitation.policies import Policy, PolicyFactory
from lit_imitation.policies.sequence import SequencePolicy
from lit_imitation.transitions import Transitions
from lit_imitation.utils.ranges import check_finite, check_positive, check_weights
from lit_imitation.windows import Windows


class CloningLoss(nn.Module):
    """L(θ) of `BC` as a module."""

    def __init__(self, policy: Policy, entropy_coefficient: float, l2_coefficient: float) -> None:
        super().__init__()
        self.policy = policy
        self.entropy_coefficient, self.l2_coefficient = entropy_coefficient, l2_coefficient

    def forward(
        self, observation: Tensor, action: Tensor, weight: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return L(θ) `[]` of a minibatch `[B]`, and no statistics `[0]`, which `Descent` expects after the loss."""
        if weight is None:
            loss = self.policy.mean_loss(observation, action)
        elif mask is None:
            loss = torch.dot(self.policy.loss(observation, action), weight) / len(weight)
        else:
            assert isinstance(self.policy, SequencePolicy)
            loss = torch.dot(self.policy.loss(observation, action, mask), weight) / len(weight)
        if self.entropy_coefficient:
            loss = loss - self.entropy_coefficient * self.policy.entropy(observation).mean()
        if self.l2_coefficient:
            squares = torch.stack([parameter.square().sum() for parameter in self.policy.parameters()])
            loss = loss + 0.5 * self.l2_coefficient * squares.sum()
        return loss, loss.new_zeros(0)


class BC(Method):
    """Behavioral cloning: minimize the loss of the expert's actions over demonstrated state–action pairs.

        L(θ) = E_(s,a)~D [ w(s, a) · ℓ_θ(s, a) ] − c_H · E_s [ H(π_θ(· | s)) ] + c_2 · ½‖θ‖²

    The weights w have mean 1, H is the entropy in nats, and ℓ is the policy's own loss: cross-entropy, Gaussian
    negative log-likelihood, or a regression loss. With an error rate ε on the expert's states, the cost over T steps
    can grow like εT² (Ross & Bagnell 2010, theorem 2.1): a policy that errs once is in states that the expert never
    showed.

    Args:
        policy: Builds the policy from observation and action space; its class chooses ℓ.
        learning_rate: Learning rate of Adam.
        entropy_coefficient: c_H; above 0 keeps the policy from becoming certain.
        l2_coefficient: c_2, over all trained parameters.
        optimization: Clipping, accumulation, weight decay, schedule and averaging of weights.
        compile: Compile the gradient steps: 20 seconds at the start, then faster steps.

    Raises:
        ConfigError: a learning rate that is not positive, or a negative c_2.
    """

    def __init__(
        self,
        policy: PolicyFactory | None = None,
        learning_rate: float = 1e-3,
        entropy_coefficient: float = 0.0,
        l2_coefficient: float = 0.0,
        optimization: Optimization | None = None,
        compile: bool = False,
    ) -> None:
        check_positive("model", learning_rate=learning_rate)
        check_weights("model", l2_coefficient=l2_coefficient)
        check_finite("model", learning_rate=learning_rate, entropy_coefficient=entropy_coefficient)
        super().__init__(policy)
        self.learning_rate, self.compile_gradient = learning_rate, compile
        self.entropy_coefficient, self.l2_coefficient = entropy_coefficient, l2_coefficient
        self.optimization = optimization or Optimization()

    def training_step(self, block: Transitions | Windows, batch_idx: int) -> None:
        """Take a gradient step of L(θ) on each minibatch of a block `[K, B]`."""
        columns = {"observation": block.observation, "action": block.action}
        if isinstance(block, Windows):
            ones = torch.ones(block.batch_size, device=block.action.device)
            columns |= {"weight": ones if block.weight is None else block.weight, "mask": block.mask}
        elif block.weight is not None:
            columns["weight"] = block.weight
        statistics = self.descend(**columns)
        self.log_steps({"train/loss": statistics[:, 0]})

    def configure_optimizers(self) -> list[Optimizer]:
        """Adam over all parameters of the policy."""
        loss = CloningLoss(self.policy, self.entropy_coefficient, self.l2_coefficient)
        self.descent = Descent(
            loss,
            self.policy.parameters(),
            self.learning_rate,
            optimization=self.optimization,
            make_optimizer=self.build_optimizer,
            traced=is_traceable(loss),
            compiled=self.compile_gradient,
        )
        return [self.descent.optimizer]

    def setup(self, stage: str) -> None:
        """Build the policy, and standardize its inputs by the training split."""
        self.configure_model()
        if stage == "fit":
            data = check_demonstration_data(self.datamodule, type(self).__name__)
            check_held_out(self.trainer, data)
            observations = data.observations(data.train)
            self.policy.fit_normalizer(observations, self.policy.demonstrated(data.train, observations))
            check_entropy(self.policy, data.observations(data.train[:1]), self.entropy_coefficient)
