"""Demonstrations as indices: trajectories of different lengths, checked against a world, and what they amount to."""

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
"""An action that nobody wrote down, in what is given too: the transitions tell it, or else it stays so."""


class Trajectories(NamedTuple):
    """N trajectories, M steps in all, one after another."""

    state: Tensor
    """`[M]` int64."""
    action: Tensor
    """`[M]` int64; `UNKNOWN` where it is."""
    next_state: Tensor
    """`[M]` int64."""
    length: Tensor
    """`[N]` int64: the number of steps of each."""
    origin: Tensor
    """`[N]` int64: the number of each among those that were given, for messages."""
    source: str
    """Where they are from, likewise."""

    @classmethod
    def of(
        cls,
        trajectories: Sequence[Trajectory],
        source: str = "data.demonstrations",
        origin: Sequence[int] | None = None,
    ) -> Trajectories:
        """From states `[n + 1]`, or pairs of states `[n + 1]` and actions `[n]`, of each.

        A tuple or list of two is such a pair where its first is not a number. An action that is not known is −1: the
        world's transitions tell it (see `checked`). Where there are as many states as actions, nobody knows where the
        last one led, and it is left out.

        Args:
            trajectories: in any order.
            source: where they are from, for messages.
            origin: their numbers there, where some are missing here; by default counted from 0.

        Raises:
            DemonstrationError: no steps, or numbers of states and actions that do not fit; the trajectory is named.
        """
        numbers = range(len(trajectories)) if origin is None else origin
        states, actions = [], []
        for number, one in zip(numbers, trajectories, strict=True):
            given, acts = one if _is_pair(one) else (one, None)
            visited = _array(given)
            if not _are_indices(visited) or len(visited) < 2:
                raise DemonstrationError(
                    f"{source}, trajectory {number}: states are {_described(visited)}; expected 2 or more indices, or "
                    "a pair of these and the actions"
                )
            taken = np.full(len(visited) - 1, UNKNOWN) if acts is None else _array(acts)
            if not _are_indices(taken) or len(visited) - len(taken) not in (0, 1):
                raise DemonstrationError(
                    f"{source}, trajectory {number}: {len(visited)} states and actions {_described(taken)}; expected "
                    "as many indices, or one less"
                )
            states.append(torch.as_tensor(visited.astype(np.int64)))
            actions.append(torch.as_tensor(taken[: len(visited) - 1].astype(np.int64)))
        if not states:
            raise DemonstrationError(f"{source}: there are no trajectories")
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
        """`[M]`: the trajectory of each step."""
        return torch.arange(len(self.length), device=self.length.device).repeat_interleave(self.length)

    @property
    def step(self) -> Tensor:
        """`[M]`: its number within the trajectory, from 0."""
        begin = self.length.cumsum(0) - self.length
        return torch.arange(len(self.state), device=self.length.device) - begin.repeat_interleave(self.length)

    def to(self, device: torch.device | str) -> Trajectories:
        """The same elsewhere."""
        state, action, following, length, origin = (column.to(device) for column in self[:5])
        return Trajectories(state, action, following, length, origin, self.source)

    def select(self, chosen: Tensor) -> Trajectories:
        """Those at `chosen: [n]`, in their own order."""
        kept = torch.zeros(len(self.length), dtype=torch.bool, device=self.length.device)
        kept[chosen] = True
        steps = kept.repeat_interleave(self.length)
        state, action, following = (column[steps] for column in (self.state, self.action, self.next_state))
        return Trajectories(state, action, following, self.length[kept], self.origin[kept], self.source)

    def split(self, fraction: float, generator: torch.Generator) -> tuple[Trajectories, Trajectories | None]:
        """Those to learn from, and `fraction` of them (rounded, one at least), chosen at random, to be held out.

        Of a single trajectory none is held out.
        """
        count = len(self.length)
        held = min(max(round(fraction * count), 1), count - 1)
        order = torch.randperm(count, generator=generator)
        return self.select(order[held:]), self.select(order[:held]) if held else None

    def checked(self, mdp: TabularMDP, inputs: Inputs, horizon: int | None) -> Trajectories:
        """These with the actions that the world's transitions tell, if all of it is possible there.

        Args:
            mdp: the world.
            inputs: what the reward is of; one of the state does without actions.
            horizon: the most steps a trajectory may have.

        Raises:
            DemonstrationError: an index out of range, a transition of probability 0, a step after the end, a start that
                no episode comes to, an action that is not known but needed, a trajectory that is too long; the text
                names source, trajectory and step.
        """
        for name, column, count in (
            ("state", self.state, mdp.num_states),
            ("next state", self.next_state, mdp.num_states),
            ("action", self.action, mdp.num_actions),
        ):
            least = UNKNOWN if name == "action" else 0
            self._none(
                (column < least) | (column >= count),
                lambda m, name=name, column=column, count=count, least=least: (
                    f"{name} {int(column[m])} does not exist; there are 0 to {count - 1}"
                    + (f", and {least} for one that is not known" if least else "")
                ),
            )
        if horizon is not None and int(self.length.max()) > horizon:
            number = int((self.length > horizon).nonzero()[0])
            raise DemonstrationError(
                f"{self._named(number)}: {int(self.length[number])} steps are more than model.horizon {horizon}"
            )
        self._none(mdp.terminal[self.state], lambda m: f"goes on from state {int(self.state[m])}, which is terminal")
        first = self.state[self.length.cumsum(0) - self.length]
        if bool((mdp.start[first] == 0).any()):  # else all can be reached that is possible
            lost = ~mdp.reachable()[first]
            if bool(lost.any()):
                number = int(lost.nonzero()[0])
                raise DemonstrationError(
                    f"{self._named(number)}, step 0: state {int(first[number])} cannot be reached from the world's "
                    "start distribution"
                )
        known = self._with_actions(mdp, needed=inputs != "state")
        told = known.action != UNKNOWN
        if mdp.available is not None:
            self._none(
                told & ~mdp.available[known.state, known.action.clamp(min=0)],
                lambda m: f"action {int(known.action[m])} is not available in state {int(self.state[m])}",
            )
        impossible = told & (mdp.find(known.state, known.action.clamp(min=0), known.next_state) < 0)
        self._none(
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
        self._none(none, lambda m: f"no action leads from state {int(self.state[m])} to {int(self.next_state[m])}")
        several = torch.zeros_like(none)
        several[unknown] = count > 1
        if needed:
            self._none(
                several,
                lambda m: (
                    f"several actions lead from state {int(self.state[m])} to {int(self.next_state[m])}, and none is "
                    "written down: give the actions, or learn a reward of the state (model.reward.inputs state)"
                ),
            )
        action = self.action.clone()
        action[unknown] = torch.where(count == 1, leads.long().argmax(0), UNKNOWN)
        return self._replace(action=action)

    def _none(self, bad: Tensor, text: Any) -> None:
        """Raise for the first step of `bad: [M]`, if any, with what `text` says of it."""
        if bool(bad.any()):
            m = int(bad.nonzero()[0])
            raise DemonstrationError(f"{self._named(int(self.number[m]))}, step {int(self.step[m])}: {text(m)}")

    def _named(self, number: int) -> str:
        """A trajectory as whoever gave it counts."""
        return f"{self.source}, trajectory {int(self.origin[number])}"

    def visits(self, mdp: TabularMDP, inputs: Inputs, gamma: float) -> Tensor:
        """Σ over trajectories and their steps of γᵗ at what `inputs` is of, in the shape of such a `RewardTable`."""
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
        """Σ over trajectories of δ(s_0) at t = 0, less γⁿ δ(s_n) at t = n, where the trajectory stops.

        What an expert does after n steps nobody saw, so it counts for nobody: V_n(s_n) is taken off. Where s_n is
        terminal, that is what is paid there, which the expert was paid as well.
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
        """Σ over all steps, each with weight 1, in the shape of such a `RewardTable`; what chance does in its mean."""
        if inputs != "transition":
            return self.visits(mdp, inputs, 1.0)
        flow = self.visits(mdp, "state_action", 1.0).T.reshape(-1)
        return flow.index_select(0, mdp.row) * mdp.probability

    def step_inflow(self, mdp: TabularMDP, planning: Planning) -> Inflow:
        """Σ over all steps of δ(s_t) at t, less γ times where the step leads at t + 1; without end all of it at 0.

        A step leads to p(· | s_t, a_t); where its action is not known, to the state that was seen.
        """
        if planning.horizon is None:
            return {0: self._begun(mdp, ...) - planning.gamma * self._led(mdp, ...)}
        flows: dict[int, Tensor] = {}
        for t in range(int(self.length.max())):
            at = self.step == t
            begun = self._begun(mdp, at)
            flows[t] = flows[t] + begun if t in flows else begun
            if t + 1 < planning.horizon:
                flows[t + 1] = -planning.gamma * self._led(mdp, at)
        return flows

    def _begun(self, mdp: TabularMDP, at: Any) -> Tensor:
        """`[S]`: how many of the steps `at` begin in each state."""
        state = self.state[at]
        return mdp.probability.new_zeros(mdp.num_states).index_add_(0, state, mdp.probability.new_ones(len(state)))

    def _led(self, mdp: TabularMDP, at: Any) -> Tensor:
        """`[S]`: how many of the steps `at` lead to each state, in the mean where the action is known."""
        state, action, following = self.state[at], self.action[at], self.next_state[at]
        told = action != UNKNOWN
        ones = mdp.probability.new_ones(len(state))
        flow = ones.new_zeros(mdp.num_actions * mdp.num_states)
        flow.index_add_(0, (action * mdp.num_states + state)[told], ones[told])
        led = mdp.push(flow.view(mdp.num_actions, mdp.num_states))
        return led.index_add(0, following[~told], ones[~told])

    def returns(self, mdp: TabularMDP, reward: RewardTable) -> Tensor:
        """`[N]`: the plain sum of rewards of each trajectory, that of a terminal state included."""
        values = reward.values
        if reward.inputs == "state":
            paid = values[self.state] + torch.where(mdp.terminal[self.next_state], values[self.next_state], 0.0)
        elif reward.inputs == "state_action":
            paid = values[self.state, self.action]
        else:
            paid = values[mdp.find(self.state, self.action, self.next_state)]
        return values.new_zeros(len(self.length)).index_add_(0, self.number, paid)


def _is_pair(one: Any) -> TypeGuard[tuple[Any, Any]]:
    """Whether these are states and actions, not two states: told by what is in it, for YAML and JSON know no tuples."""
    if not isinstance(one, tuple | list) or len(one) != 2:
        return False
    first = _array(one[0])
    return first is None or first.ndim > 0


def _array(values: Any) -> NDArray[Any] | None:
    """None where rows of different lengths make no array."""
    try:
        return np.asarray(values)
    except ValueError:
        return None


def _are_indices(array: NDArray[Any] | None) -> TypeGuard[NDArray[Any]]:
    return array is not None and array.ndim == 1 and array.dtype.kind in "iu"


def _described(array: NDArray[Any] | None) -> str:
    return "rows of different lengths" if array is None else f"{array.dtype} {list(array.shape)}"


def sample_trajectories(
    mdp: TabularMDP, policy: Tensor, count: int, steps: int, generator: torch.Generator, source: str
) -> Trajectories:
    """`count` trajectories of a policy `[T, S, A]` or `[S, A]`, of `steps` steps at most, fewer where one ends."""
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
        following = mdp.successor[mdp.draw(state, action, uniform)].long()
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
