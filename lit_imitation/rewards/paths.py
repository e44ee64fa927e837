"""Whole trajectories, padded to one length, and their probabilities under several policies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lit_imitation.policies import Policy
from lit_imitation.rollout import Round
from lit_imitation.transitions import Transitions


class Paths(NamedTuple):
    """N whole trajectories, padded with zeros to T steps."""

    observation: Tensor
    """`[N, T, *obs]` observations."""
    action: Tensor
    """`[N, T, *act]` actions, before clipping to the action space."""
    alive: Tensor
    """`[N, T]` bool, true for the steps of each trajectory."""

    @classmethod
    def from_transitions(cls, transitions: Transitions) -> Paths:
        """All trajectories of a flat record."""
        rows = torch.split(torch.arange(len(transitions)), transitions.episode_lengths().tolist())
        return cls._select(transitions, rows)

    @classmethod
    def within_round(cls, batch: Round, starts: Tensor) -> Paths | None:
        """Episodes that begin and end within a round `[time, env]`; None if there are none.

        Args:
            batch: The round.
            starts: `[env]` bool: Whether an episode begins with the first step of the round.
        """
        done, valid = (batch.rollout.done & batch.valid).cpu(), batch.valid.cpu()
        time, envs = done.shape
        rows = []
        for env in range(envs):
            begin = 0 if starts[env] else None
            for end in done[:, env].nonzero().flatten().tolist():
                if begin is not None:
                    steps = torch.arange(begin, end + 1)
                    rows.append(steps[valid[begin : end + 1, env]] * envs + env)
                begin = end + 1
        return cls._select(batch.rollout.reshape(time * envs), rows) if rows else None

    @classmethod
    def concatenate(cls, paths: Sequence[Paths]) -> Paths:
        """Concatenate trajectories, padded to the longest."""
        longest = max(one.alive.shape[1] for one in paths)

        def pad(column: Tensor) -> Tensor:
            return F.pad(column, (0, 0) * (column.ndim - 2) + (0, longest - column.shape[1]))

        return cls(*(torch.cat([pad(column) for column in columns]) for columns in zip(*paths, strict=True)))

    @classmethod
    def _select(cls, transitions: Transitions, rows: Sequence[Tensor]) -> Paths:
        """Trajectories with these rows of a flat record, one tensor of indices per trajectory."""
        lengths = torch.tensor([len(one) for one in rows])
        index = pad_sequence(list(rows), batch_first=True)
        alive = torch.arange(index.shape[1]) < lengths[:, None]
        index, alive = index.to(transitions.device), alive.to(transitions.device)
        return cls(transitions.observation[index], transitions.action[index], alive)

    def rows(self, index: Tensor) -> Paths:
        """Select the trajectories `index: [n]`."""
        return Paths(*(column.index_select(0, index) for column in self))

    @torch.no_grad()
    def log_prob(self, policy: Policy) -> Tensor:
        """Log probability Σ_t log π(a_t | s_t) `[N]` of the executed actions."""
        head = policy.head(self.observation.flatten(0, 1))
        log_prob = policy.executed_log_prob(head, self.action.flatten(0, 1))
        return torch.where(self.alive, log_prob.view_as(self.alive), 0.0).sum(1)


def log_mixture(log_prob: Tensor, counts: Tensor) -> Tensor:
    """Log q(τ_j) `[M]` of the mixture q = Σ_κ n_κ q_κ / Σ_κ n_κ.

    Args:
        log_prob: Log probability of each trajectory under each policy, log q_κ(τ_j) `[M, k]`.
        counts: Number of trajectories from each policy, n_κ `[k]`.
    """
    return (log_prob + (counts / counts.sum()).log()).logsumexp(1)
