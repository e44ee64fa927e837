"""`TabularMDP`: a finite MDP in memory linear in its possible transitions."""

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
"""Maximum deviation of a row sum from 1, about float32 rounding; rows are then normalized."""
TransitionInput: TypeAlias = ArrayLike | tuple[ArrayLike, ArrayLike] | sparray | spmatrix | Tensor


class RewardTable(NamedTuple):
    """Reward of each state, each state and action, or each possible transition of a world."""

    values: Tensor
    """`[S]`, `[S, A]`, or `[N]` in the order of `TabularMDP.successor`."""
    inputs: Inputs = "state"
    """Which of these `values` holds."""


class TabularMDP(TypeChecked):
    """Finite MDP: states 0 … S − 1, actions 0 … A − 1, transition probabilities p(s′ | s, a), start distribution.

    Only the N transitions of positive probability are stored, sorted by action, state and successor. The successors of
    row a·S + s are `successor[row_start[a·S + s] : row_start[a·S + s + 1]]`. Terminal states have none. A reward of a
    terminal state is received once, when it is entered.

    Args:
        transitions: Probabilities p as an array `[S, A, S]`; or a pair of successors `[S, A, K]` and probabilities `[S,
            A, K]`, padded with probability 0, where repeated successors add up; or a sparse array `[A · S, S]` of SciPy
            or torch in any layout, with rows a·S + s.
        start: `[S]` start distribution; by default uniform over the states that are not terminal.
        reward: True reward, if known: `[S]`, `[S, A]`, or per transition in the shape of the probabilities. Rewards of
            repeated successors are averaged.
        terminal: `[S]` bool, states in which an episode ends; their rows are not read.
        features: `[S, F]` inputs of a reward model; by default one-hot state indicators.
        grid: Number of rows and columns if state r · columns + c is a cell of a grid.
        available: `[S, A]` bool, actions available in each state, by default all. Rows of other actions are not read,
            no policy takes them, and a uniform policy is uniform over the available ones.

    Raises:
        ConfigError: Shapes do not match, an index is out of range, probabilities are negative or do not sum to 1, or a
            state has no action; the text names the entry.
    """

    def __init__(
        self,
        transitions: TransitionInput,
        start: ArrayLike | None = None,
        *,
        reward: ArrayLike | None = None,
        terminal: ArrayLike | None = None,
        features: ArrayLike | None = None,
        grid: tuple[int, int] | None = None,
        available: ArrayLike | None = None,
    ) -> None:
        entries = _read_entries(transitions)
        self.num_states, self.num_actions = entries.shape[:2]
        ended = np.zeros(self.num_states, bool) if terminal is None else self._column("terminal", terminal, bool)
        choices = self._check_available(available, ended)
        entries = entries.without(ended, choices)
        shape = (self.num_actions * self.num_states, self.num_states)
        matrix = _build_csr(entries.row, entries.successor, entries.probability, shape)
        self._check_rows(matrix, ended, choices)
        sums = np.repeat(matrix.sum(1), np.diff(matrix.indptr))
        self.terminal = torch.from_numpy(ended)
        self.available = None if choices is None else torch.from_numpy(choices)
        """`[S, A]` bool, or None if every action is available in every state."""
        self.row_start = torch.from_numpy(matrix.indptr)
        self.successor = torch.from_numpy(matrix.indices)
        """`[N]` successor s′ of each transition."""
        self.probability = torch.from_numpy(matrix.data / sums)
        """`[N]` probability of each transition, float64 unless changed by `to`."""
        self.start = torch.from_numpy(self._start(start, ended))
        self.features = None if features is None else torch.from_numpy(self._features(features))
        if grid is not None and grid[0] * grid[1] != self.num_states:
            raise ConfigError(f"a grid of {grid[0]} × {grid[1]} does not have {self.num_states} states")
        self.grid = grid
        self.reward = None if reward is None else self._reward(reward, entries, matrix)
        self._cache: dict[str, Any] = {}

    # Constructors

    @classmethod
    def from_env(cls, env: Any) -> TabularMDP:
        """Read the world of a Gymnasium environment with Discrete spaces: one of this package, or with a table `P`.

        `P[s][a]` lists (probability, successor, reward, terminated), as in FrozenLake, Taxi and CliffWalking. Entries
        of unreachable states do not matter. An action that is missing in `P[s]`, or has an empty list, is not available
        in s.

        Args:
            env: Environment.

        Returns:
            The world.

        Raises:
            ConfigError: The environment has no table, a state is entered both with and without the end of an episode,
                or Taxi has a fickle passenger, which the table does not describe.
        """
        env = env.unwrapped
        if isinstance(getattr(env, "mdp", None), TabularMDP):
            return env.mdp  # type: ignore[no-any-return]
        table, start = getattr(env, "P", None), getattr(env, "initial_state_distrib", None)
        if table is None or start is None:
            raise ConfigError(
                f"{type(env).__name__} has no transition table (attributes P and initial_state_distrib); build a "
                "TabularMDP from arrays, or from trajectories with TabularMDP.estimate"
            )
        if getattr(env, "fickle_passenger", False):
            raise ConfigError(
                f"{type(env).__name__} with fickle_passenger is not an MDP in its states: the destination may change "
                "once in an episode, which its table P does not describe; set fickle_passenger to false"
            )
        listed = [_nonempty_outcomes(table[s]) for s in range(len(table))]
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
            terminal=_find_terminal(listed, np.asarray(start)),
            grid=grid,
            available=None if available.all() else available,
        )

    @classmethod
    def estimate(
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
        """Maximum-likelihood world of `trajectories`: p and the start distribution are relative frequencies.

        An action that was never tried in a state is assumed to stay there, unless `available` excludes it.

        Args:
            trajectories: Integer arrays `[n, 3]`: state, action and next state of each step.
            num_states: Number S of states, by default inferred from the trajectories.
            num_actions: Number A of actions, by default inferred from the trajectories.
            terminal: `[S]` bool, states in which an episode ends.
            features: `[S, F]` inputs of a reward model, as for the class.
            grid: Number of rows and columns, as for the class.
            available: `[S, A]` bool, actions available in each state.

        Returns:
            The world.

        Raises:
            ConfigError: There are no trajectories, one is not an integer array `[n, 3]`, an index is out of range, a
                step does not start where the one before ended, or an action is not available; the text names trajectory
                and step.
        """
        parts = [_read_steps(number, one) for number, one in enumerate(trajectories)]
        if not parts:
            raise ConfigError("no trajectories: at least one is needed to estimate a world")
        for number, part in enumerate(parts):
            torn = np.flatnonzero(part[1:, 0] != part[:-1, 2])
            if len(torn):
                step = int(torn[0]) + 1
                raise ConfigError(
                    f"trajectory {number}, step {step}: starts in state {part[step, 0]}, but the step before ended in "
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
                    f"trajectory {number}, step {step}: {name} {rows[outside[0], column]} does not exist; valid are 0 "
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
        counts = _build_csr(
            np.concatenate([row, untried]),
            np.concatenate([rows[:, 2], untried % states]),
            np.concatenate([ones, np.ones(len(untried))]),
            (actions * states, states),
        )
        counts.data /= np.repeat(counts.sum(1), np.diff(counts.indptr))
        start = np.bincount([part[0, 0] for part in parts], minlength=states) / len(parts)
        return cls(counts, start, terminal=terminal, features=features, grid=grid, available=allowed)

    # Operations

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> TabularMDP:
        """Copy to another device, with probabilities and features in another precision."""
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
        """Device of the arrays."""
        return self.probability.device

    @property
    def row(self) -> Tensor:
        """`[N]` int64 row a·S + s of each transition."""
        if "row" not in self._cache:
            lengths = self.row_start.diff().long()
            self._cache["row"] = torch.arange(len(lengths), device=self.device).repeat_interleave(lengths)
        return self._cache["row"]  # type: ignore[no-any-return]

    def expectation(self, value: Tensor) -> Tensor:
        """Expectation Σ_s′ p(s′ | s, a) v(s′) `[A, S]` of `value: [S]`, without gradient."""
        if self._on_host:
            return torch.from_numpy(self._matrices[0] @ value.numpy()).view(self.num_actions, self.num_states)
        return self.sum_outgoing(self.probability * value.index_select(0, self.successor))

    def push(self, flow: Tensor) -> Tensor:
        """State mass Σ_s,a f(s, a) p(s′ | s, a) `[S]` after one step from `flow: [A, S]`, without gradient."""
        if self._on_host:
            return torch.from_numpy(self._matrices[1] @ flow.reshape(-1).numpy())
        return self.sum_incoming(flow.reshape(-1).index_select(0, self.row) * self.probability)

    def sum_outgoing(self, of_transition: Tensor) -> Tensor:
        """Sum `of_transition: [N]` over the transitions out of each state by each action, `[A, S]`."""
        zeros = of_transition.new_zeros(self.num_actions * self.num_states)
        return zeros.index_add(0, self.row, of_transition).view(self.num_actions, self.num_states)

    def sum_incoming(self, of_transition: Tensor) -> Tensor:
        """Sum `of_transition: [N]` over the transitions into each state, `[S]`."""
        return of_transition.new_zeros(self.num_states).index_add(0, self.successor, of_transition)

    def find(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        """Indices `[M]` int64 of transitions (s, a, s′) `[M]` among the N, or −1 for probability 0."""
        low, end = self._bounds(state, action)
        high = end
        while bool((low < high).any()):  # binary search in each row
            middle = (low + high) // 2
            before = (low < high) & (self.successor[middle.clamp(max=len(self.successor) - 1)] < next_state)
            low, high = torch.where(before, middle + 1, low), torch.where(before, high, torch.minimum(middle, high))
        found = (low < end) & (self.successor[low.clamp(max=len(self.successor) - 1)] == next_state)
        return torch.where(found, low, -1)

    def sample_transition(self, state: Tensor, action: Tensor, uniform: Tensor) -> Tensor:
        """Indices `[B]` of transitions out of each state by each action, selected by `uniform: [B]` in [0, 1).

        The states must not be terminal.
        """
        first, end = self._bounds(state, action)
        place = first[:, None] + torch.arange(int((end - first).max()), device=self.device)
        probability = self.probability[place.clamp(max=len(self.probability) - 1)].double()
        cumulative = torch.where(place < end[:, None], probability, 0.0).cumsum(1)
        passed = (cumulative <= uniform[:, None] * cumulative[:, -1:]).sum(1)
        return torch.minimum(first + passed, end - 1)

    def _bounds(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Start and end of the successors of each state and action `[M]`."""
        row = action * self.num_states + state
        return self.row_start[row].long(), self.row_start[row + 1].long()

    def count_actions(self) -> Tensor:
        """`[S]` int64 number of available actions in each state; 1 in a terminal state."""
        if self.available is None:
            count = torch.full((self.num_states,), self.num_actions, device=self.device)
        else:
            count = self.available.sum(1)
        return torch.where(self.terminal, 1, count)

    def reachable(self) -> Tensor:
        """`[S]` bool, states that some policy reaches from the start distribution."""
        if "reachable" not in self._cache:
            source = self.row.cpu().numpy() % self.num_states
            target, start = self.successor.cpu().numpy(), self.start.cpu().numpy().nonzero()[0]
            # An extra node leads to all start states.
            rows = np.concatenate([source, np.full(len(start), self.num_states)])
            count = self.num_states + 1
            graph = _build_csr(rows, np.concatenate([target, start]), np.ones(len(rows)), (count, count))
            found = np.zeros(count, bool)
            found[breadth_first_order(graph, self.num_states, return_predecessors=False)] = True
            self._cache["reachable"] = torch.from_numpy(found[:-1]).to(self.device)
        return self._cache["reachable"]  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        # Includes a hash of the content, because caches use this text as a key.
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
        """SciPy matrices of the transitions, and their transpose, sharing memory with the tensors.

        Products with these take a fifth to a third of the time of gather and scatter operations.
        """
        if "matrices" not in self._cache:
            arrays = (self.probability.numpy(), self.successor.numpy(), self.row_start.numpy())
            matrix = csr_array(arrays, (self.num_actions * self.num_states, self.num_states))
            self._cache["matrices"] = matrix, matrix.T
        return self._cache["matrices"]  # type: ignore[no-any-return]

    def __deepcopy__(self, memo: Any) -> TabularMDP:
        return self  # worlds are immutable, and Gymnasium deep-copies an environment's arguments

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_cache": {}}

    # Checks

    def _column(self, name: str, values: ArrayLike, dtype: Any) -> NDArray[Any]:
        array = np.asarray(values, dtype)
        if array.shape != (self.num_states,):
            raise ConfigError(f"{name} has shape {list(array.shape)}; expected [{self.num_states}], one per state")
        return array

    def _check_available(self, available: ArrayLike | None, terminal: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
        if available is None:
            return None
        array = np.asarray(available, bool)
        if array.shape != (self.num_states, self.num_actions):
            raise ConfigError(
                f"available has shape {list(array.shape)}; expected [{self.num_states}, {self.num_actions}], one entry "
                "per state and action"
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
                "to 1, unless the state is terminal or the action is not available there (available=)"
            )

    def _start(self, start: ArrayLike | None, terminal: NDArray[np.bool_]) -> NDArray[np.float64]:
        if terminal.all():
            raise ConfigError("every state is terminal; at least one must not be")
        if start is None:
            return ~terminal / np.count_nonzero(~terminal)
        array = self._column("start", start, np.float64)
        if not (array >= 0).all() or not abs(array.sum() - 1.0) < TOLERANCE:
            raise ConfigError(
                f"start is not a distribution over states: its minimum is {array.min()}, its sum {array.sum():.8g}"
            )
        if array[terminal].any():
            state = int((terminal & (array > 0)).argmax())
            raise ConfigError(f"start has positive probability in state {state}, which is terminal")
        return np.asarray(array / array.sum())

    def _features(self, features: ArrayLike) -> NDArray[np.float64]:
        array = np.asarray(features, np.float64)
        if array.ndim != 2 or len(array) != self.num_states:
            raise ConfigError(f"features have shape {list(array.shape)}; expected [{self.num_states}, F]")
        if not np.isfinite(array).all():
            row, column = np.argwhere(~np.isfinite(array))[0]
            raise ConfigError(f"features[{row}, {column}] is {array[row, column]}; all entries must be finite")
        return array

    def _reward(self, reward: ArrayLike, entries: _Entries, matrix: csr_array) -> RewardTable:
        array = np.asarray(reward, np.float64)
        states, actions = self.num_states, self.num_actions
        if not np.isfinite(array).all():
            place = np.argwhere(~np.isfinite(array))[0].tolist()
            raise ConfigError(f"reward{place} is {array[tuple(place)]}; all entries must be finite")
        if array.shape in ((states,), (states, actions)):
            return RewardTable(torch.from_numpy(array), "state" if array.ndim == 1 else "state_action")
        if array.shape != entries.shape:
            raise ConfigError(
                f"reward has shape {list(array.shape)}; expected [{states}], [{states}, {actions}], or the shape of "
                "the probabilities"
            )
        weighted = entries.probability * array.reshape(-1)[entries.place]
        sums = _build_csr(entries.row, entries.successor, weighted, matrix.shape)
        return RewardTable(torch.from_numpy(sums.data / matrix.data), "transition")


class _Entries(NamedTuple):
    """Transitions of positive probability as given, after validation."""

    row: NDArray[Any]
    """Row a·S + s of each transition."""
    successor: NDArray[Any]
    probability: NDArray[np.float64]
    place: NDArray[np.int64]
    """Flat index of each transition in the given array."""
    shape: tuple[int, ...]
    """Shape of the given array, starting with S and A; only S and A for a sparse array."""

    def without(self, terminal: NDArray[np.bool_], available: NDArray[np.bool_] | None) -> _Entries:
        """Remove transitions out of terminal states or by unavailable actions."""
        if not terminal.any() and available is None:
            return self
        keep = ~terminal[self.row % self.shape[0]]
        if available is not None:
            keep &= available.T.reshape(-1)[self.row]
        row, successor, probability, place, shape = self
        return _Entries(row[keep], successor[keep], probability[keep], place[keep], shape)


def _read_entries(transitions: TransitionInput) -> _Entries:
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
        place, sizes = np.flatnonzero(probabilities), (shape[1], shape[0] // shape[1])  # a sparse array may store zeros
        return _check_entries(
            _Entries(row[place], successors[place], probabilities[place].astype(np.float64), place, sizes)
        )
    given, transitions = transitions if isinstance(transitions, tuple) else (None, transitions)
    array, successor_input = np.asarray(transitions, np.float64), None if given is None else np.asarray(given)
    if array.ndim != 3 or 0 in array.shape or (successor_input is None and array.shape[2] != len(array)):
        raise ConfigError(
            f"transitions have shape {list(array.shape)}; expected [S, A, S], or successors [S, A, K] and "
            "probabilities [S, A, K]"
        )
    if successor_input is not None and (successor_input.shape != array.shape or successor_input.dtype.kind not in "iu"):
        raise ConfigError(
            f"successors are {successor_input.dtype} {list(successor_input.shape)}; expected integers "
            f"{list(array.shape)}, the shape of the probabilities"
        )
    states, actions, width = array.shape
    place = np.flatnonzero(array)
    # int32 where possible: with a million states each of these arrays is large.
    small = np.int32 if array.size < 2**31 else np.int64
    pair = (place // width).astype(small)
    row = pair % actions * states + pair // actions
    successors = (place % width).astype(small) if successor_input is None else successor_input.reshape(-1)[place]
    return _check_entries(_Entries(row, successors, array.reshape(-1)[place], place, array.shape))


def _check_entries(entries: _Entries) -> _Entries:
    row, successors, probabilities, _, (states, *_) = entries
    for bad, text in (
        (~((probabilities >= 0) & np.isfinite(probabilities)), "has probability {p}"),
        ((successors < 0) | (successors >= states), f"is not a state; states are 0 to {states - 1}"),
    ):
        if bad.any():
            first = int(bad.argmax())
            action, state = divmod(int(row[first]), states)
            raise ConfigError(
                f"state {state}, action {action}: successor {successors[first]} {text.format(p=probabilities[first])}"
            )
    return entries


def _build_csr(row: NDArray[Any], column: NDArray[Any], value: NDArray[Any], shape: tuple[int, int]) -> csr_array:
    """Build a CSR array with sorted columns, summing the values of duplicates."""
    matrix = coo_array((value, (row, column)), shape).tocsr()
    matrix.sum_duplicates()
    return matrix


def _read_steps(number: int, trajectory: ArrayLike) -> NDArray[np.int64]:
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


def _nonempty_outcomes(actions: Any) -> dict[int, Any]:
    """Outcomes in a table `P` for each action of a state, without actions that have none."""
    every = actions.items() if isinstance(actions, Mapping) else enumerate(actions)
    return {int(action): outcomes for action, outcomes in every if len(outcomes)}


def _find_terminal(table: list[dict[int, Any]], start: NDArray[Any]) -> NDArray[np.bool_]:
    """`[S]` bool, states of a table `P` in which episodes end."""
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
            f"state {state} is entered both with and without the end of an episode, so it is neither terminal nor not; "
            "build a TabularMDP from arrays"
        )
    return terminal
