"""Maximum-entropy inverse reinforcement learning in worlds whose transitions are known (Ziebart et al. 2008, 2010)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from typing import Any, Literal, get_args

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import PearsonCorrCoef

from lit_imitation.data.tabular_module import EvaluationWorld, TabularDataModule
from lit_imitation.errors import ConfigError, TrainingError
from lit_imitation.methods.checkpoints import spaces_of
from lit_imitation.methods.method import Method
from lit_imitation.metrics.epic import EPIC
from lit_imitation.metrics.reward_recovery import (
    ExpectedValueDifference,
    reward_function,
    sample_transitions,
    to_transitions,
)
from lit_imitation.optim.descent import Descent
from lit_imitation.optim.optimization import Optimization
from lit_imitation.policies import CategoricalPolicy
from lit_imitation.rewards.tabular import LinearReward, TabularReward, TabularRewardFactory
from lit_imitation.rollout import Actor, Episode
from lit_imitation.rollout.reference import Reference
from lit_imitation.tabular.likelihood import Baselines, action_log_likelihood, baselines
from lit_imitation.tabular.mdp import TabularMDP
from lit_imitation.tabular.planning import Entropy, Inflow, Planning, first_policy, log_partition
from lit_imitation.tabular.trajectories import UNKNOWN, Trajectories
from lit_imitation.transitions import Inputs, Transitions
from lit_imitation.utils.descriptions import Describable, decode, describe
from lit_imitation.utils.distributed import all_reduce, world_size

StepWeights = Literal["equal", "discounted"]

BASELINES = ("uniform_log_likelihood", "markov_log_likelihood")

LEAST_WEIGHT = 0.1
"""The share of the demonstrated steps that discounted weights must leave, or else a warning says how few they are."""

LEAST_LOG_PROBABILITY = -100.0
"""Below it a policy's table does not go: an action that is never taken is as good as one in e¹⁰⁰."""


