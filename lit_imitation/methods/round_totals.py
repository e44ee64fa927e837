"""`RoundTotals`: figures of a round over all processes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lit_imitation.rollout import Round
from lit_imitation.utils.distributed import all_reduce


class RoundTotals(NamedTuple):
    """Environment steps and episodes of a round, and sums of figures that must be finite."""

    env_steps: int
    """Transitions of the round."""
    episodes: dict[str, Tensor]
    """`return_mean` and `length_mean` of the episodes that ended; empty if none did."""
    watched: dict[str, float]
    """Sums over processes; a sum is NaN or infinite if the value of one process is."""

    @classmethod
    def gather(cls, batch: Round, metrics: Mapping[str, Tensor], watched: Sequence[str]) -> RoundTotals:
        """Sum over all processes.

        The host waits for the device only here in a round, so all totals travel in one message.

        Args:
            batch: The round.
            metrics: Figures of the round.
            watched: Names of the figures to watch; one that is missing counts as 0.
        """
        steps = batch.valid.sum()[None].float()
        returns = [episode.episode_return for episode in batch.episodes]
        lengths = [float(episode.length) for episode in batch.episodes]
        counts = torch.tensor([sum(returns), sum(lengths), len(returns)], dtype=torch.float32, device=steps.device)
        figures = [metrics.get(name, counts.new_zeros(())) for name in watched]
        sums = all_reduce(torch.cat([counts, steps, torch.stack(figures).detach().float()]))
        total_return, total_length, number, env_steps, *found = sums.tolist()
        episodes: dict[str, Tensor] = {}
        if number:
            episodes["return_mean"] = torch.tensor(total_return / number)
            episodes["length_mean"] = torch.tensor(total_length / number)
        return cls(int(env_steps), episodes, dict(zip(watched, found, strict=True)))

    def find_nonfinite(self) -> str | None:
        """Name and value of the first watched figure that is not finite; None if all are."""
        for name, value in self.watched.items():
            if not math.isfinite(value):
                return f"{name.replace('_', ' ')} is {value}"
        return None
