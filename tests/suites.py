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

METHODS = {
    "bc-discrete": ["--model=lit_imitation.BC", "--model.policy=lit_imitation.CategoricalPolicy", *DISCRETE],
    "bc-continuous": ["--model=lit_imitation.BC", "--model.policy=lit_imitation.GaussianPolicy", *CONTINUOUS],
}
"""Name to the arguments of a run that takes seconds."""

SMALL = ["--model.policy.hidden_sizes=[16,16]", "--model.policy.dropout=0.1"]


def arguments(method: str, directory: Path, *more: str) -> list[str]:
    """The command line of a small run of a method."""
    return ["fit", *BASE, *CHECKPOINTS, *METHODS[method], *SMALL, f"--trainer.default_root_dir={directory}", *more]
