"""Diagnostics of adversarial training: figures of a round, warnings, and the distance between occupancies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lit_imitation.methods.pairs import LogProb, Pairs
from lit_imitation.metrics.occupancy import maximum_mean_discrepancy, sliced_wasserstein
from lit_imitation.rewards import AdversarialReward
from lit_imitation.rewards.features import ActionFeatures, Samples
from lit_imitation.rewards.losses import CLASSIFIER_STATISTICS, STATISTICS
from lit_imitation.rl import Learner
from lit_imitation.rollout import Round

SATURATED, FLAT, PATIENCE, OCCUPANCY = 0.995, 1e-3, 10, 512
"""Accuracy on expert and learner above which a discriminator counts as saturated; standard deviation of the rewards, in
nats, below which they count as flat; rounds in a row before a warning; most pairs on each side of a distance."""
WARNINGS = {
    "saturated": "the discriminator has told expert and learner apart without fail for {rounds} rounds, so its reward "
    "says little about which way to go; fewer model.discriminator_steps, a lower model.discriminator_learning_rate, a "
    "gradient_penalty or max_logit of the discriminator (GAIL's: spectral_norm), or a model.start from a clone help",
    "flat": "the rewards have been all the same for {rounds} rounds, so there is nothing to learn from them; see "
    "whether the discriminator learns (discriminator_loss); PPO goes on learning from small differences unless its "
    "normalize_rewards is off",
}


class Alarms:
    """Warns when there has been nothing more to learn from the rewards for `PATIENCE` rounds in a row."""

    def __init__(self) -> None:
        self.rounds = {"saturated": 0, "flat": 0}
        """Rounds in a row with cause for each warning."""

    def watch(self, metrics: dict[str, Tensor], classifies: bool) -> None:
        """Count this round.

        Args:
            metrics: Figures of the round.
            classifies: Whether the discriminator has an accuracy.
        """
        found = {"flat": metrics["reward_std"] < FLAT}
        if classifies:
            accuracy = metrics.get("discriminator_accuracy_held_out", metrics["discriminator_accuracy_expert"])
            found["saturated"] = torch.minimum(accuracy, metrics["discriminator_accuracy_learner"]) > SATURATED
        for name, raised in zip(found, torch.stack(list(found.values())).tolist(), strict=True):
            self.rounds[name] = self.rounds[name] + 1 if raised else 0
            if self.rounds[name] == PATIENCE:
                rank_zero_warn(WARNINGS[name].format(rounds=PATIENCE))


def name_statistics(means: Tensor, is_classifier: bool) -> dict[str, Tensor]:
    """Figures of the discriminator's steps in a round by name.

    Args:
        means: Means `[1 + K + 1]` over the steps, as `Descent.step` returns them.
        is_classifier: Whether the discriminator has an accuracy.
    """
    metrics = dict(zip(("discriminator_loss", *STATISTICS, "discriminator_grad_norm"), means, strict=True))
    undefined = () if is_classifier else CLASSIFIER_STATISTICS
    return {name: value for name, value in metrics.items() if name not in undefined}


@torch.no_grad()
def diagnose_round(
    batch: Round,
    discriminator: AdversarialReward,
    pairs: Pairs,
    log_prob: LogProb,
    learner: Learner[Any],
    action_features: ActionFeatures | None,
) -> dict[str, Tensor]:
    """Figures of a round that say whether the discriminator still teaches the learner something.

    Args:
        batch: The round.
        discriminator: The reward.
        pairs: Pairs of expert and learner.
        log_prob: Log π(a | s) under the current policy.
        learner: The learner; unless it replays, the rewards of the round are the discriminator's.
        action_features: Encoder of actions, to measure the distance of the occupancies as well.
    """
    reward = discriminator.reward(batch.rollout) if learner.replays else batch.rollout.reward
    reward = reward[batch.valid]
    metrics = {"reward_mean": reward.mean(), "reward_std": reward.std()}
    if pairs.held_out is not None and discriminator.is_classifier:
        logit = discriminator.logit(pairs.held_out, log_prob(pairs.held_out.observation, pairs.held_out.action))
        right = (logit > 0).float()
        counts = torch.ones_like(right) if pairs.held_out_weight is None else pairs.held_out_weight
        metrics["discriminator_accuracy_held_out"] = (right * counts).sum() / counts.sum()
    if action_features is not None:
        played = Samples.from_transitions(batch.rollout[batch.valid])
        encode = discriminator.features.encoder, action_features
        metrics |= occupancy_distances(pairs.expert, pairs.expert_weight, played, *encode)
    return metrics


def occupancy_distances(
    expert: Samples,
    weight: Tensor | None,
    learner: Samples,
    encode_observation: Callable[[Tensor], Tensor],
    encode_action: Callable[[Tensor], Tensor],
) -> dict[str, Tensor]:
    """Distances between expert and learner pairs: `sliced_wasserstein`, and `mmd` where there are two pairs or more.

    Args:
        expert: Demonstrated pairs; absorbing ones are left out.
        weight: Weights of the expert pairs `[N]`; None where all count the same.
        learner: Pairs of the current round.
        encode_observation: Observations to features `[N, n]`.
        encode_action: Actions to features `[N, m]`.
    """

    def features(samples: Samples, weight: Tensor | None) -> Tensor:
        return occupancy(samples, weight, encode_observation, encode_action)

    real = (~expert.absorbing).nonzero().squeeze(-1)
    mine = features(expert.rows(real), None if weight is None else weight[real])
    theirs = features(learner, None)
    found = {"sliced_wasserstein": sliced_wasserstein(mine, theirs)}
    if min(len(mine), len(theirs)) > 1:  # a single pair has no distance to another of its kind
        found = {"mmd": maximum_mean_discrepancy(mine, theirs)} | found
    return found


def occupancy(
    samples: Samples,
    weight: Tensor | None,
    encode_observation: Callable[[Tensor], Tensor],
    encode_action: Callable[[Tensor], Tensor],
) -> Tensor:
    """`[≤ OCCUPANCY, n + m]`: features of rows spaced evenly by weight, as if each row were there that often."""
    total = len(samples.absorbing)
    count, device = min(total, OCCUPANCY), samples.absorbing.device
    place = (torch.arange(count, device=device) + 0.5) / count
    cumulative = (torch.ones(total, device=device) if weight is None else weight).double().cumsum(0)
    rows = samples.rows(torch.searchsorted(cumulative, place * cumulative[-1], right=True))
    return torch.cat([encode_observation(rows.observation), encode_action(rows.action)], -1)
