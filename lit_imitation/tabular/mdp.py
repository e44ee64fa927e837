"""`TabularMDP`: a world whose states and actions can be counted, in memory linear in its possible transitions."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array, csc_array, csr_array, issparse, sparray, spmatrix
from scipy.sparse.csgraph import breadth_first_order
from torch import Tensor

from lit_imitation.errors import ConfigError
from lit_imitation.utils.arguments import TypeChecked

if TYPE_CHECKING:
    from lit_imitation.transitions import Inputs

TOLERANCE = 1e-6
"""How far a row of probabilities may be from 1, which is what float32 makes of it; it is then brought there."""
Given: TypeAlias = ArrayLike | tuple[ArrayLike, ArrayLike] | sparray | spmatrix | Tensor


class RewardTable(NamedTuple):
    """A reward of each state, each state and action, or each possible transition of a world."""

    values: Tensor
    """`[S]`, `[S, A]`, or `[N]` in the order of `TabularMDP.successor`."""
    inputs: Inputs = "state"
    """Which of the three."""


class TabularMDP(TypeChecked):
    """States 0 … S − 1, actions 0 … A − 1, transition probabilities p(s′ | s, a), a start distribution.

    Only transitions of positive probability are kept, N of them, sorted by action, state and successor: the
    successors of row a·S + s are `successor[row_start[a·S + s] : row_start[a·S + s + 1]]`. A terminal state has none.
    What is paid there, by a reward of the state, is paid once, when it is entered.

    Args:
        transitions: p as `[S, A, S]`; or a pair of successors `[S, A, K]` and their probabilities `[S, A, K]`, in which
            entries of probability 0 fill up and a successor named twice has the sum; or a sparse array of SciPy
            or torch, in any layout, `[A · S, S]`, with row a·S + s.
        start: `[S]`: the start distribution; by default uniform over the states that are not terminal.
        reward: the true reward, if it is known: `[S]`, `[S, A]`, or of transitions in the shape of the probabilities
            (where a successor is named twice, the mean of its rewards counts).
        terminal: `[S]` bool: where an episode is over; rows of such states are not read.
        features: `[S, F]`: what a reward model reads; by default an indicator of each state.
        grid: rows and columns, where state r · columns + c is a cell of a grid.
        available: `[S, A]` bool: the actions that can be taken in each state, by default all; rows of others are not
            read, nobody takes them, and a uniform policy is uniform over those that are available.

    Raises:
        ConfigError: shapes that do not fit, an index out of range, probabilities that are negative or do not sum to
            one, a state without an action; the text names the entry.
    """

    def __init__(
        self,
        transitions: Given,
        start: ArrayLike | None = None,
        *,
        reward: ArrayLike | None = None,
        terminal: ArrayLike | None = None,
        features: ArrayLike | None = None,
        grid: tuple[int, int] | None = None,
        available: ArrayLike | None = None,
    ) -> None:
        entries = _entries(transitions)
        self.num_states, self.num_actions = entries.shape[:2]
        ended = np.zeros(self.num_states, bool) if terminal is None else self._column("terminal", terminal, bool)
        choices = self._choices(available, ended)
        entries = entries.without(ended, choices)
        shape = (self.num_actions * self.num_states, self.num_states)
        matrix = _sparse(entries.row, entries.successor, entries.probability, shape)
        self._check_rows(matrix, ended, choices)
        sums = np.repeat(matrix.sum(1), np.diff(matrix.indptr))
        self.terminal = torch.from_numpy(ended)
        self.available = None if choices is None else torch.from_numpy(choices)
        """`[S, A]` bool, or None where every action is available in every state."""
        self.row_start = torch.from_numpy(matrix.indptr)
        self.successor = torch.from_numpy(matrix.indices)
        """`[N]`: s′ of each transition."""
        self.probability = torch.from_numpy(matrix.data / sums)
        """`[N]` float64, unless `to` made it another type."""
        self.start = torch.from_numpy(self._start(start, ended))
        self.features = None if features is None else torch.from_numpy(self._features(features))
        if grid is not None and grid[0] * grid[1] != self.num_states:
            raise ConfigError(f"a grid of {grid[0]} × {grid[1]} has not {self.num_states} states")
        self.grid = grid
        self.reward = None if reward is None else self._reward(reward, entries, matrix)
        self._cache: dict[str, Any] = {}

    # Where worlds come from

    @classmethod
    def of_env(cls, env: Any) -> TabularMDP:
        """The world of a Gymnasium environment with Discrete spaces: one of ours, or one with a table `P`.

        `P[s][a]` lists (probability, successor, reward, terminated), as FrozenLake, Taxi and CliffWalking have it.
        States that episodes never come to may say what they like. An action that `P[s]` lacks, or whose list is empty,
        is not available in s.

        Raises:
            ConfigError: it has neither, a state that is entered both with and without the episode's end, or a fickle
                passenger (Taxi's), of whom the table does not know.
        """
        env = env.unwrapped
        if isinstance(getattr(env, "mdp", None), TabularMDP):
            return env.mdp  # type: ignore[no-any-return]
        table, start = getattr(env, "P", None), getattr(env, "initial_state_distrib", None)
        if table is None or start is None:
            raise ConfigError(
                f"{type(env).__name__} does not tell its transitions (attributes P and initial_state_distrib); build a "
                "TabularMDP from arrays, or by TabularMDP.estimated from trajectories"
            )
        if getattr(env, "fickle_passenger", False):
            raise ConfigError(
                f"{type(env).__name__} with fickle_passenger is no world of its states: the destination changes once "
                "in some episodes, which its table P does not say; leave fickle_passenger false"
            )
        listed = [_outcomes(table[s]) for s in range(len(table))]
        states, actions = len(table), 1 + max(a for outcomes in listed for a in outcomes)
        count = max(len(outcomes[a]) for outcomes in listed for a in outcomes)
        successors = np.zeros((states, actions, count), np.int64)
        probabilities, rewards = np.zeros((2, states, actions, count))
        available = np.zeros((states, actions), bool)
        for s, outcomes in enumerate(listed):
            for a in outcomes:
                available[s, a] = True
                for k, (probability, successor, reward, _) in enumerate(outcomes[a]):
                    successors[s, a, k], probabilities[s, a, k], rewards[s, a, k] = successor, probability, reward
        shapes = [getattr(getattr(env, "desc", None), "shape", ()), getattr(env, "shape", None) or ()]
        grid = next((tuple(shape) for shape in shapes if len(shape) == 2 and np.prod(shape) == states), None)
        return cls(
            (successors, probabilities),
            start,
            reward=rewards,
            terminal=_ends(listed, np.asarray(start)),
            grid=grid,
            available=None if available.all() else available,
        )

    @classmethod
    def estimated(
        cls,
        trajectories: Sequence[ArrayLike],
        *,
        num_states: int | None = None,
        num_actions: int | None = None,
        terminal: ArrayLike | None = None,
        features: ArrayLike | None = None,
        grid: tuple[int, int] | None = None,
        available: ArrayLike | None = None,
    ) -> TabularMDP:
        """The world that made `trajectories` likeliest: p and the start distribution are relative frequencies.

        An action that was never tried in a state is taken to stay there, unless `available` says that it cannot be.

        Args:
            trajectories: integers `[n, 3]` each: state, action and next state of each step.
            num_states: S; by default as many as there are in the trajectories.
            num_actions: A; likewise.
            terminal: `[S]` bool: where an episode is over.
            features: see the class, like the rest.
            grid: rows and columns.
            available: `[S, A]` bool: the actions that can be taken in each state.

        Raises:
            ConfigError: no trajectories, one that is something else, an index out of range, a step that does not begin
                where the one before ended, or an action that is not available; the text names trajectory and step.
        """
        parts = [_steps(number, one) for number, one in enumerate(trajectories)]
        if not parts:
            raise ConfigError("there are no trajectories to estimate a world from")
        for number, part in enumerate(parts):
            torn = np.flatnonzero(part[1:, 0] != part[:-1, 2])
            if len(torn):
                step = int(torn[0]) + 1
                raise ConfigError(
                    f"trajectory {number}, step {step}: begins in state {part[step, 0]}, but the step before ended in "
                    f"{part[step - 1, 2]}"
                )
        rows = np.concatenate(parts)
        states = int(rows[:, [0, 2]].max()) + 1 if num_states is None else num_states
        actions = int(rows[:, 1].max()) + 1 if num_actions is None else num_actions
        for name, column, count in (("state", 0, states), ("action", 1, actions), ("next state", 2, states)):
            outside = np.flatnonzero((rows[:, column] < 0) | (rows[:, column] >= count))
            if len(outside):
                ends = np.cumsum([len(part) for part in parts])
                number = int(np.searchsorted(ends, outside[0], side="right"))
                step = int(outside[0] - ends[number]) + len(parts[number])
                raise ConfigError(
                    f"trajectory {number}, step {step}: {name} {rows[outside[0], column]} does not exist; there are 0 "
                    f"to {count - 1}"
                )
        allowed = None if available is None else np.asarray(available, bool)
        if allowed is not None and allowed.shape == (states, actions) and not allowed[rows[:, 0], rows[:, 1]].all():
            place = int((~allowed[rows[:, 0], rows[:, 1]]).argmax())
            ends = np.cumsum([len(part) for part in parts])
            number = int(np.searchsorted(ends, place, side="right"))
            step = place - int(ends[number]) + len(parts[number])
            raise ConfigError(
                f"trajectory {number}, step {step}: action {rows[place, 1]} is not available in state {rows[place, 0]}"
            )
        row, ones = rows[:, 1] * states + rows[:, 0], np.ones(len(rows))
        untried = np.setdiff1d(np.arange(actions * states), row)
        counts = _sparse(
            np.concatenate([row, untried]),
            np.concatenate([rows[:, 2], untried % states]),
            np.concatenate([ones, np.ones(len(untried))]),
            (actions * states, states),
        )
        counts.data /= np.repeat(counts.sum(1), np.diff(counts.indptr))
        start = np.bincount([part[0, 0] for part in parts], minlength=states) / len(parts)
        return cls(counts, start, terminal=terminal, features=features, grid=grid, available=allowed)

    # What is done with them

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> TabularMDP:
        """The same world on another device, its probabilities and features in another precision."""
        moved = copy.copy(self)
        moved._cache = {}
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(moved, name, value.to(device, dtype if value.is_floating_point() else None))
        if self.reward is not None:
            moved.reward = RewardTable(self.reward.values.to(device, dtype), self.reward.inputs)
        return moved

    @property
    def device(self) -> torch.device:
        """Where the arrays are."""
        return self.probability.device

    @property
    def row(self) -> Tensor:
        """`[N]` int64: a·S + s of each transition."""
        if "row" not in self._cache:
            lengths = self.row_start.diff().long()
            self._cache["row"] = torch.arange(len(lengths), device=self.device).repeat_interleave(lengths)
        return self._cache["row"]  # type: ignore[no-any-return]

    def expected(self, value: Tensor) -> Tensor:
        """Σ_s′ p(s′ | s, a) v(s′): `[S]` to `[A, S]`, without gradient."""
        if self._on_host:
            return torch.from_numpy(self._matrices[0] @ value.numpy()).view(self.num_actions, self.num_states)
        return self.summed(self.probability * value.index_select(0, self.successor))

    def push(self, flow: Tensor) -> Tensor:
        """Σ_s,a f(s, a) p(s′ | s, a): where a flow `[A, S]` out of states arrives, `[S]`, without gradient."""
        if self._on_host:
            return torch.from_numpy(self._matrices[1] @ flow.reshape(-1).numpy())
        return self.arrived(flow.reshape(-1).index_select(0, self.row) * self.probability)

    def summed(self, of_transition: Tensor) -> Tensor:
        """Σ over the transitions out of each state by each action: `[N]` to `[A, S]`."""
        zeros = of_transition.new_zeros(self.num_actions * self.num_states)
        return zeros.index_add(0, self.row, of_transition).view(self.num_actions, self.num_states)

    def arrived(self, of_transition: Tensor) -> Tensor:
        """Σ over the transitions into each state: `[N]` to `[S]`."""
        return of_transition.new_zeros(self.num_states).index_add(0, self.successor, of_transition)

    def find(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        """The index of each transition (s, a, s′) `[M]` among the N, or −1 where it has probability 0: `[M]` int64."""
        low, end = self._bounds(state, action)
        high = end
        while bool((low < high).any()):  # by halves of each row
            middle = (low + high) // 2
            before = (low < high) & (self.successor[middle.clamp(max=len(self.successor) - 1)] < next_state)
            low, high = torch.where(before, middle + 1, low), torch.where(before, high, torch.minimum(middle, high))
        found = (low < end) & (self.successor[low.clamp(max=len(self.successor) - 1)] == next_state)
        return torch.where(found, low, -1)

    def draw(self, state: Tensor, action: Tensor, uniform: Tensor) -> Tensor:
        """The index among the N of a transition out of each state by each action `[B]`, by `uniform: [B]` in [0, 1).

        The states must not be terminal, which nothing leads out of.
        """
        first, end = self._bounds(state, action)
        place = first[:, None] + torch.arange(int((end - first).max()), device=self.device)
        probability = self.probability[place.clamp(max=len(self.probability) - 1)].double()
        cumulative = torch.where(place < end[:, None], probability, 0.0).cumsum(1)
        passed = (cumulative <= uniform[:, None] * cumulative[:, -1:]).sum(1)
        return torch.minimum(first + passed, end - 1)

    def _bounds(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Where the successors of each state and action `[M]` begin and end."""
        row = action * self.num_states + state
        return self.row_start[row].long(), self.row_start[row + 1].long()

    def choices(self) -> Tensor:
        """`[S]` int64: how many actions there are in each state; 1 in a terminal one."""
        if self.available is None:
            count = torch.full((self.num_states,), self.num_actions, device=self.device)
        else:
            count = self.available.sum(1)
        return torch.where(self.terminal, 1, count)

    def reachable(self) -> Tensor:
        """`[S]` bool: the states that some policy comes to from the start distribution."""
        if "reachable" not in self._cache:
            source = self.row.cpu().numpy() % self.num_states
            target, start = self.successor.cpu().numpy(), self.start.cpu().numpy().nonzero()[0]
            # One more node leads to all starts.
            rows = np.concatenate([source, np.full(len(start), self.num_states)])
            count = self.num_states + 1
            graph = _sparse(rows, np.concatenate([target, start]), np.ones(len(rows)), (count, count))
            found = np.zeros(count, bool)
            found[breadth_first_order(graph, self.num_states, return_predecessors=False)] = True
            self._cache["reachable"] = torch.from_numpy(found[:-1]).to(self.device)
        return self._cache["reachable"]  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        # With what is in it, for a cache goes by this text.
        content = hashlib.sha256()
        arrays = [self.row_start, self.successor, self.probability, self.start, self.terminal]
        for array in [*arrays, *([] if self.reward is None else [self.reward.values])]:
            content.update(array.cpu().numpy().tobytes())
        return (
            f"{type(self).__name__}({self.num_states} states, {self.num_actions} actions, {len(self.successor)} "
            f"transitions, {content.hexdigest()[:16]})"
        )

    @property
    def _on_host(self) -> bool:
        return self.device.type == "cpu"

    @property
    def _matrices(self) -> tuple[csr_array, csc_array]:
        """The transitions as SciPy has them, and transposed, in the same memory.

        Products with these take a third to a fifth of the time that gathering and adding do.
        """
        if "matrices" not in self._cache:
            arrays = (self.probability.numpy(), self.successor.numpy(), self.row_start.numpy())
            matrix = csr_array(arrays, (self.num_actions * self.num_states, self.num_states))
            self._cache["matrices"] = matrix, matrix.T
        return self._cache["matrices"]  # type: ignore[no-any-return]

    def __deepcopy__(self, memo: Any) -> TabularMDP:
        return self  # nobody changes one, and Gymnasium copies an environment's arguments

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_cache": {}}

    # Checks

    def _column(self, name: str, values: ArrayLike, dtype: Any) -> NDArray[Any]:
        array = np.asarray(values, dtype)
        if array.shape != (self.num_states,):
            raise ConfigError(f"{name} has shape {list(array.shape)}; expected [{self.num_states}], one entry a state")
        return array

    def _choices(self, available: ArrayLike | None, terminal: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
        if available is None:
            return None
        array = np.asarray(available, bool)
        if array.shape != (self.num_states, self.num_actions):
            raise ConfigError(
                f"available has shape {list(array.shape)}; expected [{self.num_states}, {self.num_actions}], one entry "
                "a state and action"
            )
        without = ~terminal & ~array.any(1)
        if without.any():
            raise ConfigError(f"no action is available in state {int(without.argmax())}, which is not terminal")
        return array.copy()

    def _check_rows(self, matrix: csr_array, terminal: NDArray[np.bool_], available: NDArray[np.bool_] | None) -> None:
        sums, there = matrix.sum(1), np.tile(~terminal, self.num_actions)
        if available is not None:
            there &= available.T.reshape(-1)
        off = ~np.isclose(sums, there, atol=TOLERANCE, rtol=0)
        if off.any():
            action, state = divmod(int(off.argmax()), self.num_states)
            raise ConfigError(
                f"the probabilities of state {state}, action {action} sum to {sums[off.argmax()]:.8g}; they must sum "
                "to 1, unless the state is terminal or the action not available there (available=)"
            )

    def _start(self, start: ArrayLike | None, terminal: NDArray[np.bool_]) -> NDArray[np.float64]:
        if terminal.all():
            raise ConfigError("every state is terminal; there is nothing to do")
        if start is None:
            return ~terminal / np.count_nonzero(~terminal)
        array = self._column("start", start, np.float64)
        if not (array >= 0).all() or not abs(array.sum() - 1.0) < TOLERANCE:
            raise ConfigError(
                f"start must be a distribution over states: its least entry is {array.min()}, its sum {array.sum():.8g}"
            )
        if array[terminal].any():
            state = int((terminal & (array > 0)).argmax())
            raise ConfigError(f"an episode would start in state {state}, which is terminal")
        return np.asarray(array / array.sum())

    def _features(self, features: ArrayLike) -> NDArray[np.float64]:
        array = np.asarray(features, np.float64)
        if array.ndim != 2 or len(array) != self.num_states:
            raise ConfigError(f"features have shape {list(array.shape)}; expected [{self.num_states}, F]")
        if not np.isfinite(array).all():
            row, column = np.argwhere(~np.isfinite(array))[0]
            raise ConfigError(f"features[{row}, {column}] is {array[row, column]}")
        return array

    def _reward(self, reward: ArrayLike, entries: _Entries, matrix: csr_array) -> RewardTable:
        array = np.asarray(reward, np.float64)
        states, actions = self.num_states, self.num_actions
        if not np.isfinite(array).all():
            place = np.argwhere(~np.isfinite(array))[0].tolist()
            raise ConfigError(f"reward{place} is {array[tuple(place)]}")
        if array.shape in ((states,), (states, actions)):
            return RewardTable(torch.from_numpy(array), "state" if array.ndim == 1 else "state_action")
        if array.shape != entries.shape:
            raise ConfigError(
                f"reward has shape {list(array.shape)}; expected [{states}], [{states}, {actions}], or the shape of "
                "the probabilities"
            )
        weighted = entries.probability * array.reshape(-1)[entries.place]
        sums = _sparse(entries.row, entries.successor, weighted, matrix.shape)
        return RewardTable(torch.from_numpy(sums.data / matrix.data), "transition")


class _Entries(NamedTuple):
    """Transitions as they were given, those of probability 0 left out, checked one by one."""

    row: NDArray[Any]
    """a·S + s."""
    successor: NDArray[Any]
    probability: NDArray[np.float64]
    place: NDArray[np.int64]
    """Where in the array that was given, counted through all of it."""
    shape: tuple[int, ...]
    """Of that array: S, A and what is behind them; only S and A of a sparse one."""

    def without(self, terminal: NDArray[np.bool_], available: NDArray[np.bool_] | None) -> _Entries:
        """Those that do not leave a terminal state, by an action that is available."""
        if not terminal.any() and available is None:
            return self
        kept = ~terminal[self.row % self.shape[0]]
        if available is not None:
            kept &= available.T.reshape(-1)[self.row]
        row, successor, probability, place, shape = self
        return _Entries(row[kept], successor[kept], probability[kept], place[kept], shape)


def _entries(transitions: Given) -> _Entries:
    if issparse(transitions) or (isinstance(transitions, Tensor) and transitions.layout != torch.strided):
        matrix = cast(Any, transitions)
        shape = tuple(matrix.shape)
        if len(shape) != 2 or 0 in shape or shape[0] % shape[1]:
            raise ConfigError(f"transitions are sparse {list(shape)}; expected [A · S, S]")
        if isinstance(matrix, Tensor):
            listed = matrix.detach().cpu().to_sparse(layout=torch.sparse_coo).coalesce()
            (row, successors), probabilities = listed.indices().numpy(), listed.values().numpy()
        else:
            listed = matrix.tocoo()
            row, successors, probabilities = listed.row, listed.col, listed.data
        place, sizes = np.flatnonzero(probabilities), (shape[1], shape[0] // shape[1])  # zeros may be stored, too
        return _checked(_Entries(row[place], successors[place], probabilities[place].astype(np.float64), place, sizes))
    given, transitions = transitions if isinstance(transitions, tuple) else (None, transitions)
    array, led = np.asarray(transitions, np.float64), None if given is None else np.asarray(given)
    if array.ndim != 3 or 0 in array.shape or (led is None and array.shape[2] != len(array)):
        raise ConfigError(
            f"transitions have shape {list(array.shape)}; expected [S, A, S], or successors [S, A, K] and "
            "probabilities [S, A, K]"
        )
    if led is not None and (led.shape != array.shape or led.dtype.kind not in "iu"):
        raise ConfigError(
            f"successors are {led.dtype} {list(led.shape)}; expected integers {list(array.shape)}, as the probabilities"
        )
    states, actions, width = array.shape
    place = np.flatnonzero(array)
    # In small numbers where they do, since at a million states each of these columns is large.
    small = np.int32 if array.size < 2**31 else np.int64
    pair = (place // width).astype(small)
    row = pair % actions * states + pair // actions
    successors = (place % width).astype(small) if led is None else led.reshape(-1)[place]
    return _checked(_Entries(row, successors, array.reshape(-1)[place], place, array.shape))


def _checked(entries: _Entries) -> _Entries:
    row, successors, probabilities, _, (states, *_) = entries
    for bad, text in (
        (~((probabilities >= 0) & np.isfinite(probabilities)), "has probability {p}"),
        ((successors < 0) | (successors >= states), f"is no state; states are 0 to {states - 1}"),
    ):
        if bad.any():
            first = int(bad.argmax())
            action, state = divmod(int(row[first]), states)
            raise ConfigError(
                f"state {state}, action {action}: successor {successors[first]} {text.format(p=probabilities[first])}"
            )
    return entries


def _sparse(row: NDArray[Any], column: NDArray[Any], value: NDArray[Any], shape: tuple[int, int]) -> csr_array:
    """Compressed rows, their columns in order and each once, with the sum of its values."""
    matrix = coo_array((value, (row, column)), shape).tocsr()
    matrix.sum_duplicates()
    return matrix


def _steps(number: int, trajectory: ArrayLike) -> NDArray[np.int64]:
    """State, action and next state `[n, 3]` of each step."""
    try:
        array = np.asarray(trajectory)
    except ValueError as error:  # rows of different lengths
        raise ConfigError(f"trajectory {number}: {error}; expected integers [n, 3]") from error
    if not len(np.atleast_1d(array)):
        raise ConfigError(f"trajectory {number} has no steps")
    if array.ndim != 2 or array.shape[1] != 3 or array.dtype.kind not in "iu":
        raise ConfigError(
            f"trajectory {number} is {array.dtype} {list(array.shape)}; expected integers [n, 3]: state, action and "
            "next state of each step"
        )
    return array.astype(np.int64)


def _outcomes(actions: Any) -> dict[int, Any]:
    """What a table `P` lists for each action of a state, those left out that have no outcome."""
    every = actions.items() if isinstance(actions, Mapping) else enumerate(actions)
    return {int(action): outcomes for action, outcomes in every if len(outcomes)}


def _ends(table: list[dict[int, Any]], start: NDArray[Any]) -> NDArray[np.bool_]:
    """`[S]` bool: the states of a table `P` in which episodes end."""
    terminal, entered = np.zeros(len(table), bool), np.zeros(len(table), bool)
    entered[start > 0] = True
    waiting = list(np.flatnonzero(entered))
    while waiting:
        s = waiting.pop()
        for outcomes in table[s].values():
            for probability, successor, _, terminated in outcomes:
                if probability > 0 and terminated:
                    terminal[successor] = True
                elif probability > 0 and not entered[successor]:
                    entered[successor] = True
                    waiting.append(successor)
    if (terminal & entered).any():
        state = int((terminal & entered).argmax())
        raise ConfigError(
            f"state {state} is entered both with and without the episode's end; no table of states can say so"
        )
    return terminal
