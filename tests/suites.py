"""The common suites: every method joins resume, two-process and space tests by one line here."""

from __future__ import annotations

from pathlib import Path

BASE = [
    "--data=lit_imitation.DemonstrationDataModule",
    "--data.num_envs=3",
    "--data.eval_episodes=4",
    "--data.test_episodes=5",
    "--trainer.accelerator=cpu",
    "--trainer.log_every_n_steps=5",
    "--trainer.max_epochs=5",
]
CHECKPOINTS = [
    "--trainer.callbacks+=lightning.pytorch.callbacks.ModelCheckpoint",
    "--trainer.callbacks.monitor=val/loss",
    "--trainer.callbacks.filename=best",
    "--trainer.callbacks.save_on_train_epoch_end=true",
    "--trainer.callbacks.enable_version_counter=false",
]
DISCRETE = ["--data.env_id=CartPole-v1", "--data.expert=scripted", "--data.num_trajectories=4"]
CONTINUOUS = ["--data.env_id=Pendulum-v1", "--data.expert=scripted", "--data.num_trajectories=4"]

CATEGORICAL = ["--model=lit_imitation.BC", "--model.policy=lit_imitation.CategoricalPolicy", *DISCRETE]
GAUSSIAN = ["--model=lit_imitation.BC", "--model.policy=lit_imitation.GaussianPolicy", *CONTINUOUS]
ENSEMBLE = ["--model=lit_imitation.BC", "--model.policy=lit_imitation.EnsemblePolicy", *CONTINUOUS]
DAGGER = [
    "--trainer.callbacks+=lit_imitation.DAggerCallback",
    "--trainer.callbacks.rounds=3",
    "--trainer.callbacks.epochs_per_round=2",
    "--trainer.callbacks.beta=0.5",
]
# Environments that share one random stream would play other episodes on two processes than on one.
ONE_BY_ONE = ["--data.backend=sync"]

RL = [
    "--model=lit_imitation.RL",
    "--data=lit_imitation.RolloutDataModule",
    "--data.steps_per_round=32",
    "--data.rounds_per_epoch=3",
    "--trainer.callbacks.monitor=val/return_mean",
    "--trainer.callbacks.mode=max",
]
PPO = "--model.generator=lit_imitation.PPO"
PPO_CATEGORICAL = [*RL, PPO, "--model.policy=lit_imitation.CategoricalPolicy", "--data.env_id=CartPole-v1"]
PPO_GAUSSIAN = [*RL, PPO, "--model.policy=lit_imitation.GaussianPolicy", "--data.env_id=Pendulum-v1"]
SAC = [
    "--model.generator=lit_imitation.SAC",
    "--model.generator.learning_starts=100",
    "--model.generator.hidden_sizes=[16,16]",
]
SAC_CATEGORICAL = [
    *RL,
    *SAC,
    "--model.policy=lit_imitation.CategoricalPolicy",
    "--data.env_id=CartPole-v1",
    "--model.generator.updates_per_step=0.1",
    "--model.generator.random_steps=50",
]
SAC_SQUASHED = [*RL, *SAC, "--model.policy=lit_imitation.SquashedGaussianPolicy", "--data.env_id=Pendulum-v1"]

METHODS = {
    "bc-discrete": CATEGORICAL,
    "bc-continuous": GAUSSIAN,
    "dagger-discrete": [*CATEGORICAL, *DAGGER, *ONE_BY_ONE],
    "dagger-continuous": [*GAUSSIAN, *DAGGER, "--trainer.callbacks.reinitialise=true"],
    "dagger-asking-less": [*ENSEMBLE, *DAGGER, "--trainer.callbacks.query_budget=50"],
    "ppo-discrete": PPO_CATEGORICAL,
    "ppo-continuous": PPO_GAUSSIAN,
    "sac-discrete": SAC_CATEGORICAL,
    "sac-continuous": [*SAC_SQUASHED, "--model.generator.updates_per_step=0.1", "--model.generator.buffer_size=500"],
}
"""Name to the arguments of a run that takes seconds."""

ROUNDS = {method for method, line in METHODS.items() if line[: len(RL)] == RL}
"""Those that play rounds in environments of each process's own: two processes see other episodes than one."""

SMALL = ["--model.policy.hidden_sizes=[16,16]", "--model.policy.dropout=0.1"]


def arguments(method: str, directory: Path, *more: str) -> list[str]:
    """The command line of a small run of a method."""
    return ["fit", *BASE, *CHECKPOINTS, *METHODS[method], *SMALL, f"--trainer.default_root_dir={directory}", *more]
