"""`Pairs`: state–action pairs of the expert and of the learner, from which a discriminator learns."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lit_imitation.data.imitation_module import ImitationDataModule
from lit_imitation.methods.data_checks import check_terminal_rows
from lit_imitation.rewards.features import Samples
from lit_imitation.rollout import Round
from lit_imitation.utils.distributed import rank, world_size

HELD_OUT = 4096
"""Most demonstrated pairs on which accuracy is measured in a round."""

LogProb = Callable[[Tensor, Tensor], Tensor]
"""Log π(a | s) `[N]` of observations and actions."""


class Pairs:
    """Pairs of the expert, and those of the learner in the current round and in rounds before it.

    Args:
        replay_rounds: Earlier rounds whose pairs are kept.
    """

    expert: Samples
    """The demonstrated pairs."""
    expert_weight: Tensor | None
    """Weights of the expert's pairs; None if all are equal."""
    held_out: Samples | None
    """Pairs of demonstrations that are held out."""
    held_out_weight: Tensor | None
    """Their weights; None if all are equal."""

    def __init__(self, replay_rounds: int) -> None:
        self.replay_rounds = replay_rounds
        self.learner: list[Samples] = []
        """The learner's pairs of each round, the current one last."""

    def take_demonstrations(self, data: ImitationDataModule, absorbing: bool) -> None:
        """Take the expert's pairs, with a row for the absorbing state after each end if `absorbing`."""
        train, held_out = data.train, data.held_out
        self.expert, self.expert_weight = Samples.from_transitions(train, absorbing=absorbing), train.weight
        if absorbing:
            check_terminal_rows(self.expert, data)
            if train.weight is not None:  # what follows an end counts as the end does
                self.expert_weight = torch.cat([train.weight, train.weight[train.terminated]])
        self.held_out = Samples.from_transitions(held_out[:HELD_OUT]) if len(held_out) else None
        self.held_out_weight = held_out.weight[:HELD_OUT] if held_out.weight is not None else None

    def add_round(self, batch: Round, absorbing: bool) -> None:
        """Add the learner's pairs of a round, and drop those of the oldest."""
        current = Samples.from_transitions(batch.rollout[batch.valid], absorbing=absorbing)
        self.learner = [*self.learner, current][-1 - self.replay_rounds :]

    def draw(self, steps: int, size: int, log_prob: LogProb) -> list[Tensor]:
        """Draw as many pairs of the expert, by their weights, as of the learner, with replacement.

        Args:
            steps: Minibatches.
            size: Pairs of each side in a minibatch, on each process.
            log_prob: Log π(a | s) under the current policy.

        Returns:
            The arguments of `AdversarialReward.forward`: the fields of `Samples` and log π, `[steps, 2 · size, …]`
            each, the expert's half first; and the positions `[steps, size]` of the gradient penalty between the halves.
        """
        expert = _draw(self.expert, steps * size, self.expert_weight, log_prob)
        learner = _draw(Samples.concatenate(self.learner), steps * size, None, log_prob)
        columns = [
            torch.cat([column.view(steps, size, *column.shape[1:]) for column in both], 1)
            for both in zip(expert, learner, strict=True)
        ]
        # Every process draws for all and keeps its own part, so that w processes sample what one would.
        place = torch.rand(steps, size * world_size(), device=columns[0].device)[:, rank() :: world_size()]
        return [*columns, place]

    def state(self) -> list[list[Tensor]]:
        """The learner's pairs that the next round draws along with its own."""
        return [list(one) for one in self.learner[-self.replay_rounds :]] if self.replay_rounds else []

    def load_state(self, state: Sequence[Sequence[Tensor]], device: torch.device) -> None:
        """Restore what `state` returned."""
        self.learner = [Samples(*(column.to(device) for column in one)) for one in state]


def with_log_prob(batch: Round, log_prob: LogProb) -> Round:
    """The round with log π(a | s) under the current policy, in place of that of the policy that played it."""
    rollout = batch.rollout.clone(recurse=False)
    found = log_prob(rollout.observation.flatten(0, 1), rollout.action.flatten(0, 1))
    rollout.log_prob = found.view_as(rollout.reward)
    return batch._replace(rollout=rollout)


def _draw(samples: Samples, count: int, weight: Tensor | None, log_prob: LogProb) -> list[Tensor]:
    index = samples.sample_indices(count, weight)
    rows = samples.rows(index)
    if len(samples.absorbing) < count:  # fewer rows than draws: evaluate the policy once per row
        return [*rows, log_prob(samples.observation, samples.action)[index]]
    return [*rows, log_prob(rows.observation, rows.action)]