class _Loss(nn.Module):
    """−L(θ) of `MaxEntIRL` as a module whose parameters are the reward's."""

    def __init__(self, reward: TabularReward, evaluate: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.reward, self.evaluate = reward, evaluate

    def forward(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """As `MaxEntIRL.loss`."""
        return self.evaluate(numbers)


class MaxEntIRL(Method):
    """Maximize the log-likelihood a step of the M steps of demonstrated trajectories s_0, a_0, …, s_n.

    By `entropy: causal` (2010) that is the likelihood of the actions,

        L(θ) = 1/M Σ_i Σ_{t<n} log π_t(a_t | s_t) − c_2 · ½‖θ‖²,
        log π_t(a | s) = r_θ(s, a) + γ Σ_s′ p(s′ | s, a) V_{t+1}(s′) − V_t(s),

    with V of `Planning` under r_θ. Every step counts the same, however late it comes: each is a start of its own, for
    the return that is still ahead of it. Since ∇V_t(s) is the learner's discounted occupancy from s on, the gradient is

        ∇L = 1/M Σ_s,a [ n(s, a) − d_θ(s, a) ] ∇r_θ(s, a) − c_2 θ,

    with n the expert's counts and d_θ = Σ_i Σ_t [ occupancy from s_t on, less γ times that from p(· | s_t, a_t) on ].
    Where an action is not known, V_{t+1}(s_{t+1}) of the state that was seen stands for the mean.

    With `step_weights: discounted` step t counts γᵗ, and L is a mean over the N trajectories:

        L(θ) = 1/N Σ_i [ Σ_{t<n} γᵗ r_θ(s_t, a_t, s_{t+1}) + γⁿ V_n(s_n) − V_0(s_0) ] − c_2 · ½‖θ‖².

    The bracket is Σ_t γᵗ log π_t(a_t | s_t) with the successors that were seen in place of their mean, which is the
    same in expectation, and n and d_θ are the expert's and the learner's discounted visits. V_n(s_n) is 0 at the
    horizon; elsewhere it stands for what nobody saw of a trajectory that was cut.

    By `entropy: trajectory` (2008), where γ is 1, the bracket is log P(ζ | s_0), but for the dynamics' own
    log-probabilities, which do not depend on θ, and L is its sum over all trajectories divided by M.

    Training stops where the gradient with respect to a reward that is linear in the features is small,
    max_j |1/M Σ_s (n(s) − d_θ(s)) φ_j(s)| ≤ `gap_tolerance` (1/N by `discounted`); in a world without features, that
    with respect to the reward of each state.

    `log_likelihood` is that a step, in nats, on the demonstrations that are learned from; `uniform_log_likelihood` and
    `markov_log_likelihood` are those of the `Baselines`, and `held_out_…` all three on trajectories that are held out.

    The policy that is kept (and played in validation) is π of the first world under r_θ, with a horizon π_0: it acts as
    if all of it were still ahead.

    Args:
        reward: builds the reward model; by default `LinearReward`.
        entropy: `causal` or `trajectory`.
        horizon: T; None for no end.
        gamma: γ.
        tolerance: of planning without end.
        learning_rate: of Adam.
        l2_coefficient: c_2; above 0 the reward stays bounded where demonstrations never do what they could.
        gap_tolerance: of the features' expectations; 0 to train on.
        optimization: Clipping, weight decay, schedule and averaging of weights.
        step_weights: `equal`: each demonstrated step counts the same; `discounted`: step t counts γᵗ.

    Raises:
        ConfigError: a setting out of its range.
    """

    reward: TabularReward
    shown = ("expected_value_difference", "return_mean")
    precisions = ("32-true", "64-true")

    def __init__(
        self,
        reward: TabularRewardFactory | None = None,
        entropy: Entropy = "causal",
        horizon: int | None = None,
        gamma: float = 0.95,
        tolerance: float = 1e-4,
        learning_rate: float = 0.05,
        l2_coefficient: float = 0.0,
        gap_tolerance: float = 1e-3,
        step_weights: StepWeights = "equal",
        optimization: Optimization | None = None,
    ) -> None:
        if step_weights not in get_args(StepWeights):
            raise ConfigError(f"model.step_weights is {step_weights!r}; choose equal or discounted")
        if not 0.0 < learning_rate < math.inf:
            raise ConfigError(f"model.learning_rate is {learning_rate}; it must be positive")
        for name, value in (("l2_coefficient", l2_coefficient), ("gap_tolerance", gap_tolerance)):
            if not 0.0 <= value < math.inf:
                raise ConfigError(f"model.{name} is {value}; it must be 0 or more")
        if entropy == "none":
            raise ConfigError("model.entropy none gives no likelihood; take causal or trajectory")
        super().__init__(partial(CategoricalPolicy, hidden_sizes=()))
        self.optimization = optimization or Optimization()
        self.planning = Planning(horizon, gamma, tolerance, entropy)
        self.learning_rate, self.l2_coefficient, self.gap_tolerance = learning_rate, l2_coefficient, gap_tolerance
        self.step_weights = step_weights
        self._reward_factory: TabularRewardFactory = reward or LinearReward
        self.fitted: dict[str, Tensor] = {}
        """Log-likelihood and gap of the features' expectations, by the last step."""
        self.likelihoods: dict[str, float] = {}
        """Log-likelihoods a step of the baselines and of what is held out, and the discounted method's own."""
        self.recovery: dict[str, float] = {}
        """How good the reward is, by the last validation or test."""
        self.value_difference = ExpectedValueDifference(self.planning)
        self.fresh_value_difference = ExpectedValueDifference(self.planning)
        self.correlation = PearsonCorrCoef()
        self._epic: list[EPIC] = []
        self._moved: dict[tuple[int, torch.device, torch.dtype], tuple[TabularMDP, TabularMDP]] = {}

    @property
    def worlds(self) -> TabularDataModule:
        """The DataModule of the running Trainer."""
        data = self.datamodule
        if not isinstance(data, TabularDataModule):
            raise ConfigError(
                f"MaxEntIRL needs to know the world's transitions; {type(data).__name__} does not tell them: use "
                "lit_imitation.TabularDataModule"
            )
        return data

    def configure_model(self) -> None:
        """Build reward and policy, once the world is known."""
        if hasattr(self, "policy") or not self.attached:
            return
        super().configure_model()
        self.policy.requires_grad_(False)  # a table that follows from the reward
        world = self.worlds.worlds[0]
        features = 0 if world.features is None else world.features.shape[1]
        self.reward = self._reward_factory(*self.datamodule.spaces, features, world.grid)

    def setup(self, stage: str) -> None:
        """Check that the worlds can be compared, and the demonstrations against their worlds."""
        data = self.worlds
        self.configure_model()
        if stage != "fit":
            return
        first, *others = [*data.worlds, *data.fresh]
        shapes = [None if mdp.features is None else mdp.features.shape[1:] for mdp in (first, *others)]
        if others and (None in shapes or len(set(shapes)) > 1):
            raise ConfigError(
                "several worlds share one reward by their features; these have none, or different numbers"
            )
        self.reward.store_features(first)
        self.demonstrations = [
            one.check(mdp, self.reward.inputs, self.planning.horizon).to(self.trainer.strategy.root_device)
            for one, mdp in zip(data.trajectories, data.worlds, strict=True)
        ]
        self.held_out = [
            None if one is None else one.check(mdp, self.reward.inputs, self.planning.horizon)
            for one, mdp in zip(data.held_out, data.worlds, strict=True)
        ]
        self._targets: dict[int, tuple[Inflow, Tensor, Tensor]] = {}
        self._note_baselines()
        truth = data.worlds[0].reward
        if data.expert_reference is None and truth is not None:  # of trajectories that were given
            returns = self.demonstrations[0].returns(data.worlds[0], truth)
            data.set_reference(Reference.of(returns.cpu().numpy()), comparable=False)

    def actor(self, deterministic: bool = True) -> Actor:
        """What acts in evaluation rollouts, in float32 whatever the precision of planning."""
        return deepcopy(self.policy).float().actor(deterministic)

    @property
    def _discounted(self) -> bool:
        """Whether step t counts γᵗ; by `entropy: trajectory` γ is 1."""
        return self.step_weights == "discounted" and self.planning.entropy == "causal"

    def _note_baselines(self) -> None:
        """Measure the baselines on what is learned from and on what is held out; warn where little of it counts."""
        known = [bool((one.action != UNKNOWN).all()) for one in self.demonstrations]
        worlds = self.worlds.worlds
        self.likelihoods = {}
        if all(known):
            cpu = [one.to("cpu") for one in self.demonstrations]
            found = [baselines(mdp, one, one) for mdp, one in zip(worlds, cpu, strict=True)]
            self.likelihoods |= _a_step(found, "")
            pairs = [(mdp, one, of) for mdp, one, of in zip(worlds, self.held_out, cpu, strict=True) if one is not None]
            if pairs and all(bool((one.action != UNKNOWN).all()) for _, one, _ in pairs):
                self.likelihoods |= _a_step([baselines(*pair) for pair in pairs], "held_out_")
        self.steps = sum(len(one.state) for one in self.demonstrations)
        counted = sum(float((self.planning.gamma ** one.step.double()).sum()) for one in self.demonstrations)
        if self.step_weights == "discounted" and counted < LEAST_WEIGHT * self.steps:
            rank_zero_warn(
                f"by model.step_weights discounted step t counts γᵗ, and the weights of the {self.steps} demonstrated "
                f"steps sum to {counted:.0f}, {counted / self.steps:.1%} of them: the later steps hardly count. Take "
                "equal, a larger model.gamma, or shorter trajectories"
            )

    def here(self, mdp: TabularMDP) -> TabularMDP:
        """A world on the module's device, in the precision of its parameters."""
        dtype = next(self.reward.parameters()).dtype
        key = id(mdp), self.device, dtype
        if key not in self._moved:
            # The original too: the address of a world that is gone may become that of another one.
            self._moved[key] = mdp, mdp.to(self.device, dtype)
        return self._moved[key][1]

    def training_step(self, block: Tensor, batch_idx: int) -> None:
        """Take a gradient step of L(θ) on each row of `block: [K, B]`, numbers of trajectories."""
        found = []
        for batch in block:
            likelihood, *gap = (all_reduce(self.descend(numbers=batch[None])[0, 1:-1]) / world_size()).unbind()
            found.append(torch.stack([likelihood, torch.stack(gap).abs().max()]))
            if self.gap_tolerance and float(found[-1][1]) <= self.gap_tolerance:
                self.trainer.should_stop = True
                break
        name = "discounted_log_likelihood" if self._discounted else "log_likelihood"
        figures = dict(zip((name, "feature_gap"), torch.stack(found, 1), strict=True))
        self.fitted = {name: values[-1] for name, values in figures.items()}
        for baseline in BASELINES:
            if baseline in self.likelihoods:
                figures[baseline] = figures[name].new_full((len(found),), self.likelihoods[baseline])
        self.log_steps({f"train/{name}": values for name, values in figures.items()}, self.trainer.should_stop)

    def loss(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """−L(θ) `[]` on the trajectories with these numbers `[B]`.

        The statistics are the log-likelihood, and the gap between the expert's and the learner's expectations of the
        features (of the states where a world has none): `[1 + features]`.
        """
        loss = torch.zeros((), device=self.device)
        gap: Tensor | float = 0.0
        count = sum(len(one.length) for one in self.demonstrations)
        # A constant per trajectory, so that the gradient of the whole is the mean of the gradients of its parts.
        scale = (1.0 if self._discounted else count / self.steps) / len(numbers)
        for number, chosen in self._shares(numbers):
            mdp = self.here(self.worlds.worlds[number])
            table = self.reward.table(mdp)
            self._check(table.values, "reward")
            target = self._targets.get(number) if len(numbers) == count else None
            if target is None:
                target = self._aim(mdp, table.inputs, chosen, scale)
                if len(numbers) == count:  # the same in every step
                    self._targets[number] = target
            inflow, visits, of_states = target
            partition, learner = log_partition(mdp, table, inflow, self.planning)
            loss = loss + partition - (visits * table.values).sum()
            difference = of_states - learner.sum(1)
            gap = gap + (difference if mdp.features is None else difference @ mdp.features)
        self._check(loss, "loss")
        statistics = torch.cat([-loss.detach()[None], gap])  # type: ignore[list-item]
        if self.l2_coefficient:
            squares = torch.stack([parameter.square().sum() for parameter in self.reward.parameters()])
            loss = loss + 0.5 * self.l2_coefficient * squares.sum()
        return loss, statistics

    def _aim(
        self, mdp: TabularMDP, inputs: Inputs, chosen: Trajectories, scale: float
    ) -> tuple[Inflow, Tensor, Tensor]:
        """Inflow and the expert's visits, of what the reward is of and of states, times `scale`."""
        if self.planning.entropy == "causal" and not self._discounted:
            inflow, visits = chosen.step_inflow(mdp, self.planning), chosen.step_visits(mdp, inputs)
            of_states = visits if inputs == "state" else chosen.step_visits(mdp, "state")
        else:
            gamma = self.planning.gamma
            inflow, visits = chosen.inflow(mdp, self.planning), chosen.visits(mdp, inputs, gamma)
            of_states = visits if inputs == "state" else chosen.visits(mdp, "state", gamma)
        return {t: weight * scale for t, weight in inflow.items()}, visits * scale, of_states * scale

    def _shares(self, batch: Tensor) -> Iterator[tuple[int, Trajectories]]:
        """The numbers of the worlds that the trajectories are from, with those from each."""
        offset = 0
        for number, demonstrations in enumerate(self.demonstrations):
            count = len(demonstrations.length)
            mine = batch[(batch >= offset) & (batch < offset + count)] - offset
            offset += count
            if len(mine):
                yield number, demonstrations if len(mine) == count else demonstrations.select(mine)

    def _check(self, values: Tensor, what: str) -> None:
        """Stop before what is not finite reaches the weights."""
        if bool(values.isfinite().all()):
            return
        bad = int((~values.isfinite()).sum())
        raise TrainingError(
            f"the {what} has diverged at step {self.global_step} (epoch {self.current_epoch}): {bad} of "
            f"{values.numel()} values are not finite; model.l2_coefficient above 0 keeps it bounded\n"
            f"{self.last_good()}"
        )

    def configure_optimizers(self) -> list[Optimizer]:
        """Adam over the parameters of the reward."""
        loss = _Loss(self.reward, self.loss)
        self.descent = Descent(
            loss,
            self.reward.parameters(),
            self.learning_rate,
            optimization=self.optimization,
            make_optimizer=self.build_optimizer,
        )
        return [self.descent.optimizer]

    # Evaluation

    @torch.no_grad()
    def refresh_policy(self) -> None:
        """Put π of the first world under the current reward into the policy's table."""
        mdp = self.here(self.worlds.worlds[0])
        policy = first_policy(mdp, self.reward.table(mdp), self.planning)
        table: Any = self.policy.network.layers[0]  # type: ignore[index]
        table.weight.copy_(policy.T.log().clamp(min=LEAST_LOG_PROBABILITY))
        table.bias.zero_()

    def _measure_likelihoods(self) -> None:
        """Log-likelihoods a step that the training step does not know, under the current reward."""
        named = [("held_out_", [(i, one) for i, one in enumerate(self.held_out) if one is not None])]
        if self._discounted:
            named.append(("", list(enumerate(self.demonstrations))))
        for prefix, chosen in named:
            if f"{prefix}uniform_log_likelihood" not in self.likelihoods:
                continue
            total, steps = 0.0, 0
            for number, trajectories in chosen:
                mdp = self.here(self.worlds.worlds[number])
                there = trajectories.to(mdp.device)
                total += action_log_likelihood(mdp, self.reward.table(mdp), there, self.planning)
                steps += len(there.state)
            self.likelihoods[f"{prefix}log_likelihood"] = total / steps

    def on_train_end(self) -> None:
        """Warn where the reward explains the demonstrations worse than none."""
        self._measure_likelihoods()
        figures = self.summary_figures()
        for prefix, what in (("", "demonstrated"), ("held_out_", "held-out")):
            found, uniform = (figures.get(f"{prefix}{name}") for name in ("log_likelihood", "uniform_log_likelihood"))
            if found is not None and uniform is not None and found < uniform:
                rank_zero_warn(
                    f"the recovered reward explains the {what} actions worse than a uniform policy does: {found:.3f} "
                    f"nats a step, uniform {uniform:.3f}; train longer, or try another model.gamma, reward or features"
                )

    def on_train_epoch_end(self) -> None:
        """A checkpoint holds the policy of its reward."""
        self.refresh_policy()

    def on_validation_epoch_start(self) -> None:
        """As every method; and the policy is that of the reward."""
        super().on_validation_epoch_start()
        self.refresh_policy()
        if self.trainer.state.fn == "fit" and not self.trainer.testing:
            self._measure_likelihoods()
        for metric in (self.value_difference, self.fresh_value_difference, self.correlation):
            metric.reset()
        self._epic = []

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(
        self, batch: Transitions | Episode | EvaluationWorld, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """A world goes into what is known of the recovered reward; the rest as in every method."""
        if not isinstance(batch, EvaluationWorld):
            super().validation_step(batch, batch_idx, dataloader_idx)
            return
        mdp = self.here(batch.mdp)
        table = self.reward.table(mdp)
        if batch.fresh:
            self.fresh_value_difference.update(mdp, table)
            return
        self.value_difference.update(mdp, table)
        assert mdp.reward is not None
        self.correlation.update(to_transitions(mdp, table), to_transitions(mdp, mdp.reward))
        one, other = reward_function(mdp, table), reward_function(mdp, mdp.reward)
        if one is not None and other is not None:
            epic = EPIC(one, other, self.planning.gamma, samples=64)
            epic.to(self.device).update(sample_transitions(mdp))
            self._epic.append(epic)

    def more_figures(self, prefix: str) -> dict[str, Tensor]:
        """How well the reward is recovered, and likelihoods of what is held out."""
        figures: dict[str, Tensor] = {}
        if self.value_difference.update_called:
            figures = self.value_difference.compute()
            figures["reward_correlation"] = self.correlation.compute()
            if self._epic:
                figures["epic_distance"] = torch.stack([epic.compute() for epic in self._epic]).mean()
            if self.fresh_value_difference.update_called:
                fresh = self.fresh_value_difference.compute()
                figures |= {f"fresh_{name}": value for name, value in fresh.items()}
            self.recovery = {name: float(value) for name, value in figures.items()}
        if prefix == "val":
            names = ("log_likelihood", *BASELINES)
            found = {name: torch.tensor(self.likelihoods[name]) for name in names if name in self.likelihoods}
            if self._discounted and found:
                self.log_figures("train", found)
            for name in names:
                if f"held_out_{name}" in self.likelihoods:
                    figures[name] = torch.tensor(self.likelihoods[f"held_out_{name}"])
        return figures

    def summary_figures(self) -> dict[str, float]:
        """What `summary.json` says besides returns."""
        return {name: float(value) for name, value in self.fitted.items()} | self.likelihoods | self.recovery

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """As every method, and what it takes to use the reward alone."""
        checkpoint["reward"] = describe(self.reward)
        super().on_save_checkpoint(checkpoint)

    def parts(self) -> dict[str, Describable | None]:
        """The reward; the policy follows from it."""
        return {"reward": self.reward}

    def rebuild(self, checkpoint: dict[str, Any]) -> None:
        """Build reward and policy for the checkpoint's world."""
        super().rebuild(checkpoint)
        self.policy.requires_grad_(False)
        arguments = decode(checkpoint["reward"]["arguments"])
        self.reward = self._reward_factory(*spaces_of(checkpoint), arguments["num_features"], arguments["grid"])


def _a_step(found: list[Baselines], prefix: str) -> dict[str, float]:
    """The baselines of several worlds as means over all their steps."""
    steps = sum(one.steps for one in found)
    sums = sum(one.uniform for one in found), sum(one.markov for one in found)
    return {f"{prefix}{name}": total / steps for name, total in zip(BASELINES, sums, strict=True)}
