"""Running means and variances, equal on all processes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_imitation.networks.encoders import Encoder
from lit_imitation.utils.distributed import all_reduce


class RunningMoments(nn.Module):
    """Weighted mean and variance of all rows seen so far, merged batch by batch (Chan et al. 1983).

    Sums are float64, so that 10⁹ rows lose no precision. The batches of all processes count as one batch.

    Args:
        size: Length of a row.
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
        """Merge the rows `x: [N, size]`, each counted `weight: [N]` times.

        Squares are taken around the batch's own mean, which avoids cancellation where the mean is large.
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


def update_statistics(moments: RunningMoments, observation: Tensor, valid: Tensor, *encoders: Encoder) -> None:
    """Merge a round's observations into `moments`, and let the encoders standardize by the result.

    Args:
        moments: Running mean and variance of all observations.
        observation: Observations of the round, `[time, env, *obs]`.
        valid: Rows that are transitions, `[time, env]` bool.
        encoders: Encoders of these observations to update.
    """
    moments.update(encoders[0].vectors(observation.flatten(0, 1)), valid.flatten())
    for encoder in encoders:
        encoder.set_statistics(moments.mean, moments.variance.sqrt())


class RewardScale(nn.Module):
    """Divides rewards by the running standard deviation of the discounted return: r_t / σ(G), G_t = γ G_{t−1} + r_t.

    The mean is not subtracted: that would reward or punish survival.

    Args:
        gamma: Discount γ of the return G.
        limit: Bound on scaled rewards, which are clipped to ±`limit`.
    """

    def __init__(self, gamma: float, limit: float = 10.0) -> None:
        super().__init__()
        self.gamma, self.limit = gamma, limit
        self.moments = RunningMoments(1)
        self._carry: Tensor | None = None

    def begin(self) -> None:
        """Drop the discounted returns carried over, because the environments were reset."""
        self._carry = None

    @torch.no_grad()
    def forward(self, reward: Tensor, done: Tensor, valid: Tensor) -> Tensor:
        """Scale the rewards `[time, env]` of a round, after merging their discounted returns."""
        valid_reward, returns = reward * valid, []
        discount = self.gamma * (~done).to(reward.dtype)
        carry = torch.zeros_like(reward[0]) if self._carry is None else self._carry
        for reward_t, discount_t in zip(valid_reward.unbind(), discount.unbind(), strict=True):
            returns.append(reward_t + carry)  # `carry` is γ (1 − done_{t−1}) G_{t−1}
            carry = returns[-1] * discount_t
        self._carry = carry
        self.moments.update(torch.cat(returns)[:, None], valid.reshape(-1))
        scale = (self.moments.variance + 1e-8).rsqrt().to(reward.dtype)
        return (reward * scale).clamp(-self.limit, self.limit)
