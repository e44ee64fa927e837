"""EPIC distance between rewards (Gleave et al. 2021, arXiv:2006.13900)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from lit_imitation.transitions import Transitions


def pearson_distance(x: Tensor, y: Tensor) -> Tensor:
    """Pearson distance √((1 − ρ) / 2) `[]` of `x: [N]` and `y: [N]`, in [0, 1]; 0 for an increasing linear relation.

    If either is constant, ρ counts as 0.
    """
    x, y = (column.double() - column.double().mean() for column in (x, y))
    scale = x.norm() * y.norm()
    rho = torch.where(scale > 0, (x * y).sum() / scale.clamp(min=1e-300), torch.zeros_like(scale))
    return ((1.0 - rho.clamp(-1.0, 1.0)) / 2.0).sqrt()


class EPIC(Metric):
    """Equivalent-policy invariant comparison of two rewards (Gleave et al. 2021, section 4, arXiv:2006.13900).

    This is the Pearson distance between the canonically shaped rewards

        C(R)(s, a, s′) = R(s, a, s′) + E[γ R(s′, A, S′) − R(s, A, S′) − γ R(S, A, S′)]

    over the transitions given to `update`. Adding a potential γΦ(s′) − Φ(s) to R does not change C(R), and adding a
    constant or multiplying by a positive factor does not change the distance. S, A and S′ are sampled independently
    from the states, actions and successors of the transitions. All expectations use the same `samples`, so terms that
    cancel in expectation also cancel in the estimate.

    `compute` returns the distance, `[]` in [0, 1].

    Args:
        one: Function from `Transitions` `[N]` to rewards `[N]`, such as `load_reward(DIR).reward`.
        other: Second reward function. `lambda transitions: transitions.reward` gives an environment's reward only on
            its own transitions, so here the true reward has to be a function of state, action and successor.
        gamma: Discount factor γ.
        samples: Number of samples (S, A, S′), each paired with every transition.
        seed: Seed of the samples.
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
        """Add transitions `[N]`.

        Raises:
            ValueError: The transitions have no `next_observation`.
        """
        if transitions.next_observation is None:
            raise ValueError("EPIC compares rewards of (s, a, s′); these transitions have no next_observation")
        self.observation.append(transitions.observation)
        self.action.append(transitions.action)
        self.next_observation.append(transitions.next_observation)

    def compute(self) -> Tensor:
        """Distance `[]` between the two rewards.

        Raises:
            ValueError: There are fewer than 2 transitions.
        """
        s, a, following = (dim_zero_cat(x) for x in (self.observation, self.action, self.next_observation))
        if len(s) < 2:
            raise ValueError(f"{len(s)} transitions are too few to compare two rewards; at least 2 are needed")
        generator = torch.Generator().manual_seed(self.seed)
        indices = [torch.randint(len(s), (self.samples,), generator=generator).to(s.device) for _ in range(3)]
        sample = (s[indices[0]], a[indices[1]], following[indices[2]])
        left = [self._canonical(reward, (s, a, following), sample) for reward in self.rewards]
        return pearson_distance(*left)

    @torch.no_grad()
    def _canonical(
        self,
        reward: Callable[[Transitions], Tensor],
        coverage: tuple[Tensor, Tensor, Tensor],
        sample: tuple[Tensor, Tensor, Tensor],
    ) -> Tensor:
        """Canonically shaped reward C(R) `[N]`."""
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
