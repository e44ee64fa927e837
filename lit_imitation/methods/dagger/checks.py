"""Checks of a DAgger run before its first step: arguments, recipe, and an expert that can be queried."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping

from lit_imitation.data.demonstration_module import DemonstrationDataModule
from lit_imitation.errors import ConfigError
from lit_imitation.experts import Expert, ExpertClass, checked, expert_name, load_expert
from lit_imitation.methods.bc import BC
from lit_imitation.methods.dagger.human_labels import HumanLabels
from lit_imitation.methods.dagger.schedules import BetaSchedule
from lit_imitation.policies import EnsemblePolicy
from lit_imitation.rollout import Actor
from lit_imitation.utils.memory import available_memory, gigabytes

MAX_ROUNDS = 100_000
"""Largest number of rounds; β is computed for all of them at the start."""


def check_counts(**counts: int | None) -> None:
    """Check that these arguments are at least 1, where they are set."""
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ConfigError(f"DAggerCallback: {name} is {value}; it must be at least 1")
    if counts.get("episodes_per_round") is not None and counts.get("steps_per_round") is not None:
        raise ConfigError("DAggerCallback: set episodes_per_round or steps_per_round, not both")


def check_threshold(threshold: float | None) -> None:
    """Check `uncertainty_threshold`."""
    if threshold is not None and not threshold >= 0.0:
        raise ConfigError(f"DAggerCallback: uncertainty_threshold is {threshold}; it must be 0 or more")


def evaluate_schedule(beta: float | BetaSchedule, rounds: int) -> list[float]:
    """Compute and check β_0 … β_N, where β_0 = 1: the demonstrations are the expert's."""
    if rounds > MAX_ROUNDS:
        raise ConfigError(f"DAggerCallback: rounds is {rounds}; it must be at most {MAX_ROUNDS}")
    betas = [1.0]
    for i in range(1, rounds + 1):
        betas.append(float(beta(i) if callable(beta) else beta))
        if not 0.0 <= betas[i] <= 1.0:
            raise ConfigError(f"DAggerCallback: beta is {betas[i]} in round {i}; it must lie in [0, 1]")
    return betas


def check_components(module: LightningModule, data: object) -> tuple[BC, DemonstrationDataModule]:
    """Check the types of method and DataModule."""
    if not isinstance(module, BC) or not isinstance(data, DemonstrationDataModule):
        raise ConfigError(
            "DAggerCallback works with BC and a DemonstrationDataModule; this run has "
            f"{type(module).__name__} and {type(data).__name__}"
        )
    if not data.env_id:
        raise ConfigError(
            "DAggerCallback lets the learner act and asks the expert there, but there is no environment: set "
            "data.env_id, or leave out the callback to clone the demonstrations"
        )
    if data.stored is not None:
        raise ConfigError(
            f"DAggerCallback adds to demonstrations in memory, but {gigabytes(data.stored.nbytes)} of observations are "
            f"read from disk, and {gigabytes(available_memory())} of memory are available: write a file of fewer "
            "trajectories, or set data.memory to resident"
        )
    return module, data


def find_epoch_limit(trainer: Trainer, epochs_per_round: int | None) -> int:
    """Maximum number of epochs in each round; checks that a round ends with a validation."""
    limit = epochs_per_round or trainer.max_epochs or -1
    if limit < 1:
        raise ConfigError(
            "DAggerCallback: nothing ends a round; set epochs_per_round, or set trainer.max_epochs to the most epochs "
            "that a round may take before EarlyStopping ends it"
        )
    every = trainer.check_val_every_n_epoch or 1
    early = any(isinstance(one, EarlyStopping) for one in trainer.callbacks)  # type: ignore[attr-defined]
    if limit % every or (early and every > 1):
        raise ConfigError(
            f"DAggerCallback: each round ends with a validation, but trainer.check_val_every_n_epoch is {every} and a "
            f"round takes {'up to ' if early else ''}{limit} epochs; set it to "
            + ("1, because EarlyStopping can end a round at any epoch" if early else f"a divisor of {limit}")
        )
    return limit


