"""The mixture of expert and learner that acts while DAgger collects, with the expert's labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from torch import Tensor

from lit_imitation.errors import ExpertError
from lit_imitation.rollout import Actor, Episodes, keeps_state
from lit_imitation.rollout.actor import bind_environments
from lit_imitation.transitions import Transitions

Array: TypeAlias = NDArray[Any]
T = TypeVar("T")

DIFFERENCE = 0.05
"""Share of their range by which continuous actions must differ to count as different."""


class Mixture:
    """π_i = β_i π* + (1 − β_i) π̂_i (Ross, Gordon & Bagnell 2011, algorithm 3.1), and π*'s label for each state.

    The choice between them is drawn at every step of every environment. The label is the expert's action in any case.

    Args:
        expert: π*, asked once per step about all states that need a label. An expert that keeps state is asked about
            every state of every step, so that it sees whole episodes.
        learner: π̂_i.
        beta: β_i.
        draw: Returns a number in [0, 1) for each environment, `[B]`; the expert acts where it is below β_i.
        uncertain: Function from observations `[n, *obs]` to `[n]` bool. With it, labels come from the expert only
            where it is true, and where the expert acts.
        turns: Maximum number of steps in which the expert acts in each environment, `[B]`.

    Attributes:
        labels: `[B, *act]` of each step; the learner's action where the expert was not asked.
        learned: `[B, *act]` of each step, the learner's action.
        asked: `[B]` bool of each step.
    """

    rollout: Episodes
    """The rollout that this actor is in, which knows the environments whose step counts."""

    def __init__(
        self,
        expert: Actor,
        learner: Actor,
        beta: float,
        draw: Callable[[], NDArray[np.float64]],
        uncertain: Callable[[Array], NDArray[np.bool_]] | None = None,
        turns: NDArray[np.int64] | None = None,
    ) -> None:
        self.expert, self.learner, self.beta, self.draw, self.uncertain = expert, learner, beta, draw, uncertain
        self.turns = turns
        self.needs_env = any(getattr(one, "needs_env", False) for one in (expert, learner))
        self._sees_all = keeps_state(expert)
        self.labels: list[Array] = []
        self.learned: list[Array] = []
        self.asked: list[NDArray[np.bool_]] = []

    def reset(self, mask: NDArray[np.bool_], /) -> None:
        """Pass the start of episodes on to expert and learner."""
        self._ask_expert(lambda: self.expert.reset(mask.copy()))  # an actor may change its mask
        self.learner.reset(mask)

    def bind(self, envs: VectorEnv[Any, Any, Any]) -> None:
        """Pass the vector environment on to expert and learner."""
        self._ask_expert(lambda: bind_environments(self.expert, envs))
        bind_environments(self.learner, envs)

    def act(self, observation: Array, /) -> Array:
        """Choose the actions `[B, *act]`, and note labels and the learner's actions.

        Raises:
            ExpertError: The expert failed. The message names the step.
        """
        live = self.rollout.live
        learned = self.learner.act(observation)
        experts_turn = self.draw() < self.beta
        if self.turns is not None:
            experts_turn &= self.turns > 0
            self.turns = self.turns - (experts_turn & live)
        ask = live
        if self.uncertain is not None:
            ask = live & experts_turn
            unknown = np.flatnonzero(live & ~experts_turn)
            if len(unknown):
                ask[unknown] = self.uncertain(observation[unknown])
        count = np.count_nonzero(ask)
        labels = learned
        if count == len(ask):
            labels = self._ask_expert(lambda: self.expert.act(observation))
        elif self._sees_all:
            answers = self._ask_expert(lambda: self.expert.act(observation))
            labels = learned.copy()
            labels[ask] = answers[ask]
        elif count:
            labels = learned.copy()
            labels[ask] = self._ask_expert(lambda: self.expert.act(observation[ask]))
        self.labels.append(labels)
        self.learned.append(learned)
        self.asked.append(ask)
        if self.beta == 0.0:
            return learned
        shape = (-1,) + (1,) * (learned.ndim - 1)
        return np.where(experts_turn.reshape(shape), labels, learned)

    def _ask_expert(self, question: Callable[[], T]) -> T:
        """Call the expert, and name the step where it fails."""
        try:
            return question()
        except (Exception, SystemExit) as error:  # the expert's code may raise anything
            cause = str(error) if isinstance(error, ExpertError) else f"{type(error).__name__}: {error}"
            raise ExpertError(f"step {len(self.labels)}: {cause}") from error

    def outcome(self) -> tuple[Transitions, Tensor, Tensor]:
        """Transitions `[N]` with labels as actions, the learner's own actions `[N, *act]`, and `asked: [N]` bool.

        Where the expert was not asked, the action is the learner's.
        """
        flat = self.rollout.flat
        transitions = self.rollout.transitions()
        transitions.action = torch.from_numpy(flat(self.labels))
        return transitions, torch.from_numpy(flat(self.learned)), torch.from_numpy(flat(self.asked))


def differ(a: Array, b: Array, width: Array | None) -> NDArray[np.bool_]:
    """`[N]` bool: Where actions `a` and `b`, `[N, *act]` each, differ.

    Args:
        a: Actions.
        b: Other actions.
        width: Range of continuous actions, `[*act]`, which count as equal up to `DIFFERENCE` of it; None for discrete
            actions.
    """
    apart = np.asarray(a != b) if width is None else np.abs(a - b) > DIFFERENCE * width
    return np.asarray(apart.any(axis=tuple(range(1, apart.ndim))))
