"""Soft and ordinary value iteration, occupancy measures, and the partition function with its gradient."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from lit_imitation.errors import ConfigError
from lit_imitation.tabular.mdp import RewardTable, TabularMDP

Entropy = Literal["causal", "trajectory", "none"]
Inflow = Mapping[int, Tensor]
"""State weights `[S]` by time step t, including γᵗ, at which value is counted: {0: start distribution}."""

MAX_CACHED_Q = 2**22
"""Maximum number of Q values over all steps that are stored for the forward pass."""


@dataclass(frozen=True)
class Planning:
    """Objective of planning: E[Σ_t γᵗ r_t] plus an entropy term, over T steps or an infinite horizon.

    - `causal` (Ziebart, Bagnell & Dey 2010) adds the discounted entropy of each action given the state:

          Q_t(s, a) = r(s, a) + γ Σ_s′ p(s′ | s, a) V_{t+1}(s′),   V_t(s) = log Σ_a exp Q_t(s, a),

      with r(s, a) = Σ_s′ p(s′ | s, a) R(s, a, s′) for a reward of transitions. The dynamics are not changed.

    - `trajectory` (Ziebart et al. 2008) is the distribution over trajectories ζ from s_0 with

          P(ζ | s_0) = Π_t p(s_{t+1} | s_t, a_t) exp R(s_t, a_t, s_{t+1}) / Z(s_0),

      which also tilts the dynamics toward reward: Q_t(s, a) = log Σ_s′ p(s′ | s, a) exp(R(s, a, s′) + V_{t+1}(s′)), V_t
      as above, Z(s_0) = exp V_0(s_0), and the tilted dynamics are p(s′ | s, a) exp(R + V_{t+1}(s′) − Q_t(s, a)). This
      is exact; the forward pass in the paper's Algorithm 1 uses p itself instead. It requires a finite horizon and γ =
      1.

    - `none`: V_t(s) = max_a Q_t(s, a).

    Sums and maxima run over the actions available in a state. The first two agree for deterministic dynamics.

    Args:
        horizon: Number T of steps: rewards are received at t = 0, …, T − 1, and the value at T is 0. None means an
            infinite horizon with γ < 1 and a stationary policy.
        gamma: Discount factor γ.
        tolerance: For an infinite horizon, maximum distance of V from the fixed point and maximum missing occupancy
            mass, both in exact arithmetic.
        entropy: Entropy term.

    Raises:
        ConfigError: A setting is out of range, the entropy is unknown, or `trajectory` is used without a horizon or
            with γ < 1.
    """

    horizon: int | None = None
    gamma: float = 0.9
    tolerance: float = 1e-6
    entropy: Entropy = "causal"

    def __post_init__(self) -> None:
        if self.horizon is not None and self.horizon < 1:
            raise ConfigError(f"model.horizon is {self.horizon}; it must be at least 1")
        if not 0.0 < self.gamma <= 1.0 or (self.horizon is None and self.gamma == 1.0):
            raise ConfigError(f"model.gamma is {self.gamma}; it must lie in (0, 1), or be 1 with a model.horizon")
        if not self.tolerance > 0.0:
            raise ConfigError(f"model.tolerance is {self.tolerance}; it must be positive")
        if self.entropy not in get_args(Entropy):
            raise ConfigError(f"model.entropy is {self.entropy!r}; choose one of {', '.join(get_args(Entropy))}")
        if self.entropy == "trajectory" and (self.horizon is None or self.gamma != 1.0):
            raise ConfigError(
                "model.entropy trajectory weights trajectories by their undiscounted return: set model.horizon, and "
                "model.gamma to 1, or use model.entropy causal"
            )

    def sweeps(self, scale: float) -> int:
        """Smallest k ≥ 1 with γᵏ / (1 − γ) · scale ≤ tolerance."""
        if not 0.0 < scale < math.inf:  # already converged, or never will be
            return 1
        return max(1, math.ceil(math.log(self.tolerance * (1.0 - self.gamma) / scale) / math.log(self.gamma)))

    def steps(self, inflow: Inflow) -> int:
        """Number of steps of a forward pass: the horizon, or as many as leave at most `tolerance` of the mass out."""
        return self.horizon or self.sweeps(sum(float(weight.abs().sum()) for weight in inflow.values()))


class Solution(NamedTuple):
    """Optimal values and policy."""

    value: Tensor
    """`[T + 1, S]` values V_t, with V_T = 0; `[S]` for an infinite horizon."""
    policy: Tensor
    """`[T, S, A]` policy π_t(a | s); `[S, A]` for an infinite horizon. In terminal states it is action 0."""


def solve(mdp: TabularMDP, reward: RewardTable, planning: Planning) -> Solution:
    """Optimal values and policy, by T backward steps, or by value iteration to within `tolerance`.

    The number of sweeps follows from the first change: ‖V_k − V‖ ≤ γᵏ / (1 − γ) ‖V_1 − V_0‖ in the maximum norm.
    """
    with torch.no_grad():
        backup = _Backup(mdp, *_expand_reward(mdp, reward, planning), planning)
        value = backup.values()
        if planning.horizon is None:
            return Solution(value, backup.policy(value).T)
        policy = value.new_empty(planning.horizon, mdp.num_actions, mdp.num_states)
        for t in range(planning.horizon):
            policy[t] = backup.policy(value, t)
        return Solution(value, policy.mT)


def first_policy(mdp: TabularMDP, reward: RewardTable, planning: Planning) -> Tensor:
    """First policy π_0 `[S, A]` of `solve`, without storing those of the other steps."""
    with torch.no_grad():
        backup = _Backup(mdp, *_expand_reward(mdp, reward, planning), planning)
        return backup.policy(backup.values()).T


def policies(mdp: TabularMDP, reward: RewardTable, planning: Planning) -> Iterator[Tensor]:
    """Iterate over π_t `[A, S]` for t = 0, …, T − 1, one in memory at a time; one policy for an infinite horizon."""
    with torch.no_grad():
        backup = _Backup(mdp, *_expand_reward(mdp, reward, planning), planning)
        value = backup.values()
        for t in range(planning.horizon or 1):
            yield backup.policy(value, t)


def occupancy(mdp: TabularMDP, policy: Tensor, inflow: Inflow, planning: Planning) -> Tensor:
    """Occupancy Σ_t γᵗ P(s_t = s, a_t = a) `[S, A]` of a policy `[T, S, A]` or `[S, A]` under the true dynamics.

    A terminal state counts once, under action 0.
    """
    with torch.no_grad():
        total = policy.new_zeros(mdp.num_actions, mdp.num_states)
        state = policy.new_zeros(mdp.num_states)
        for t in range(planning.steps(inflow)):
            if t in inflow:
                state = state + inflow[t]
            flow = state * (policy if policy.ndim == 2 else policy[t]).T
            total += flow
            state = mdp.push(flow).mul_(planning.gamma)
    return total.T


def log_partition(mdp: TabularMDP, reward: RewardTable, inflow: Inflow, planning: Planning) -> tuple[Tensor, Tensor]:
    """Differentiable Σ_t Σ_s inflow_t(s) V_t(s) `[]`, and the occupancy `[S, A]`.

    For the inflow {0: δ(s_0)} this is log Z(s_0). Its gradient with respect to `reward.values` is the occupancy under
    the distribution that `planning` describes. A forward pass computes it, so autograd records nothing of the backward
    pass.
    """
    value, flows = _LogPartition.apply(  # type: ignore[no-untyped-call]
        *_expand_reward(mdp, reward, planning), mdp, inflow, planning
    )
    return value, flows.T


class _LogPartition(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, of_action: Tensor, of_transition: Tensor | None, mdp: TabularMDP, inflow: Inflow, planning: Planning
    ) -> tuple[Tensor, Tensor]:
        backup = _Backup(mdp, of_action, of_transition, planning)
        value = backup.values()
        flows, transitions = backup.flows(value, inflow)
        ctx.save_for_backward(flows, transitions)
        ctx.mark_non_differentiable(flows)
        at = [torch.dot(value if planning.horizon is None else value[t], weight) for t, weight in inflow.items()]
        return torch.stack(at).sum(), flows

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        flows, transitions = ctx.saved_tensors
        return grads[0] * flows, None if transitions is None else grads[0] * transitions, None, None, None


def _expand_reward(mdp: TabularMDP, reward: RewardTable, planning: Planning) -> tuple[Tensor, Tensor | None]:
    """Expand a reward to `[A, S]`; under `trajectory`, a reward of transitions is returned separately as `[N]`."""
    values, states, actions = reward.values, mdp.num_states, mdp.num_actions
    expected = {"state": (states,), "state_action": (states, actions), "transition": (len(mdp.successor),)}
    if values.shape != expected[reward.inputs]:
        raise ValueError(
            f"a reward of inputs {reward.inputs} has shape {list(values.shape)}; expected "
            f"{list(expected[reward.inputs])}"
        )
    if reward.inputs == "state":
        return values.expand(actions, states).contiguous(), None
    if reward.inputs == "transition":
        if planning.entropy == "trajectory":
            return values.new_zeros(actions, states), values
        return mdp.sum_outgoing(mdp.probability * values), None
    return values.T.masked_fill(mdp.terminal, 0.0).contiguous(), None


class _Backup:
    """Bellman backup, and the backward and forward pass made of it.

    Values are stored for all steps, Q only for small worlds: with a million states and fifty steps Q would take a
    gigabyte, and memory traffic would cost about as much as computing it again.

    Args:
        mdp: World.
        of_action: `[A, S]` reward of each action in each state.
        of_transition: `[N]` reward of each transition, under `trajectory`.
        planning: Objective.
    """

    def __init__(self, mdp: TabularMDP, of_action: Tensor, of_transition: Tensor | None, planning: Planning) -> None:
        self.mdp, self.of_transition, self.planning = mdp, of_transition, planning
        self.reward = of_action
        if mdp.terminal.any():
            # Leave one action in a terminal state, so that its value is its reward without an entropy.
            self.reward = self.reward.clone()
            self.reward[1:].masked_fill_(mdp.terminal, -math.inf)
        if mdp.available is not None:
            self.reward = self.reward.masked_fill(~(mdp.available | mdp.terminal[:, None]).T, -math.inf)
        self.q: Tensor | None = None
        """`[T, A, S]` Q values of all steps, filled by `values`."""
        if planning.horizon is not None and planning.horizon * self.reward.numel() <= MAX_CACHED_Q:
            self.q = self.reward.new_empty(planning.horizon, *self.reward.shape)

    def values(self) -> Tensor:
        """Values V `[T + 1, S]`; `[S]` for an infinite horizon."""
        planning, states = self.planning, self.mdp.num_states
        if planning.horizon is not None:
            value = self.reward.new_zeros(planning.horizon + 1, states)
            for t in reversed(range(planning.horizon)):
                q = self._q_values(value[t + 1])
                value[t] = self._maximum(q)
                if self.q is not None:
                    self.q[t] = q
            return value
        value = self._maximum(self._q_values(self.reward.new_zeros(states)))
        for _ in range(planning.sweeps(float(value.abs().max()))):
            value = self._maximum(self._q_values(value))
        return value

    def policy(self, value: Tensor, t: int = 0) -> Tensor:
        """Policy π_t `[A, S]` for the result of `values`; an infinite horizon ignores `t`."""
        if self.q is not None:
            q = self.q[t]
        else:
            q = self._q_values(value if self.planning.horizon is None else value[t + 1])
        if self.planning.entropy == "none":
            return torch.zeros_like(q).scatter_(0, q.argmax(0)[None], 1.0)
        # With an infinite horizon V is only close to the fixed point.
        best = self._maximum(q) if self.planning.horizon is None else value[t]
        return (q.sub_(best) if self.q is None else q - best).exp_()  # the stored Q is used again

    def flows(self, value: Tensor, inflow: Inflow) -> tuple[Tensor, Tensor | None]:
        """Occupancy `[A, S]` under this distribution, and that of transitions `[N]` if there is a reward of them."""
        mdp, planning = self.mdp, self.planning
        total = torch.zeros_like(self.reward)
        of_transitions = None if self.of_transition is None else torch.zeros_like(self.of_transition)
        state = self.reward.new_zeros(mdp.num_states)
        always = self.policy(value) if planning.horizon is None else None
        for t in range(planning.steps(inflow)):
            if t in inflow:
                state = state + inflow[t]
            policy = always if always is not None else self.policy(value, t)
            flow = policy * state
            total += flow
            if planning.entropy == "trajectory":
                moved = flow.reshape(-1).index_select(0, mdp.row) * self._transition_weights(value[t + 1])[1]
                state = mdp.sum_incoming(moved)
                if of_transitions is not None:
                    of_transitions += moved
            else:
                state = mdp.push(flow).mul_(planning.gamma)
        return total, of_transitions

    def _q_values(self, following: Tensor) -> Tensor:
        """Q `[A, S]` from V of the next step `[S]`, as a new tensor."""
        if self.planning.entropy == "trajectory":
            return self.reward + self._transition_weights(following)[0]
        q = self.mdp.expectation(following)
        return torch.add(self.reward, q, alpha=self.planning.gamma, out=q)

    def _maximum(self, q: Tensor) -> Tensor:
        """Maximum or log-sum-exp over actions, `[A, S]` to `[S]`."""
        if self.planning.entropy == "none":
            return q.amax(0)
        # Pairwise logaddexp is the fastest option in torch and does not copy q.
        return reduce(torch.logaddexp, q.unbind(0))

    def _transition_weights(self, following: Tensor) -> tuple[Tensor, Tensor]:
        """Log Σ_s′ p exp(R + V(s′)) `[A, S]`, and the share `[N]` of each transition in its sum."""
        mdp = self.mdp
        x = mdp.probability.log() + following.index_select(0, mdp.successor)
        if self.of_transition is not None:
            x = x + self.of_transition
        rows = mdp.num_actions * mdp.num_states
        largest = x.new_full((rows,), -math.inf).scatter_reduce(0, mdp.row, x, "amax")
        weight = (x - largest.index_select(0, mdp.row)).exp_()
        total = mdp.sum_outgoing(weight).view(-1)
        # A terminal state has no successors, so its log-sum is −∞; its future value is 0.
        log = torch.where(total > 0, largest + total.log(), 0.0)
        return log.view(mdp.num_actions, mdp.num_states), weight / total.index_select(0, mdp.row)
