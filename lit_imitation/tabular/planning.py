"""Soft and ordinary value iteration, the occupancy of what comes out, and the partition function with its gradient."""

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
"""Weights `[S]` of states from which value is counted, by time step, each with its γᵗ: {0: start distribution}."""

KEPT = 2**22
"""Entries of Q over all steps that are kept for a forward pass, at the most."""


@dataclass(frozen=True)
class Planning:
    """What is maximized: E[Σ_t γᵗ r_t] plus an entropy, over T steps or without end.

    - `causal` (Ziebart, Bagnell & Dey 2010): plus the entropy of each action given the state, discounted like r,

          Q_t(s, a) = r(s, a) + γ Σ_s′ p(s′ | s, a) V_{t+1}(s′),   V_t(s) = log Σ_a exp Q_t(s, a),

      with r(s, a) = Σ_s′ p(s′ | s, a) R(s, a, s′) for a reward of transitions. No action can change what chance does.

    - `trajectory` (Ziebart et al. 2008): the distribution over trajectories ζ from s_0 with

          P(ζ | s_0) = Π_t p(s_{t+1} | s_t, a_t) exp R(s_t, a_t, s_{t+1}) / Z(s_0),

      in which chance leans towards what pays too: Q_t(s, a) = log Σ_s′ p(s′ | s, a) exp(R(s, a, s′) + V_{t+1}(s′)),
      V_t as above, Z(s_0) = exp V_0(s_0), and the dynamics under it are p(s′ | s, a) exp(R + V_{t+1}(s′) − Q_t(s, a)).
      This is exact; the forward pass in that paper's Algorithm 1 takes p itself instead. Finite horizon, γ = 1.

    - `none`: V_t(s) = max_a Q_t(s, a).

    Sums and maxima are over the actions that are available in a state. Where the dynamics are deterministic the first
    two are the same.

    Args:
        horizon: T: rewards are paid at t = 0, …, T − 1, and the value at T is 0. None: without end, γ < 1, and one
            policy for all times.
        gamma: γ.
        tolerance: without end, how far V may be from the fixed point in any state, and how much of the occupancy's mass
            may be missing (both in exact arithmetic).
        entropy: which of the three.

    Raises:
        ConfigError: a setting out of its range, an entropy that there is not, or `trajectory` without a horizon or with
            γ < 1.
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
            raise ConfigError(f"model.tolerance is {self.tolerance}; it must be above 0")
        if self.entropy not in get_args(Entropy):
            raise ConfigError(f"model.entropy is {self.entropy!r}; choose one of {', '.join(get_args(Entropy))}")
        if self.entropy == "trajectory" and (self.horizon is None or self.gamma != 1.0):
            raise ConfigError(
                "model.entropy trajectory weighs whole trajectories by the plain sum of their rewards: it needs a "
                "model.horizon, and model.gamma 1; or take causal"
            )

    def sweeps(self, scale: float) -> int:
        """The least k with γᵏ / (1 − γ) · scale ≤ tolerance, and 1 at least."""
        if not 0.0 < scale < math.inf:  # nothing to wait for, or nothing to be had
            return 1
        return max(1, math.ceil(math.log(self.tolerance * (1.0 - self.gamma) / scale) / math.log(self.gamma)))

    def steps(self, inflow: Inflow) -> int:
        """Of a forward pass: the horizon; without end as many as leave `tolerance` of the mass out."""
        return self.horizon or self.sweeps(sum(float(weight.abs().sum()) for weight in inflow.values()))


class Solution(NamedTuple):
    """Values and policy."""

    value: Tensor
    """`[T + 1, S]`: V_t, the last one 0; `[S]` without end."""
    policy: Tensor
    """`[T, S, A]`: π_t(a | s); `[S, A]` without end. A terminal state's is action 0."""


