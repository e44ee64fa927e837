"""What acts while DAgger collects: expert and learner mixed, with the expert's word on every state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lit_imitation.errors import ExpertError
from lit_imitation.rollout import Actor, Episodes
from lit_imitation.transitions import Transitions

Array: TypeAlias = NDArray[Any]

DIFFERENCE = 0.05
"""Continuous actions differ where they are further apart than this share of what the policy takes for their range."""


class Mixture:
    """π_i = β_i π* + (1 − β_i) π̂_i (Ross, Gordon & Bagnell 2011, algorithm 3.1), and π*'s label for each state.

    Who acts is drawn anew at every step of every environment. The label is the expert's whoever acted.

    Args:
        expert: π*, asked once a step about all states that are to be labeled.
        learner: π̂_i.
        beta: β_i.
        draw: a number in [0, 1) for each environment, `[B]`; the expert acts where it is below β_i.
        uncertain: with it the expert is asked only where it says so (and where the expert acts): observations
            `[n, *obs]` to `[n]` bool.
        turns: how often the expert may act in each environment at most, `[B]`; the learner acts from then on.

    Attributes:
        labels: `[B, *act]` of each step; the learner's action where nobody asked.
        learned: `[B, *act]` of each step, what the learner would do.
        asked: `[B]` bool of each step.
    """

    rollout: Episodes
    """The rollout in which this acts; it tells which environments count."""

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
        self.labels: list[Array] = []
        self.learned: list[Array] = []
        self.asked: list[NDArray[np.bool_]] = []

    def __call__(self, observation: Array) -> Array:
        """The actions to play, `[B, *act]`.

        Raises:
            ExpertError: the expert raised something; the text names the step.
        """
        live = self.rollout.live
        learned = self.learner(observation)
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
        if count:
            try:
                if count == len(ask):
                    labels = self.expert(observation)
                else:
                    labels = learned.copy()
                    labels[ask] = self.expert(observation[ask])
            except (Exception, SystemExit) as error:  # an expert may be anybody's code
                cause = str(error) if isinstance(error, ExpertError) else f"{type(error).__name__}: {error}"
                raise ExpertError(f"step {len(self.labels)}: {cause}") from error
        self.labels.append(labels)
        self.learned.append(learned)
        self.asked.append(ask)
        if self.beta == 0.0:
            return learned
        shape = (-1,) + (1,) * (learned.ndim - 1)
        return np.where(experts_turn.reshape(shape), labels, learned)

    def outcome(self) -> tuple[Transitions, Tensor, Tensor]:
        """Transitions `[N]` with labels as actions, the learner's own actions `[N, *act]`, and `asked: [N]` bool.

        Where nobody asked the action is the learner's.
        """
        flat = self.rollout.flat
        transitions = self.rollout.transitions()
        transitions.action = torch.from_numpy(flat(self.labels))
        return transitions, torch.from_numpy(flat(self.learned)), torch.from_numpy(flat(self.asked))


def differ(a: Array, b: Array, width: Array | None) -> NDArray[np.bool_]:
    """`[N]`: where two actions `[N, *act]` are not the same.

    Args:
        a: actions.
        b: others.
        width: `[*act]`, the range of continuous actions, which may be `DIFFERENCE` of it apart; None for discrete ones.
    """
    apart = np.asarray(a != b) if width is None else np.abs(a - b) > DIFFERENCE * width
    return np.asarray(apart.any(axis=tuple(range(1, apart.ndim))))
