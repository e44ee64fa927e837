"""What methods require of their DataModule and its demonstrations, checked before training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gymnasium import Space
from lightning import Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lit_imitation.data.demonstration_module import DemonstrationDataModule
from lit_imitation.data.imitation_module import ImitationDataModule
from lit_imitation.data.module import EnvironmentDataModule
from lit_imitation.data.rollout_module import RolloutDataModule
from lit_imitation.errors import ConfigError
from lit_imitation.experts.base import space_mismatch
from lit_imitation.policies import Policy
from lit_imitation.rewards.features import Samples
from lit_imitation.utils.cache import print_once

EPISODE_FIGURES = ("val/return_mean", "val/return_iqm", "val/normalized_score", "val/success_rate", "val/length_mean")
"""Figures of episodes that a callback may monitor."""


def check_round_data(data: EnvironmentDataModule, name: str, needs_demonstrations: bool) -> None:
    """Check that the DataModule plays rounds, and has demonstrations if the method needs them.

    Args:
        data: DataModule of the run.
        name: Name of the method's class.
        needs_demonstrations: Whether the method trains on demonstrations.
    """
    if needs_demonstrations and not isinstance(data, ImitationDataModule):
        raise ConfigError(
            f"{name} learns from demonstrations and rollouts; {type(data).__name__} has not both: use "
            "lit_imitation.ImitationDataModule"
        )
    if not isinstance(data, RolloutDataModule):
        raise ConfigError(f"{name} learns from rollouts; {type(data).__name__} gives none")


def check_made_for(what: str, made_for: tuple[Space[Any], Space[Any]], data: EnvironmentDataModule) -> None:
    """Check that a policy or reward of another run was made for the spaces of this environment."""
    for one, given, bounds in zip(made_for, data.spaces, (False, True), strict=True):
        if space_mismatch(one, given, bounds=bounds):
            raise ConfigError(f"{what} was made for {one}; {data.env_id} has {given}")


def check_demonstration_data(data: EnvironmentDataModule, name: str) -> DemonstrationDataModule:
    """Return the DataModule if it holds demonstrations to train on in minibatches."""
    if not isinstance(data, DemonstrationDataModule):
        raise ConfigError(f"{name} learns from demonstrations; {type(data).__name__} holds none")
    return data


def check_held_out(trainer: Trainer, data: DemonstrationDataModule) -> None:
    """Check that the loss or return that a callback monitors is measured.

    Raises:
        ConfigError: A callback monitors the loss on held-out trajectories and there are none, or the return of episodes
            and there is no environment.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        monitor, name = str(getattr(callback, "monitor", None)), type(callback).__name__
        if monitor == "val/loss" and not len(data.held_out):
            other = "let it watch val/return_mean (mode max), " if data.env_id else ""
            raise ConfigError(
                f"{name} watches val/loss, but no trajectory is held out of {data.chosen} (data.val_fraction "
                f"{data.val_fraction}): {'hold out some' if data.chosen > 1 else 'record more'}, {other}or leave it "
                "out with --trainer.callbacks null"
            )
        if not data.env_id and monitor in EPISODE_FIGURES:
            raise ConfigError(
                f"{name} watches {monitor}, but without data.env_id no episodes are played: let it watch val/loss "
                "(mode min)"
            )
    if not data.env_id and not len(data.held_out):
        print_once(
            f"no trajectory is held out of {data.chosen} (data.val_fraction {data.val_fraction}), so nothing is "
            "measured after an epoch"
        )


def check_entropy(policy: Policy, observations: Iterable[Tensor], coefficient: float) -> None:
    """Check that the policy has an entropy in the first of some observations if that has a coefficient."""
    if not coefficient:
        return
    try:
        policy.entropy(next(iter(observations)).reshape(1, *(policy.observation_space.shape or ())).to(policy.device))
    except TypeError as error:
        raise ConfigError(
            f"model.entropy_coefficient is {coefficient}, but {error}: set it to 0, or choose a "
            "policy with a distribution"
        ) from error


def check_terminal_rows(expert: Samples, data: ImitationDataModule) -> None:
    """Check that a discriminator of the absorbing state sees the expert in it if demonstrations terminated."""
    if data.terminated and not expert.absorbing.any():
        raise ConfigError(
            f"discriminator.absorbing: {data.terminated} of the demonstrated trajectories terminated, but "
            "the end of none is among the transitions kept, and to end would count as what the expert never does: "
            f"lower data.subsample ({data.subsample}), hold out fewer (data.val_fraction), or record "
            "next_observations, without which last rows are left out"
        )


def check_whole_trajectories(data: ImitationDataModule) -> None:
    """Check that demonstrations are whole trajectories that fit into rounds, as `GCL` needs them."""
    if data.subsample > 1:
        raise ConfigError(
            f"GCL weighs whole trajectories; data.subsample {data.subsample} leaves holes in them: set it to 1"
        )
    lengths = data.train.episode_lengths()
    shortest, longest = int(lengths.min()), int(lengths.max())
    if shortest > data.steps_per_round:
        raise ConfigError(
            f"GCL learns from episodes that begin and end in a round; data.steps_per_round is "
            f"{data.steps_per_round}, but the shortest demonstration takes {shortest} steps: set it to a multiple "
            "of that"
        )
    if longest > data.steps_per_round:
        rank_zero_warn(
            f"GCL learns from episodes that begin and end in a round; data.steps_per_round is "
            f"{data.steps_per_round}, and the longest demonstration takes {longest} steps: episodes of that length "
            f"are never among the samples. Set it to a multiple of {longest}"
        )