def solve(mdp: TabularMDP, reward: RewardTable, planning: Planning) -> Solution:
    """The maximum: by one backward pass of T steps; without end by iteration until it is `tolerance` close.

    The number of sweeps follows from the first one's change: ‖V_k − V‖ ≤ γᵏ / (1 − γ) ‖V_1 − V_0‖ in the maximum norm.
    """
    with torch.no_grad():
        backup = _Backup(mdp, *_spread(mdp, reward, planning), planning)
        value = backup.values()
        if planning.horizon is None:
            return Solution(value, backup.policy(value).T)
        policy = value.new_empty(planning.horizon, mdp.num_actions, mdp.num_states)
        for t in range(planning.horizon):
            policy[t] = backup.policy(value, t)
        return Solution(value, policy.mT)


def first_policy(mdp: TabularMDP, reward: RewardTable, planning: Planning) -> Tensor:
    """π_0 `[S, A]` of `solve`, which without end is π itself, without those of all the other steps in memory."""
    with torch.no_grad():
        backup = _Backup(mdp, *_spread(mdp, reward, planning), planning)
        return backup.policy(backup.values()).T


def policies(mdp: TabularMDP, reward: RewardTable, planning: Planning) -> Iterator[Tensor]:
    """π_t `[A, S]` for t = 0, …, T − 1, one in memory at a time; without end π alone."""
    with torch.no_grad():
        backup = _Backup(mdp, *_spread(mdp, reward, planning), planning)
        value = backup.values()
        for t in range(planning.horizon or 1):
            yield backup.policy(value, t)


