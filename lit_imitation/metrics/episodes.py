"""What a policy's evaluation episodes amount to."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from lit_imitation.rollout.reference import Reference
from lit_imitation.utils.statistics import Scale, bootstrap_interval, interquartile_mean, stratified_score_interval


class EpisodeStatistics(Metric):
    """Return, length, success and normalized score over evaluation episodes, wherever they were played.

    The episodes themselves are the state. Before computing, the processes' episodes are put together and sorted, and
    the bootstrap has a fixed seed: the figures do not depend on how evaluation was split.

    With returns R_1 … R_M, `compute` gives scalars under these names:

    - `return_mean`, `return_std` (over these episodes: divided by M), `return_iqm` (interquartile mean);
    - `return_ci95_low`, `return_ci95_high`: 95 % bootstrap interval of `return_iqm`;
    - `length_mean`, `episodes` (M);
    - `success_rate`: the mean success over the episodes that reported one; absent where none did;
    - `normalized_score` = (`return_mean` − random) / (expert − random), with `normalized_score_ci95_low` and `_high`
      from the 95 % bootstrap interval of the *mean* return, whose scale it is, and from the uncertainty of both
      reference returns; absent unless they are known, finite and different.

    Attributes:
        expert_return: mean return of the expert; may be assigned until `compute`, like the rest.
        random_return: mean return of uniformly random actions.
        expert_return_error: standard error of the expert's.
        random_return_error: standard error of the random one.
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False

    returns: list[Tensor]
    lengths: list[Tensor]
    success: list[Tensor]

    def __init__(self, expert_return: float | None = None, random_return: float | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.expert_return = expert_return
        self.random_return = random_return
        self.expert_return_error = self.random_return_error = 0.0
        for name in ("returns", "lengths", "success"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def measure_by(self, expert: Reference | None, random: Reference) -> None:
        """Score between these two returns; not at all where the expert's is unknown."""
        self.expert_return = None if expert is None else expert.mean
        self.expert_return_error = 0.0 if expert is None else expert.error or 0.0
        self.random_return, self.random_return_error = random.mean, random.error or 0.0

    @property
    def dtype(self) -> torch.dtype:
        """The type of every state: float64, which holds any length exactly, save on devices that have none.

        torchmetrics sends an empty tensor of this type for a process that played no episode, so all states share it.
        """
        return torch.float32 if self.device.type == "mps" else torch.float64

    def update(self, returns: Tensor, lengths: Tensor, success: Tensor) -> None:
        """Add finished episodes.

        Args:
            returns: `[M]`: undiscounted sums of rewards.
            lengths: `[M]`: numbers of steps.
            success: `[M]`: 1 for success, 0 for failure, NaN where the environment reports neither.

        Raises:
            ValueError: the three are not of one shape `[M]`.
        """
        if not (returns.ndim == 1 and returns.shape == lengths.shape == success.shape):
            raise ValueError(
                "returns, lengths and success must share one shape [M], not "
                f"{tuple(returns.shape)}, {tuple(lengths.shape)} and {tuple(success.shape)}"
            )
        self.returns.append(returns.detach().to(self.device, self.dtype))
        self.lengths.append(lengths.detach().to(self.device, self.dtype))
        self.success.append(success.detach().to(self.device, self.dtype))

    def compute(self) -> dict[str, Tensor]:
        """The figures over all episodes of all processes.

        Raises:
            ValueError: there was no episode.
        """
        returns, lengths, success = (
            np.sort(dim_zero_cat(state).cpu().numpy().astype(np.float64))
            for state in (self.returns, self.lengths, self.success)
        )
        if returns.size == 0:
            raise ValueError("no episode was evaluated")
        mean = returns.mean()
        low, high = bootstrap_interval(returns, interquartile_mean)
        figures = {
            "return_mean": mean,
            "return_std": returns.std(),
            "return_iqm": interquartile_mean(returns),
            "return_ci95_low": low,
            "return_ci95_high": high,
            "length_mean": lengths.mean(),
            "episodes": returns.size,
        }
        reported = success[~np.isnan(success)]
        if reported.size:
            figures["success_rate"] = reported.mean()
        expert, random = self.expert_return, self.random_return
        if (
            expert is not None
            and random is not None
            and math.isfinite(expert)
            and math.isfinite(random)
            and expert != random
        ):
            scale = Scale(expert, random, self.expert_return_error, self.random_return_error)
            figures["normalized_score"] = (mean - random) / (expert - random)
            interval = stratified_score_interval([returns], [scale], np.mean)
            figures["normalized_score_ci95_low"], figures["normalized_score_ci95_high"] = interval
        return {name: torch.tensor(value, dtype=self.dtype, device=self.device) for name, value in figures.items()}
