"""Running means and variances, the same on all processes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_imitation.networks.encoders import Encoder
from lit_imitation.utils.distributed import all_reduce


class RunningMoments(nn.Module):
    """Mean and variance of all rows seen so far, each weighted, merged batch by batch (Chan et al. 1983).

    float64, so that 10⁹ rows lose nothing; the batches of several processes count as one.

    Args:
        size: of a row.
    """

    count: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("variance", torch.ones(size, dtype=torch.float64))

    @torch.no_grad()
    def update(self, x: Tensor, weight: Tensor) -> None:
        """Take in the rows `x: [N, size]`, each `weight: [N]` times.

        The squares are taken about the batch's own mean: about any other they would cancel where the mean is large.
        """
        x, weight = x.double(), weight.double()
        sums = all_reduce(torch.cat([weight.sum()[None], weight @ x]))
        count = sums[0]
        mean = sums[1:] / count
        squares = all_reduce(weight @ (x - mean).square())
        total = self.count + count
        shift = mean - self.mean
        between = shift.square() * (self.count * count / total)
        self.variance.copy_((self.variance * self.count + squares + between) / total)
        self.mean.add_(shift * (count / total))
        self.count.copy_(total)


def observe(moments: RunningMoments, observation: Tensor, valid: Tensor, *encoders: Encoder) -> None:
    """Take in the observations `[time, env, *obs]`, and standardize by all that were seen from now on."""
    moments.update(observation.flatten(0, 1).flatten(1).float(), valid.flatten())
    for encoder in encoders:
        assert encoder.standardize is not None
        encoder.standardize.set_statistics(moments.mean, moments.variance.sqrt())


class RewardScale(nn.Module):
    """Rewards over the running standard deviation of the discounted return, r_t / σ(G), G_t = γ G_{t−1} + r_t.

    The scale alone is changed: to take off a mean would pay or punish staying alive.

    Args:
        gamma: discount γ of G.
        limit: scaled rewards are clipped to ±`limit`.
    """

    def __init__(self, gamma: float, limit: float = 10.0) -> None:
        super().__init__()
        self.gamma, self.limit = gamma, limit
        self.moments = RunningMoments(1)
        self._discounted: Tensor | None = None

    def begin(self) -> None:
        """The environments were reset: nothing is carried over."""
        self._discounted = None

    @torch.no_grad()
    def forward(self, reward: Tensor, done: Tensor, valid: Tensor) -> Tensor:
        """`[time, env]` rewards to `[time, env]` scaled ones, after taking their discounted returns in."""
        paid, returns = reward * valid, []
        going_on = self.gamma * (~done).to(reward.dtype)
        carried = torch.zeros_like(reward[0]) if self._discounted is None else self._discounted
        for paid_t, going_on_t in zip(paid.unbind(), going_on.unbind(), strict=True):
            returns.append(paid_t + carried)  # `carried` is γ (1 − done_{t−1}) G_{t−1}
            carried = returns[-1] * going_on_t
        self._discounted = carried
        self.moments.update(torch.cat(returns)[:, None], valid.reshape(-1))
        scale = (self.moments.variance + 1e-8).rsqrt().to(reward.dtype)
        return (reward * scale).clamp(-self.limit, self.limit)
