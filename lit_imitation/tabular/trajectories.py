"""Tabular demonstrations: trajectories of state and action indices, their validation and statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeGuard

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from lit_imitation.errors import DemonstrationError
from lit_imitation.tabular.mdp import RewardTable, TabularMDP
from lit_imitation.tabular.planning import Inflow, Planning

if TYPE_CHECKING:
    from lit_imitation.transitions import Inputs

Trajectory: TypeAlias = ArrayLike | tuple[ArrayLike, ArrayLike]
"""States `[n + 1]`, or a pair (tuple or list) of states `[n + 1]` and actions `[n]`."""
UNKNOWN = -1
"""Index of an action that was not recorded, also in the input; it is inferred from the transitions if unambiguous."""


class Trajectories(NamedTuple):
    """N trajectories with M steps in total, one after another."""

    state: Tensor
    """`[M]` int64 states."""
    action: Tensor
    """`[M]` int64 actions; `UNKNOWN` if not recorded."""
    next_state: Tensor
    """`[M]` int64 next states."""
    length: Tensor
    """`[N]` int64 number of steps of each trajectory."""
    origin: Tensor
    """`[N]` int64 number of each trajectory in its source, for messages."""
    source: str
    """Source of the trajectories, for messages."""

    @classmethod
    def from_arrays(
        cls,
        trajectories: Sequence[Trajectory],
        source: str = "data.demonstrations",
        origin: Sequence[int] | None = None,
    ) -> Trajectories:
        """Build from states `[n + 1]`, or pairs of states `[n + 1]` and actions `[n]`, of each trajectory.

        A tuple or list of two items is such a pair unless its first item is a number. An unknown action is −1; `check`
        infers it from the world's transitions. With as many actions as states, the last action is dropped because its
        successor is unknown.

        Args:
            trajectories: Trajectories in any order.
            source: Source of the trajectories, for messages.
            origin: Number of each trajectory in its source; by default counted from 0.

        Returns:
            The trajectories.

        Raises:
            DemonstrationError: A trajectory has no steps, or its numbers of states and actions do not match; the text
                names it.
        """
        numbers = range(len(trajectories)) if origin is None else origin
        states, actions = [], []
        for number, one in zip(numbers, trajectories, strict=True):
            given, acts = one if _is_pair(one) else (one, None)
            visited = _to_array(given)
            if not _are_indices(visited) or len(visited) < 2:
                raise DemonstrationError(
                    f"{source}, trajectory {number}: states are {_summarize(visited)}; expected 2 or more indices, or "
                    "a pair of these and the actions"
                )
            taken = np.full(len(visited) - 1, UNKNOWN) if acts is None else _to_array(acts)
            if not _are_indices(taken) or len(visited) - len(taken) not in (0, 1):
                raise DemonstrationError(
                    f"{source}, trajectory {number}: {len(visited)} states and actions {_summarize(taken)}; expected "
                    "as many indices, or one less"
                )
            states.append(torch.as_tensor(visited.astype(np.int64)))
            actions.append(torch.as_tensor(taken[: len(visited) - 1].astype(np.int64)))
        if not states:
            raise DemonstrationError(f"{source}: no trajectories")
        return cls(
            torch.cat([x[:-1] for x in states]),
            torch.cat(actions),
            torch.cat([x[1:] for x in states]),
            torch.tensor([len(x) for x in actions]),
            torch.tensor(numbers),
            source,
        )

    @property
    def number(self) -> Tensor:
        """`[M]` trajectory that each step belongs to."""
        return torch.arange(len(self.length), device=self.length.device).repeat_interleave(self.length)

    @property
    def step(self) -> Tensor:
        """`[M]` number of each step within its trajectory, from 0."""
        begin = self.length.cumsum(0) - self.length
        return torch.arange(len(self.state), device=self.length.device) - begin.repeat_interleave(self.length)

    def to(self, device: torch.device | str) -> Trajectories:
        """Copy to another device."""
        state, action, following, length, origin = (column.to(device) for column in self[:5])
        return Trajectories(state, action, following, length, origin, self.source)

    def select(self, chosen: Tensor) -> Trajectories:
        """Select the trajectories with indices `chosen: [n]`, in their original order."""
        selected = torch.zeros(len(self.length), dtype=torch.bool, device=self.length.device)
        selected[chosen] = True
        steps = selected.repeat_interleave(self.length)
        state, action, following = (column[steps] for column in (self.state, self.action, self.next_state))
        return Trajectories(state, action, following, self.length[selected], self.origin[selected], self.source)

    def split(self, fraction: float, generator: torch.Generator) -> tuple[Trajectories, Trajectories | None]:
        """Split into training trajectories and a random `fraction` (rounded, at least one) that is held out.

        A single trajectory is not split.
        """
        count = len(self.length)
        held = min(max(round(fraction * count), 1), count - 1)
        order = torch.randperm(count, generator=generator)
        return self.select(order[held:]), self.select(order[:held]) if held else None

    def check(self, mdp: TabularMDP, inputs: Inputs, horizon: int | None) -> Trajectories:
        """Check that the trajectories are possible in a world, and infer unknown actions from its transitions.

        Args:
            mdp: World.
            inputs: Inputs of the reward; a reward of the state does not need actions.
            horizon: Maximum number of steps of a trajectory.

        Returns:
            The trajectories with inferred actions.

        Raises:
            DemonstrationError: An index is out of range, a transition has probability 0, a step follows a terminal
                state, the start is unreachable, a required action is unknown, or a trajectory is too long; the text
                names source, trajectory and step.
        """
        for name, column, count in (
            ("state", self.state, mdp.num_states),
            ("next state", self.next_state, mdp.num_states),
            ("action", self.action, mdp.num_actions),
        ):
            least = UNKNOWN if name == "action" else 0
            self._reject(
                (column < least) | (column >= count),
                lambda m, name=name, column=column, count=count, least=least: (
                    f"{name} {int(column[m])} does not exist; valid are 0 to {count - 1}"
                    + (f", and {least} for an unknown one" if least else "")
                ),
            )
        if horizon is not None and int(self.length.max()) > horizon:
            number = int((self.length > horizon).nonzero()[0])
            raise DemonstrationError(
                f"{self._describe(number)}: {int(self.length[number])} steps exceed model.horizon {horizon}"
            )
        self._reject(mdp.terminal[self.state], lambda m: f"goes on from state {int(self.state[m])}, which is terminal")
        first = self.state[self.length.cumsum(0) - self.length]
        if bool((mdp.start[first] == 0).any()):  # otherwise every possible step is reachable
            lost = ~mdp.reachable()[first]
            if bool(lost.any()):
                number = int(lost.nonzero()[0])
                raise DemonstrationError(
                    f"{self._describe(number)}, step 0: state {int(first[number])} cannot be reached from the world's "
                    "start distribution"
                )
        known = self._with_actions(mdp, needed=inputs != "state")
        known_action = known.action != UNKNOWN
        if mdp.available is not None:
            self._reject(
                known_action & ~mdp.available[known.state, known.action.clamp(min=0)],
                lambda m: f"action {int(known.action[m])} is not available in state {int(self.state[m])}",
            )
        impossible = known_action & (mdp.find(known.state, known.action.clamp(min=0), known.next_state) < 0)
        self._reject(
            impossible,
            lambda m: (
                f"action {int(known.action[m])} in state {int(self.state[m])} leads to state {int(self.next_state[m])} "
                "with probability 0"
            ),
        )
        return known

    def _with_actions(self, mdp: TabularMDP, *, needed: bool) -> Trajectories:
        unknown = (self.action == UNKNOWN).nonzero().squeeze(-1)
        if not len(unknown):
            return self
        s, z = self.state[unknown], self.next_state[unknown]
        leads = torch.stack([mdp.find(s, torch.full_like(s, a), z) >= 0 for a in range(mdp.num_actions)])
        count = leads.sum(0)
        none = torch.zeros(len(self.state), dtype=torch.bool, device=self.state.device)
        none[unknown] = count == 0
        self._reject(none, lambda m: f"no action leads from state {int(self.state[m])} to {int(self.next_state[m])}")
        several = torch.zeros_like(none)
        several[unknown] = count > 1
        if needed:
            self._reject(
                several,
                lambda m: (
                    f"several actions lead from state {int(self.state[m])} to {int(self.next_state[m])}, and none is "
                    "recorded: give the actions, or learn a reward of the state (model.reward.inputs state)"
                ),
            )
        action = self.action.clone()
        action[unknown] = torch.where(count == 1, leads.long().argmax(0), UNKNOWN)
        return self._replace(action=action)

    def _reject(self, bad: Tensor, text: Any) -> None:
        """Raise an error for the first step where `bad: [M]` is true, with the text that `text` returns for it."""
        if bool(bad.any()):
            m = int(bad.nonzero()[0])
            raise DemonstrationError(f"{self._describe(int(self.number[m]))}, step {int(self.step[m])}: {text(m)}")

    def _describe(self, number: int) -> str:
        """Source and number of a trajectory, as the user counts them."""
        return f"{self.source}, trajectory {int(self.origin[number])}"

    def visits(self, mdp: TabularMDP, inputs: Inputs, gamma: float) -> Tensor:
        """Discounted visit counts over all trajectories, Σ γᵗ, in the shape of a `RewardTable` with these `inputs`."""
        weight = gamma ** self.step.to(mdp.probability.dtype)
        if inputs == "state":
            return weight.new_zeros(mdp.num_states).index_add_(0, self.state, weight)
        if inputs == "transition":
            place = mdp.find(self.state, self.action, self.next_state)
            return weight.new_zeros(len(mdp.successor)).index_add_(0, place, weight)
        flat = weight.new_zeros(mdp.num_states * mdp.num_actions)
        flat.index_add_(0, self.state * mdp.num_actions + self.action, weight)
        return flat.view(mdp.num_states, mdp.num_actions)

    def inflow(self, mdp: TabularMDP, planning: Planning) -> Inflow:
        """Inflow of the trajectories: Σ of δ(s_0) at t = 0, minus γⁿ δ(s_n) at t = n, where a trajectory stops.

        The expert's behavior after n steps is unobserved, so V_n(s_n) is subtracted. If s_n is terminal, V_n(s_n) is
        its reward, which the expert also received.
        """
        ends = self.length.cumsum(0)
        first, last = self.state[ends - self.length], self.next_state[ends - 1]
        zeros = mdp.probability.new_zeros(mdp.num_states)
        ones = torch.ones_like(first, dtype=zeros.dtype)
        begin = zeros.index_add(0, first, ones)
        remaining = planning.gamma ** self.length.to(zeros.dtype)
        if planning.horizon is None:
            return {0: begin.index_add_(0, last, -remaining)}
        flows: dict[int, Tensor] = {0: begin}
        for n in sorted(set(self.length.tolist())):
            if n < planning.horizon:
                at = self.length == n
                flows[n] = zeros.index_add(0, last[at], -remaining[at])
        return flows

    def step_visits(self, mdp: TabularMDP, inputs: Inputs) -> Tensor:
        """Undiscounted visit counts in the shape of a `RewardTable`, with successors replaced by their expectation."""
        if inputs != "transition":
            return self.visits(mdp, inputs, 1.0)
        flow = self.visits(mdp, "state_action", 1.0).T.reshape(-1)
        return flow.index_select(0, mdp.row) * mdp.probability

    def step_inflow(self, mdp: TabularMDP, planning: Planning) -> Inflow:
        """Inflow of all steps: δ(s_t) at t, minus γ times the successor distribution at t + 1.

        With an infinite horizon all of it is at t = 0. A step with a known action leads to p(· | s_t, a_t), otherwise
        to the observed state.
        """
        if planning.horizon is None:
            return {0: self._count_starts(mdp, ...) - planning.gamma * self._count_ends(mdp, ...)}
        flows: dict[int, Tensor] = {}
        for t in range(int(self.length.max())):
            at = self.step == t
            starts = self._count_starts(mdp, at)
            flows[t] = flows[t] + starts if t in flows else starts
            if t + 1 < planning.horizon:
                flows[t + 1] = -planning.gamma * self._count_ends(mdp, at)
        return flows

    def _count_starts(self, mdp: TabularMDP, at: Any) -> Tensor:
        """`[S]` number of the steps `at` that start in each state."""
        state = self.state[at]
        return mdp.probability.new_zeros(mdp.num_states).index_add_(0, state, mdp.probability.new_ones(len(state)))

    def _count_ends(self, mdp: TabularMDP, at: Any) -> Tensor:
        """`[S]` number of the steps `at` that lead to each state, in expectation if the action is known."""
        state, action, following = self.state[at], self.action[at], self.next_state[at]
        known_action = action != UNKNOWN
        ones = mdp.probability.new_ones(len(state))
        flow = ones.new_zeros(mdp.num_actions * mdp.num_states)
        flow.index_add_(0, (action * mdp.num_states + state)[known_action], ones[known_action])
        ends = mdp.push(flow.view(mdp.num_actions, mdp.num_states))
        return ends.index_add(0, following[~known_action], ones[~known_action])

    def returns(self, mdp: TabularMDP, reward: RewardTable) -> Tensor:
        """`[N]` undiscounted return of each trajectory, including the reward of a terminal state."""
        values = reward.values
        if reward.inputs == "state":
            rewards = values[self.state] + torch.where(mdp.terminal[self.next_state], values[self.next_state], 0.0)
        elif reward.inputs == "state_action":
            rewards = values[self.state, self.action]
        else:
            rewards = values[mdp.find(self.state, self.action, self.next_state)]
        return values.new_zeros(len(self.length)).index_add_(0, self.number, rewards)


def _is_pair(one: Any) -> TypeGuard[tuple[Any, Any]]:
    """Whether `one` is a pair of states and actions. Decided by content, because YAML and JSON have no tuples."""
    if not isinstance(one, tuple | list) or len(one) != 2:
        return False
    first = _to_array(one[0])
    return first is None or first.ndim > 0


def _to_array(values: Any) -> NDArray[Any] | None:
    """Convert to an array; None if rows have different lengths."""
    try:
        return np.asarray(values)
    except ValueError:
        return None


def _are_indices(array: NDArray[Any] | None) -> TypeGuard[NDArray[Any]]:
    return array is not None and array.ndim == 1 and array.dtype.kind in "iu"


def _summarize(array: NDArray[Any] | None) -> str:
    return "rows of different lengths" if array is None else f"{array.dtype} {list(array.shape)}"


def sample_trajectories(
    mdp: TabularMDP, policy: Tensor, count: int, steps: int, generator: torch.Generator, source: str
) -> Trajectories:
    """Sample `count` trajectories of a policy `[T, S, A]` or `[S, A]`, each of at most `steps` steps."""
    state = torch.multinomial(mdp.start, count, replacement=True, generator=generator)
    columns: list[list[Tensor]] = [[], [], []]
    running = torch.arange(count)
    rows = []
    for t in range(steps):
        pi = (policy[t] if policy.ndim == 3 else policy)[state]
        if mdp.available is not None:
            pi = pi * mdp.available[state]
        action = torch.multinomial(pi, 1, generator=generator).squeeze(-1)
        uniform = torch.rand(len(state), generator=generator, dtype=torch.float64)
        following = mdp.successor[mdp.sample_transition(state, action, uniform)].long()
        for column, value in zip(columns, (state, action, following), strict=True):
            column.append(value)
        rows.append(running)
        alive = ~mdp.terminal[following]
        state, running = following[alive], running[alive]
        if not len(state):
            break
    order = torch.cat(rows).argsort(stable=True)
    s, a, z = (torch.cat(column)[order] for column in columns)
    return Trajectories(s, a, z, torch.bincount(torch.cat(rows), minlength=count), torch.arange(count), source)
