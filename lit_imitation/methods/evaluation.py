"""`Evaluation`: loss and error on held-out demonstrations, and statistics of episodes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from lit_imitation.metrics.episodes import EpisodeStatistics
from lit_imitation.policies import Policy
from lit_imitation.rollout import Episode
from lit_imitation.transitions import Transitions


class Evaluation(nn.Module):
    """Metrics of one validation or test, summed over its batches and processes."""

    def __init__(self) -> None:
        super().__init__()
        self.episodes, self.loss, self.error = EpisodeStatistics(), MeanMetric(), MeanMetric()

    def reset(self) -> None:
        """Forget the last evaluation."""
        for metric in (self.episodes, self.loss, self.error):
            metric.reset()

    def add_episode(self, episode: Episode) -> None:
        """Count a finished episode of the policy."""
        values = (episode.episode_return, float(episode.length), episode.success)
        self.episodes.update(*(torch.tensor([value], dtype=torch.float64) for value in values))

    def add_held_out(self, policy: Policy, batch: Transitions) -> None:
        """Measure the policy's loss and error on held-out transitions `[B]`."""
        loss = policy.loss(batch.observation, batch.action)
        self.loss.update(loss, batch.weight if batch.weight is not None else 1.0)
        self.error.update(action_error(policy, batch))

    def held_out_figures(self, policy: Policy) -> dict[str, Tensor]:
        """`loss`, and `accuracy` of discrete or `action_error` of continuous actions; empty without held-out data."""
        if not self.loss.update_called:
            return {}
        kind = policy.action_space.dtype.kind if policy.action_space.dtype is not None else "f"
        return {"loss": self.loss.compute(), "accuracy" if kind in "iu" else "action_error": self.error.compute()}


def action_error(policy: Policy, batch: Transitions) -> Tensor:
    """`[B]`: 1 for a right discrete action and 0 for a wrong one; mean absolute error of a continuous action."""
    action = policy.act(batch.observation)
    if action.dtype == torch.int64:
        return (action == batch.action).reshape(len(action), -1).all(1).float()
    return (action - batch.action).abs().flatten(1).mean(1)


def describe_columns(columns: Mapping[str, Tensor]) -> str:
    """Shape, range and count of values that are not finite of each column, a line each."""
    lines = []
    for name, values in columns.items():
        x = values.double()
        bad = int((~x.isfinite()).sum())
        lines.append(
            f"  {name} {list(values.shape)}: min {x.min():.4g}, mean {x.mean():.4g}, max {x.max():.4g}, {bad} "
            "not finite"
        )
    return "\n".join(lines)
