"""Density of the demonstrations, estimated by a clone."""

from __future__ import annotations

import math

import torch

from lit_imitation.policies import GaussianPolicy, Policy
from lit_imitation.policies.checkpoints import default_policy_class
from lit_imitation.transitions import Transitions
from lit_imitation.utils.sampling import sample_rows
from lit_imitation.utils.seeding import RandomStream, derive_seed

STEPS, BATCH_SIZE, LEARNING_RATE = 1000, 256, 1e-3
"""Gradient steps, batch size and learning rate of the fit."""
MIN_STD = 0.2
"""Smallest σ, in units of half the action range. A deterministic expert has no density; if its estimate were too high,
the demonstrations would have no weight."""


def fit_density(demonstrations: Transitions, policy: Policy, seed: int) -> Policy:
    """Fit a Gaussian or categorical policy to demonstrations by maximum likelihood; the same on every process.

    Args:
        demonstrations: Demonstrated transitions `[N]`.
        policy: Policy whose spaces, encoder and device the result has.
        seed: Seed of the run.
    """
    with RandomStream(derive_seed(seed, "density of the demonstrations")), torch.enable_grad():
        cls = default_policy_class(policy.action_space)
        clone = cls(
            policy.observation_space, policy.action_space, hidden_sizes=[64, 64], encoder=policy.encoder.kind
        ).to(policy.device)
        clone.fit_normalizer(demonstrations.observation, demonstrations.action)
        optimizer = torch.optim.Adam(clone.parameters(), LEARNING_RATE, fused=True)
        count, device = len(demonstrations), demonstrations.observation.device
        for _ in range(STEPS):
            batch = demonstrations[sample_rows(count, BATCH_SIZE, device, demonstrations.weight)]
            optimizer.zero_grad()
            clone.mean_loss(batch.observation, batch.action).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    if isinstance(clone, GaussianPolicy) and clone.log_std is not None:
        clone.log_std.data.clamp_(min=math.log(MIN_STD))
    return clone.requires_grad_(False).eval()