def check_recipe(module: BC, data: DemonstrationDataModule, reinitialize: bool) -> None:
    """Check that rounds can be compared, and that weights can be averaged over them."""
    if not data.eval_episodes:
        raise ConfigError(
            "DAggerCallback keeps the policy of the round with the best evaluation return, but data.eval_episodes is "
            "0; set it to 1 or more"
        )
    if reinitialize and module.optimization.ema_decay is not None:
        raise ConfigError(
            "DAggerCallback: with reinitialize each round starts from new weights, so a moving average over rounds is "
            "meaningless; leave out model.optimization.ema_decay or reinitialize"
        )


def check_human(trainer: Trainer, betas: Sequence[float], threshold: float | None) -> None:
    """Check that a person can be the expert of this run."""
    if trainer.world_size > 1:
        raise ConfigError("DAggerCallback: HumanLabels needs a single process; set trainer.devices to 1")
    if any(betas[1:]):
        raise ConfigError(
            f"DAggerCallback: a person labels after a round and cannot act in it, but beta is {betas[1:]}; set it to 0"
        )
    if threshold is not None:
        raise ConfigError("DAggerCallback: with HumanLabels, limit the queries by query_budget")


def check_ensemble(module: BC) -> None:
    """Check that the policy can tell how uncertain it is."""
    module.configure_model()
    if not isinstance(module.policy, EnsemblePolicy):
        raise ConfigError(
            "DAggerCallback: query_budget and uncertainty_threshold need an ensemble; set model.policy to "
            f"lit_imitation.EnsemblePolicy, which is {type(module.policy).__name__}"
        )


def find_expert(
    expert: HumanLabels | ExpertClass | str | Expert | None, data: DemonstrationDataModule, measure: bool
) -> Actor | HumanLabels:
    """The expert that answers queries, its answers checked against the action space.

    Args:
        expert: Argument of the callback; None for the DataModule's expert.
        data: DataModule of the run.
        measure: Let the expert's return score 1.0. This queries the expert for whole episodes.
    """
    expert = data.expert if expert is None else expert
    if isinstance(expert, HumanLabels):
        return expert
    if isinstance(expert, str | dict):
        if not expert or (isinstance(expert, str) and _is_log(expert)):
            what = f"{expert} is a file of demonstrations" if expert else "neither expert nor data.expert names one"
            raise ConfigError(
                f"DAgger needs an expert that can be asked, at the states that the learner visits; {what}. Set the "
                "callback's expert to one that answers (scripted, shipped, npz:PATH of a policy, checkpoint:PATH, "
                "sb3:PATH.zip, package.module:function) or to a person (lit_imitation.HumanLabels). With "
                "demonstrations alone, clone it: leave out the callback"
            )
        loaded = load_expert(
            expert, data.env_id, *data.spaces, deterministic=data.expert_deterministic, trust=data.trust
        )
        # The expert that labels is the one that is imitated.
        if (expert != data.expert or not data.rolls_out) and measure:
            data.refer_to(expert)
        return checked(loaded, *data.spaces, expert_name(expert))
    if not callable(getattr(expert, "act", expert)):
        raise ConfigError(
            f"DAgger needs an expert that can be asked; a {type(expert).__name__} cannot. Give a function or an object "
            "with a method `act`, from observations [B, *obs] to actions [B, *act], the name of an expert, or "
            "HumanLabels"
        )
    answers = checked(expert, *data.spaces, expert_name(expert))
    if data.expert_reference is None and measure:
        data.refer_to(expert, answers)
    return answers


def _is_log(expert: str) -> bool:
    """Whether the name is that of demonstrations, which cannot answer queries."""
    form, _, path = expert.partition(":")
    if form in ("minari", "hf") or (Path(expert).suffix in (".npz", ".hdf5", ".h5") and form != "npz"):
        return True
    if form != "npz" or not Path(path).is_file():
        return False
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return "observations" in arrays or "obs" in arrays
    except (OSError, ValueError):  # loading the expert gives the message
        return False
