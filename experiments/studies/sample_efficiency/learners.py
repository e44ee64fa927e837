"""The runs of the study: the expert, BC, DAgger and GAIL. (PPO comes from the study of fine-tuning.)"""

from __future__ import annotations

import csv
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.spaces import Discrete
from lightning.pytorch.callbacks import EarlyStopping

from experiments.studies.common import Result, fit
from experiments.studies.finetune.learners import Curve, play
from lit_imitation.data.demonstration_module import DemonstrationDataModule
from lit_imitation.data.imitation_module import ImitationDataModule
from lit_imitation.envs import Backend, make
from lit_imitation.experts import load_expert
from lit_imitation.methods import BC, GAIL
from lit_imitation.methods.dagger.callback import DAggerCallback
from lit_imitation.optim.optimization import Optimization
from lit_imitation.policies import CategoricalPolicy, DeterministicPolicy, PolicyFactory
from lit_imitation.rewards import Discriminator
from lit_imitation.rl import PPO
from lit_imitation.training.loggers import MetricsCSV
from lit_imitation.utils.seeding import RandomStream, derive_seed

LOGGED = (
    "env_steps",
    "discriminator_accuracy_expert",
    "discriminator_accuracy_learner",
    "discriminator_accuracy_held_out",
    "reward_mean",
    "return_mean",
)
"""Columns of GAIL's `metrics.csv` that its result keeps."""


def expert(env_id: str, backend: Backend, expert: str, episodes: int, seed: int) -> Result:
    """Returns of the expert's mode, as every learner is measured by its own.

    Args:
        env_id: Environment.
        backend: Backend of the environment; results differ between backends.
        expert: Expert, as for `load_expert`.
        episodes: Number of measured episodes.
        seed: Seed of everything.
    """
    envs = make(env_id, 1, 0, backend)
    spaces = envs.single_observation_space, envs.single_action_space
    envs.close()
    actor = load_expert(expert, env_id, *spaces)
    returns, _ = play(env_id, backend, actor, episodes, derive_seed(seed, env_id, "expert"))
    return {"returns": returns}


def clone(
    env_id: str, backend: Backend, demonstrations: dict[str, Any], gradient_steps: int, episodes: int, seed: int
) -> Result:
    """`BC` on demonstrations, none held out; the average of the weights over the last steps is measured.

    Args:
        env_id: Environment.
        backend: Backend of the environment.
        demonstrations: Arguments of `DemonstrationDataModule`.
        gradient_steps: Number of gradient steps for any number of demonstrations; rounded up to whole passes over them.
        episodes: Number of measured episodes.
        seed: Seed of everything.
    """
    seed = derive_seed(seed, env_id, "learner")
    data = DemonstrationDataModule(
        env_id, **demonstrations, val_fraction=0.0, backend=backend, eval_episodes=0, seed=seed
    )
    data.setup("fit")  # to count the demonstrations
    data.passes_per_epoch = -(-gradient_steps // max(len(data.train) // data.batch_size, 1))
    kind = CategoricalPolicy if isinstance(data.action_space, Discrete) else DeterministicPolicy
    build: PolicyFactory = partial(kind, hidden_sizes=(100, 100), activation="tanh")
    with RandomStream(derive_seed(seed, "clone")), tempfile.TemporaryDirectory() as directory:
        module = BC(build, l2_coefficient=1e-3, optimization=Optimization(ema_decay=0.998))
        fit(module, data, 1, directory)
    returns, _ = play(env_id, backend, module.actor(), episodes, derive_seed(seed, "test"))
    return {"returns": returns, "labels": np.array(len(data.train))}


def dagger(
    env_id: str, backend: Backend, demonstrations: dict[str, Any], dagger: dict[str, Any], episodes: int, seed: int
) -> Result:
    """DAgger from demonstrations; their expert answers with its mode.

    Args:
        env_id: Environment.
        backend: Backend of the environment.
        demonstrations: Arguments of `DemonstrationDataModule`.
        dagger: Arguments of `DAggerCallback`, including `epochs_per_round`.
        episodes: Number of measured episodes of the last round's policy.
        seed: Seed of everything.

    Returns:
        `labels: [rounds + 1]`, with what `Curve` notes at each round's end.
    """
    seed = derive_seed(seed, env_id, "learner")
    data = DemonstrationDataModule(env_id, **demonstrations, backend=backend, seed=seed)
    callback = DAggerCallback(load_expert(demonstrations["expert"], env_id, *data.spaces), **dagger)
    curve = Curve()
    with RandomStream(derive_seed(seed, "dagger")), tempfile.TemporaryDirectory() as directory:
        module = BC()
        fit(module, data, dagger["epochs_per_round"], directory, callback, curve)
    returns, _ = play(env_id, backend, module.actor(), episodes, derive_seed(seed, "test"))
    labels = np.array([record["expert_queries"] for record in callback.history.records])
    rounds = {name: values[1:] for name, values in curve.result().items()}  # without the untrained policy
    return rounds | {"returns": returns, "labels": labels}


def gail(
    env_id: str,
    backend: Backend,
    demonstrations: dict[str, Any],
    rounds: dict[str, Any],
    discriminator: dict[str, Any],
    ppo: dict[str, Any],
    episodes: int,
    seed: int,
    aim: float | None = None,
) -> Result:
    """GAIL with PPO; the policy of its end is measured.

    Args:
        env_id: Environment.
        backend: Backend of the environment.
        demonstrations: Arguments of `ImitationDataModule`.
        rounds: Further arguments of `ImitationDataModule`.
        discriminator: Arguments of `Discriminator`.
        ppo: Arguments of `PPO`.
        episodes: Number of measured episodes.
        seed: Seed of everything.
        aim: Mean validation return at which training stops.

    Returns:
        `LOGGED` of each round, NaN where a round logs none, as `round_…: [rounds]`, in addition to what `Curve` notes.
    """
    seed = derive_seed(seed, env_id, "learner")
    stop = EarlyStopping("val/return_mean", mode="max", stopping_threshold=aim, patience=1_000_000)
    curve = Curve()
    with RandomStream(derive_seed(seed, "learner")), tempfile.TemporaryDirectory() as directory:
        module = GAIL(partial(Discriminator, **discriminator), partial(PPO, **ppo))
        data = ImitationDataModule(env_id, **demonstrations, **rounds, backend=backend, seed=seed)
        callbacks = (curve,) if aim is None else (curve, stop)
        fit(module, data, 1, directory, *callbacks, logger=MetricsCSV(directory))
        with (Path(directory) / "metrics.csv").open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["train/env_steps"]]
    logged = {f"round_{name}": np.array([float(row.get(f"train/{name}") or "nan") for row in rows]) for name in LOGGED}
    returns, _ = play(env_id, backend, module.actor(), episodes, derive_seed(seed, "test"))
    labels = np.array(len(data.train) + len(data.held_out))
    return curve.result() | logged | {"returns": returns, "labels": labels}
