"""Small command-line runs of every method, shared by the resume, two-process and space tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest

RECORDED = Path(__file__).with_name("recorded.npz")
"""Demonstrations of a PD controller that brings a point to the origin: position and velocity to force, in the plane."""
STORED = RECORDED.with_suffix(".hdf5")
"""The same without compression, so that observations can be read from disk one by one."""
ENVIRONMENT_OPTIONS = ("--data.num_envs", "--data.eval_episodes", "--data.test_episodes", "--data.backend")
DATA = ["--data=lit_imitation.DemonstrationDataModule"]
BASE = [
    "--data.num_envs=3",
    "--data.eval_episodes=4",
    "--data.test_episodes=5",
    "--trainer.accelerator=cpu",
    "--trainer.log_every_n_steps=5",
    "--trainer.max_epochs=5",
]
CHECKPOINTS = [
    "--trainer.callbacks+=lightning.pytorch.callbacks.ModelCheckpoint",
    "--trainer.callbacks.filename=best",
    "--trainer.callbacks.save_on_train_epoch_end=true",
    "--trainer.callbacks.enable_version_counter=false",
]


class Method(NamedTuple):
    """Arguments of a run that takes seconds."""

    task: list[str]
    """Data and model."""
    more: list[str]
    """Options of the method; callbacks last."""
    smaller: list[str]
    """Small networks."""
    monitor: list[str]
    """Monitored metric of the best checkpoint."""
    exact: list[str]
    """Options that make two processes compute the same as one, or comparable results."""
    differs: bool
    """Whether two processes compute other results than one: they learn from other episodes, or draw other noise."""
    plays: bool = True
    """Whether there is an environment, with options of its own."""


def offline(model: str, *task: str, more: tuple[str, ...] = ()) -> Method:
    """Method that learns from demonstrations."""
    data = [*DATA, "--data.expert=scripted", "--data.num_trajectories=4"]
    smaller = ["--model.policy.hidden_sizes=[16,16]", "--model.policy.dropout=0.1"]
    monitor = ["--trainer.callbacks.monitor=val/loss"]
    # Without dropout, whose noise differs between processes.
    exact = ["--model.policy.dropout=0"]
    policy = ["--model=lit_imitation.BC", f"--model.policy=lit_imitation.{model}"]
    return Method([*data, *policy, *task], list(more), smaller, monitor, exact, differs=False)


def from_file(model: str, more: tuple[str, ...] = ()) -> Method:
    """Method that learns from a file of 8 trajectories, without an environment."""
    of = offline(model, more=more)
    data = [*DATA, f"--data.demonstrations={RECORDED}", "--data.num_trajectories=7", "--data.test_fraction=0.2"]
    return of._replace(task=[*data, *of.task[-2:]], plays=False)


def valued(model: str, *task: str, more: tuple[str, ...] = ()) -> Method:
    """Offline reinforcement learning from the rewards of an expert."""
    data = ["--data=lit_imitation.OfflineDataModule", "--data.expert=scripted", "--data.num_trajectories=4"]
    data += ["--data.val_fraction=0.25", "--data.batch_size=64"]
    smaller = ["--model.hidden_sizes=[16,16]"]
    monitor = ["--trainer.callbacks.monitor=val/loss"]
    return Method([*data, f"--model=lit_imitation.{model}", *task], list(more), smaller, monitor, [], differs=False)


def online(learner: str, *task: str, more: tuple[str, ...] = ()) -> Method:
    """Reinforcement learning with a learner."""
    data = ["--data=lit_imitation.RolloutDataModule", "--data.rounds_per_epoch=3", "--data.steps_per_round=24"]
    smaller = ["--model.learner.hidden_sizes=[16,16]"]
    monitor = ["--trainer.callbacks.monitor=val/return_mean", "--trainer.callbacks.mode=max"]
    model = ["--model=lit_imitation.RL", f"--model.learner=lit_imitation.{learner}"]
    exact = ["--data.num_envs=4"]  # an equal number on each of two processes
    return Method([*data, *model, *task], list(more), smaller, monitor, exact, differs=True)


def demonstrated(model: str, learner: str, *task: str, more: tuple[str, ...] = ()) -> Method:
    """Rounds of a learner, and demonstrations."""
    rl = online(learner, *task)
    data = ["--data=lit_imitation.ImitationDataModule", *rl.task[1:3], "--data.expert=scripted"]
    data += ["--data.expert_trajectories=3"]
    return rl._replace(
        task=[*data, f"--model={model}", f"--model.learner=lit_imitation.{learner}", *task], more=list(more)
    )


def adversarial(name: str, learner: str, *task: str, more: tuple[str, ...] = ()) -> Method:
    """Adversarial reward learning with a reinforcement learner."""
    small = ("--model.discriminator_batch_size=32", "--model.discriminator_steps=3", "--model.replay_rounds=2")
    return demonstrated(f"lit_imitation.{name}", learner, *task, more=(*small, *more))


def guided(learner: str, *task: str, more: tuple[str, ...] = ()) -> Method:
    """Guided cost learning on short episodes, two of which fit into a round."""
    method = adversarial("GCL", learner, *task, "--data.env_kwargs={max_episode_steps: 12}")
    small = ["--model.reward_batch_size=8", "--model.reward_steps=3", "--model.replay_rounds=2"]
    return method._replace(more=[*small, *more])


def tabular(model: str, *task: str, more: tuple[str, ...] = ()) -> Method:
    """Reward learning in a finite MDP."""
    data = ["--data=lit_imitation.TabularDataModule", "--data.expert_trajectories=8", "--data.steps_per_trajectory=10"]
    data += ["--data.batch_size=4", "--data.passes_per_epoch=2"]
    reward = ["--model=lit_imitation.MaxEntIRL", f"--model.reward=lit_imitation.{model}"]
    monitor = ["--trainer.callbacks.monitor=val/expected_value_difference"]
    return Method([*data, *reward, *task], list(more), [], monitor, [], differs=False)


DISCRETE, CONTINUOUS = "--data.env_id=CartPole-v1", "--data.env_id=Pendulum-v1"
DAGGER = (
    "--trainer.callbacks+=lit_imitation.DAggerCallback",
    "--trainer.callbacks.rounds=3",
    "--trainer.callbacks.epochs_per_round=2",
    "--trainer.callbacks.beta=0.5",
)
CHUNKS = (
    "--model.policy.n_obs_steps=2",
    "--model.policy.horizon=6",
    "--model.policy.n_action_steps=3",
)
CAMERAS = ("--data.env_id=cameras:Reach-v0", "--data.expert=cameras:seek")
CROPPED = "--model.policy.encoder={camera: {kind: image, features: 16, crop: 10, color_jitter: 0.2}, point: mlp}"
# Copies that share one generator would run different episodes on two processes than on one.
ONE_BY_ONE = "--data.backend=sync"
PPO = ("--model.learner.epochs=2", "--model.learner.batch_size=16")
SAC = ("--model.learner.learning_starts=100", "--model.learner.updates_per_step=0.1")

METHODS = {
    "bc-discrete": offline("CategoricalPolicy", DISCRETE),
    "bc-continuous": offline("GaussianPolicy", CONTINUOUS),
    "bc-from-file": from_file("GaussianPolicy"),
    "bc-streamed": from_file(
        "MixturePolicy", more=(f"--data.demonstrations={STORED}", "--data.memory=stream", *CHUNKS)
    ),
    # Crops and colors are drawn, by each process for its own rows.
    "bc-cameras": offline("GaussianPolicy", *CAMERAS, more=(CROPPED,))._replace(differs=True),
    "bc-chunks": offline("MixturePolicy", CONTINUOUS, more=CHUNKS),
    "dagger-chunks": offline("MixturePolicy", CONTINUOUS, more=(*CHUNKS, *DAGGER)),
    "bc-quantized": offline("QuantizedPolicy", CONTINUOUS, more=("--model.policy.levels=2",)),
    "bc-vq-bet": offline("VQBeTPolicy", CONTINUOUS, more=(*CHUNKS, "--model.policy.autoencoder_steps=50")),
    "bc-flow": offline("FlowPolicy", CONTINUOUS, more=CHUNKS)._replace(differs=True),  # its loss draws noise
    "bc-diffusion": offline("DiffusionPolicy", CONTINUOUS, more=CHUNKS)._replace(differs=True),
    "bc-cvae": offline("CVAEPolicy", CONTINUOUS, more=CHUNKS)._replace(differs=True),
    "dagger-discrete": offline("CategoricalPolicy", DISCRETE, more=(*DAGGER, ONE_BY_ONE)),
    "dagger-continuous": offline("GaussianPolicy", CONTINUOUS, more=(*DAGGER, "--trainer.callbacks.reinitialize=true")),
    "dagger-asking-less": offline("EnsemblePolicy", CONTINUOUS, more=(*DAGGER, "--trainer.callbacks.query_budget=50")),
    "iql-discrete": valued("IQL", DISCRETE),
    "iql-continuous": valued("IQL", CONTINUOUS),
    "cql-discrete": valued("CQL", DISCRETE),
    "cql-continuous": valued("CQL", CONTINUOUS, more=("--model.gap_target=1.0", "--model.samples=3"))._replace(
        differs=True  # it draws actions, and so does TD3+BC noise
    ),
    "td3-bc": valued("TD3BC", CONTINUOUS, more=("--model.critic_penalty=0.1",))._replace(differs=True),
    "maxent-irl": tabular("LinearReward", "--data.env_id=FrozenLake-v1", more=(ONE_BY_ONE, "--model.gamma=0.8")),
    "ppo-discrete": online("PPO", DISCRETE, more=PPO),
    "ppo-continuous": online("PPO", CONTINUOUS, more=PPO),
    "gail-discrete": adversarial("GAIL", "PPO", DISCRETE, more=(*PPO, "--model.discriminator.absorbing=true")),
    "gail-continuous": adversarial("GAIL", "PPO", CONTINUOUS, more=(*PPO, "--model.discriminator.spectral_norm=true")),
    "gail-by-sac": adversarial("GAIL", "SAC", CONTINUOUS, more=(*SAC, "--model.discriminator.gradient_penalty=1")),
    "airl-discrete": adversarial("AIRL", "PPO", DISCRETE, more=PPO),
    "airl-continuous": adversarial("AIRL", "PPO", CONTINUOUS, more=PPO),
    "airl-by-sac": adversarial("AIRL", "SAC", DISCRETE, more=SAC),
    "gcl-discrete": guided("PPO", DISCRETE, more=PPO),
    "gcl-continuous": guided("PPO", CONTINUOUS, more=(*PPO, "--model.reward.local_constancy=0.1")),
    "gcl-by-sac": guided("SAC", CONTINUOUS, more=SAC),
    "sac-discrete": online("SAC", DISCRETE, more=SAC),
    "sac-continuous": online("SAC", CONTINUOUS, more=(*SAC, "--model.learner.buffer_size=500")),
}
REPRESENTATIVES = {"bc-from-file", "dagger-discrete", "gail-discrete"}
"""Methods on blocks, with a callback, and on rounds; the suites of the others are slow."""


def every_method(fast: set[str] = REPRESENTATIVES) -> list[Any]:
    """Names of all methods, for `parametrize`; integration tests for those in `fast`, slow tests for the others."""
    marks = {True: pytest.mark.integration, False: pytest.mark.slow}
    return [pytest.param(name, marks=marks[name in fast]) for name in sorted(METHODS)]


def arguments(method: str, directory: Path, *more: str) -> list[str]:
    """Command line of a small run of a method."""
    of = METHODS[method]
    # `task` first: it names the classes that the other arguments belong to.
    checkpoints = [*CHECKPOINTS, *of.monitor]
    command = [
        "fit",
        *of.task,
        *BASE,
        *checkpoints,
        *of.more,
        *of.smaller,
        f"--trainer.default_root_dir={directory}",
        *more,
    ]
    return [one for one in command if of.plays or not one.startswith(ENVIRONMENT_OPTIONS)]
