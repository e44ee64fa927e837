"""Statistics of evaluation episodes."""

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
    """Return, length, success and normalized score of evaluation episodes, over all processes.

    The state is the list of episodes. `compute` first gathers and sorts the episodes of all processes, and the
    bootstrap has a fixed seed, so the result does not depend on how evaluation was distributed.

    For returns R_1 … R_M, `compute` gives these scalars:

    - `return_mean`, `return_std` (of these episodes: divided by M), `return_iqm` (interquartile mean);
    - `return_ci95_low`, `return_ci95_high`: 95 % bootstrap interval of `return_iqm`;
    - `length_mean`, `episodes` (M);
    - `success_rate`: mean success over the episodes that reported one; missing if none did;
    - `normalized_score` = (`return_mean` − random) / (expert − random), with `normalized_score_ci95_low` and `_high`.
        This
      interval bootstraps the *mean* return and includes the standard errors of both reference returns. The three are
      missing unless the reference returns are known, finite and different.

    Attributes:
        expert_return: Mean return of the expert. Like the other attributes, it may be assigned until `compute`.
        random_return: Mean return of uniformly random actions.
        expert_return_error: Standard error of `expert_return`.
        random_return_error: Standard error of `random_return`.
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

    def set_references(self, expert: Reference | None, random: Reference) -> None:
        """Set the reference returns of the normalized score; without the expert's return there is no score."""
        self.expert_return = None if expert is None else expert.mean
        self.expert_return_error = 0.0 if expert is None else expert.error or 0.0
        self.random_return, self.random_return_error = random.mean, random.error or 0.0

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of all states: float64, which represents any length exactly, except on devices without float64.

        torchmetrics sends an empty tensor of this dtype for a process without episodes, so all states share it.
        """
        return torch.float32 if self.device.type == "mps" else torch.float64

    def update(self, returns: Tensor, lengths: Tensor, success: Tensor) -> None:
        """Add finished episodes.

        Args:
            returns: `[M]` undiscounted returns.
            lengths: `[M]` numbers of steps.
            success: `[M]` 1 for success, 0 for failure, NaN if the environment does not report it.

        Raises:
            ValueError: The arguments do not share one shape `[M]`.
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
        """Statistics over all episodes of all processes.

        Raises:
            ValueError: There are no episodes.
        """
        returns, lengths, success = (
            np.sort(dim_zero_cat(state).cpu().numpy().astype(np.float64))
            for state in (self.returns, self.lengths, self.success)
        )
        if returns.size == 0:
            raise ValueError("there are no evaluation episodes")
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
