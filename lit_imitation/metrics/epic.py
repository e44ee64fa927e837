"""How far two rewards are apart, by what they mean and not by how they are written down (Gleave et al. 2021, EPIC)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from lit_imitation.transitions import Transitions


def pearson_distance(x: Tensor, y: Tensor) -> Tensor:
    """√((1 − ρ) / 2) of `x: [N]` and `y: [N]`, `[]` in [0, 1]: 0 where one is a growing linear function of the other.

    Where one of them does not vary, ρ counts as 0.
    """
    x, y = (column.double() - column.double().mean() for column in (x, y))
    scale = x.norm() * y.norm()
    rho = torch.where(scale > 0, (x * y).sum() / scale.clamp(min=1e-300), torch.zeros_like(scale))
    return ((1.0 - rho.clamp(-1.0, 1.0)) / 2.0).sqrt()


class EPIC(Metric):
    """The equivalent-policy invariant comparison of two rewards: the Pearson distance of what is left of

        C(R)(s, a, s′) = R(s, a, s′) + E[γ R(s′, A, S′) − R(s, A, S′) − γ R(S, A, S′)]

    over the transitions given to `update`. No potential γΦ(s′) − Φ(s) that is added to R changes C(R), and no constant
    or positive factor the distance. S, A and S′ are drawn independently of each other, from the states, actions and
    successors of the same transitions; the same few `samples` stand for the expectation in every place, so that what
    cancels in the mean cancels in its estimate too.

    `compute` gives the distance, `[]` in [0, 1].

    Args:
        one: `[N]` rewards of `Transitions` `[N]`, such as `load_reward(DIR).reward`.
        other: likewise; the true reward of an environment is `lambda transitions: transitions.reward` only on its own
            transitions, so that here it has to be written as a function of state, action and successor.
        gamma: γ.
        samples: draws of (S, A, S′), of which every transition is paired with each.
        seed: of the draws.
    """

    full_state_update = False
    observation: list[Tensor]
    action: list[Tensor]
    next_observation: list[Tensor]

    def __init__(
        self,
        one: Callable[[Transitions], Tensor],
        other: Callable[[Transitions], Tensor],
        gamma: float = 0.99,
        samples: int = 256,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.rewards, self.gamma, self.samples, self.seed = (one, other), gamma, samples, seed
        for name in ("observation", "action", "next_observation"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, transitions: Transitions) -> None:
        """Take in transitions `[N]`."""
        if transitions.next_observation is None:
            raise ValueError("EPIC compares rewards of (s, a, s′); these transitions have no next_observation")
        self.observation.append(transitions.observation)
        self.action.append(transitions.action)
        self.next_observation.append(transitions.next_observation)

    def compute(self) -> Tensor:
        """The distance, `[]`."""
        s, a, following = (dim_zero_cat(x) for x in (self.observation, self.action, self.next_observation))
        if len(s) < 2:
            raise ValueError(f"{len(s)} transitions are too few to compare two rewards on; 2 are the least")
        generator = torch.Generator().manual_seed(self.seed)
        drawn = [torch.randint(len(s), (self.samples,), generator=generator).to(s.device) for _ in range(3)]
        sample = (s[drawn[0]], a[drawn[1]], following[drawn[2]])
        left = [self._canonical(reward, (s, a, following), sample) for reward in self.rewards]
        return pearson_distance(*left)

    @torch.no_grad()
    def _canonical(
        self,
        reward: Callable[[Transitions], Tensor],
        coverage: tuple[Tensor, Tensor, Tensor],
        sample: tuple[Tensor, Tensor, Tensor],
    ) -> Tensor:
        """C(R) `[N]`."""
        s, a, following = coverage
        _, actions, successors = sample

        def of(observation: Tensor, action: Tensor, next_observation: Tensor) -> Tensor:
            no = torch.zeros(len(observation), dtype=torch.bool, device=observation.device)
            record = Transitions(
                observation=observation,
                action=action,
                reward=no.float(),
                terminated=no,
                truncated=no,
                next_observation=next_observation,
                batch_size=no.shape,
            )
            return reward(record).double()

        def mean_from(states: Tensor) -> Tensor:
            """E[R(s, A, S′)] at each of `states: [K, *obs]`, `[K]`."""
            return torch.stack([of(state.expand_as(successors), actions, successors).mean() for state in states])

        shaped = of(s, a, following) + self.gamma * mean_from(following) - mean_from(s)
        return shaped - self.gamma * mean_from(sample[0]).mean()