def occupancy(mdp: TabularMDP, policy: Tensor, inflow: Inflow, planning: Planning) -> Tensor:
    """Σ_t γᵗ P(s_t = s, a_t = a) `[S, A]` of a policy `[T, S, A]` or `[S, A]` under the world's own dynamics.

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
    """Σ_t Σ_s inflow_t(s) V_t(s), `[]`, differentiable with respect to `reward.values`; and the occupancy `[S, A]`.

    With {0: δ(s_0)} this is log Z(s_0). Its gradient is the occupancy of the distribution that `planning` describes,
    which a forward pass computes: nothing of the backward pass is recorded.
    """
    value, flows = _LogPartition.apply(  # type: ignore[no-untyped-call]
        *_spread(mdp, reward, planning), mdp, inflow, planning
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


def _spread(mdp: TabularMDP, reward: RewardTable, planning: Planning) -> tuple[Tensor, Tensor | None]:
    """What each action pays in each state, `[A, S]`, and, where chance leans towards it, what each transition pays."""
    values, states, actions = reward.values, mdp.num_states, mdp.num_actions
    expected = {"state": (states,), "state_action": (states, actions), "transition": (len(mdp.successor),)}
    if values.shape != expected[reward.inputs]:
        raise ValueError(
            f"a reward of {reward.inputs} is {list(expected[reward.inputs])} here, not {list(values.shape)}"
        )
    if reward.inputs == "state":
        return values.expand(actions, states).contiguous(), None
    if reward.inputs == "transition":
        if planning.entropy == "trajectory":
            return values.new_zeros(actions, states), values
        return mdp.summed(mdp.probability * values), None
    return values.T.masked_fill(mdp.terminal, 0.0).contiguous(), None


class _Backup:
    """One step of the recursion, and both passes made of it.

    Values are kept for all steps, Q only where the world is small: at a million states that of fifty steps would be a
    gigabyte, and to write and read it costs about what it does to compute it again.

    Args:
        mdp: the world.
        of_action: `[A, S]`: what each action pays in each state.
        of_transition: `[N]`: what each transition pays, where chance leans towards it.
        planning: what is maximized.
    """

    def __init__(self, mdp: TabularMDP, of_action: Tensor, of_transition: Tensor | None, planning: Planning) -> None:
        self.mdp, self.of_transition, self.planning = mdp, of_transition, planning
        self.reward = of_action
        if mdp.terminal.any():
            # One action is left in a terminal state, so that its value is what it pays, and no choice between equals.
            self.reward = self.reward.clone()
            self.reward[1:].masked_fill_(mdp.terminal, -math.inf)
        if mdp.available is not None:
            self.reward = self.reward.masked_fill(~(mdp.available | mdp.terminal[:, None]).T, -math.inf)
        self.q: Tensor | None = None
        """`[T, A, S]`, once `values` has been there."""
        if planning.horizon is not None and planning.horizon * self.reward.numel() <= KEPT:
            self.q = self.reward.new_empty(planning.horizon, *self.reward.shape)

    def values(self) -> Tensor:
        """V `[T + 1, S]`; `[S]` without end."""
        planning, states = self.planning, self.mdp.num_states
        if planning.horizon is not None:
            value = self.reward.new_zeros(planning.horizon + 1, states)
            for t in reversed(range(planning.horizon)):
                q = self._of_actions(value[t + 1])
                value[t] = self._maximum(q)
                if self.q is not None:
                    self.q[t] = q
            return value
        value = self._maximum(self._of_actions(self.reward.new_zeros(states)))
        for _ in range(planning.sweeps(float(value.abs().max()))):
            value = self._maximum(self._of_actions(value))
        return value

    def policy(self, value: Tensor, t: int = 0) -> Tensor:
        """π_t `[A, S]`, from what `values` gave; without end, where `t` does not count, π."""
        if self.q is not None:
            q = self.q[t]
        else:
            q = self._of_actions(value if self.planning.horizon is None else value[t + 1])
        if self.planning.entropy == "none":
            return torch.zeros_like(q).scatter_(0, q.argmax(0)[None], 1.0)
        # Without end V is only close to the fixed point.
        best = self._maximum(q) if self.planning.horizon is None else value[t]
        return (q.sub_(best) if self.q is None else q - best).exp_()  # what is kept is for every pass

    def flows(self, value: Tensor, inflow: Inflow) -> tuple[Tensor, Tensor | None]:
        """The occupancy `[A, S]` under this distribution, and of transitions `[N]` where there is a reward of them."""
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
                moved = flow.reshape(-1).index_select(0, mdp.row) * self._leaning(value[t + 1])[1]
                state = mdp.arrived(moved)
                if of_transitions is not None:
                    of_transitions += moved
            else:
                state = mdp.push(flow).mul_(planning.gamma)
        return total, of_transitions

    def _of_actions(self, following: Tensor) -> Tensor:
        """Q `[A, S]` from V of the next step `[S]`, in memory of its own."""
        if self.planning.entropy == "trajectory":
            return self.reward + self._leaning(following)[0]
        q = self.mdp.expected(following)
        return torch.add(self.reward, q, alpha=self.planning.gamma, out=q)

    def _maximum(self, q: Tensor) -> Tensor:
        """max_a or log Σ_a exp, `[A, S]` to `[S]`."""
        if self.planning.entropy == "none":
            return q.amax(0)
        # In pairs: the fastest of torch's ways, which makes no copy of q.
        return reduce(torch.logaddexp, q.unbind(0))

    def _leaning(self, following: Tensor) -> tuple[Tensor, Tensor]:
        """Log Σ_s′ p exp(R + V(s′)) `[A, S]`, and what each transition contributes to the sum, as a share, `[N]`."""
        mdp = self.mdp
        x = mdp.probability.log() + following.index_select(0, mdp.successor)
        if self.of_transition is not None:
            x = x + self.of_transition
        rows = mdp.num_actions * mdp.num_states
        largest = x.new_full((rows,), -math.inf).scatter_reduce(0, mdp.row, x, "amax")
        weight = (x - largest.index_select(0, mdp.row)).exp_()
        total = mdp.summed(weight).view(-1)
        # A terminal state has no successors, and nothing comes after it.
        log = torch.where(total > 0, largest + total.log(), 0.0)
        return log.view(mdp.num_actions, mdp.num_states), weight / total.index_select(0, mdp.row)
