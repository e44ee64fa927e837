"""Options of Lightning's Trainer: each works, or is refused with one message before training."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from lightning import Trainer

from lit_imitation import (
    BC,
    GAIL,
    PPO,
    RL,
    DemonstrationDataModule,
    GaussianPolicy,
    ImitationDataModule,
    MaxEntIRL,
    RolloutDataModule,
    TabularDataModule,
    load_policy,
)
from lit_imitation.errors import ConfigError, TrainingError

pytestmark = pytest.mark.integration

ROUNDS = {"rounds_per_epoch": 2, "steps_per_round": 16, "num_envs": 2, "eval_episodes": 2}
DEMONSTRATED = {"expert": "scripted", "num_trajectories": 3}
RUNS = {
    "bc": lambda: (BC(), DemonstrationDataModule("Pendulum-v1", **DEMONSTRATED, eval_episodes=2)),
    "ppo": lambda: (RL(partial(PPO, epochs=1)), RolloutDataModule("Pendulum-v1", **ROUNDS)),
    "maxent": lambda: (MaxEntIRL(), TabularDataModule("FrozenLake-v1", expert_trajectories=4, eval_episodes=2)),
}


def fit(model, data, directory, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(**{"accelerator": "cpu", "max_epochs": 1, "default_root_dir": directory, **quiet, **options})
    trainer.fit(model, data)
    return trainer


@pytest.mark.parametrize(
    ("run", "precision"),
    [("bc", "64-true"), ("bc", "bf16-true"), ("ppo", "16-true"), ("ppo", "64-true"), ("maxent", "bf16-mixed")],
)
def test_unsupported_precision_is_refused(run, precision, tmp_path):
    model, data = RUNS[run]()
    with pytest.raises(ConfigError, match=f"does not run in trainer.precision {precision}; use one of 32-true"):
        fit(model, data, tmp_path, precision=precision)
    assert not hasattr(model, "policy")


def test_maxent_irl_runs_with_double_precision(tmp_path):
    model, data = RUNS["maxent"]()
    trainer = fit(model, data, tmp_path, precision="64-true")
    assert model.reward.weights[0].dtype == torch.float64
    assert model.evaluation["episodes"] == 2
    trainer.save_checkpoint(tmp_path / "c.ckpt")
    assert load_policy(tmp_path / "c.ckpt")(3) in range(4)


@pytest.mark.slow
@pytest.mark.grid
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("option", ["log_every_n_steps", "barebones"])
def test_run_without_loggers_works(run, option, tmp_path):
    options = {"log_every_n_steps": 0}
    if option == "barebones":
        options = {"barebones": True, "logger": None, "enable_progress_bar": None, "enable_model_summary": None}
    model, data = RUNS[run]()
    trainer = fit(model, data, tmp_path, **options)
    assert trainer.global_step > 0
    assert trainer.log_every_n_steps == 0
    assert not any(name.startswith("train/") for name in trainer.callback_metrics) or option == "log_every_n_steps"


def saved(policy, directory, damage=None):
    """A BC checkpoint with a given policy."""
    model, data = RUNS["bc"]()
    model = BC(lambda *spaces: policy)
    trainer = fit(model, data, directory)
    if damage:
        damage(model, trainer)
    trainer.save_checkpoint(directory / "c.ckpt")


@pytest.mark.grid(every=3)
@pytest.mark.parametrize("bounds", [(-np.inf, np.inf), (0.0, np.inf), (-np.inf, 5.0)])
def test_infinite_bounds_are_saved_and_restored(bounds, tmp_path):
    policy = GaussianPolicy(Box(-8, 8, (3,), np.float32), Box(*bounds, (1,), np.float32))
    saved(policy, tmp_path)
    assert load_policy(tmp_path / "c.ckpt").action_space == policy.action_space


@pytest.mark.grid(every=3)
@pytest.mark.parametrize("what", ["weight", "statistic", "moment"])
def test_non_finite_parameters_are_not_saved(what, tmp_path):
    def damage(model, trainer):
        with torch.no_grad():
            if what == "weight":
                model.policy.network.layers[0].weight[0, 0] = torch.inf
            elif what == "statistic":
                model.policy.encoder.standardize.mean[0] = torch.nan
            else:
                next(iter(trainer.optimizers[0].state.values()))["exp_avg"][0] = torch.nan

    policy = GaussianPolicy(Box(-8, 8, (3,), np.float32), Box(-2, 2, (1,), np.float32))
    name = {"weight": "weight", "statistic": "mean", "moment": "exp_avg of optimizer 0"}[what]
    with pytest.raises(TrainingError, match=rf"{name} is no longer finite after step \d+"):
        saved(policy, tmp_path, damage)
    assert not (tmp_path / "c.ckpt").exists()


def test_alarms_continue_counting_after_resumption(tmp_path):
    """Ten successive rounds with flat rewards give one warning, also if the run is resumed after three of them."""

    def run():
        data = ImitationDataModule("CartPole-v1", expert="scripted", expert_trajectories=2, **ROUNDS)
        return GAIL(learner=partial(PPO, epochs=1), discriminator_steps=1, discriminator_batch_size=8), data

    model, data = run()
    trainer = fit(model, data, tmp_path)
    model.alarms.rounds = {"saturated": 3, "flat": 9}
    trainer.save_checkpoint(tmp_path / "c.ckpt")
    resumed, data = run()
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    Trainer(accelerator="cpu", max_epochs=1, default_root_dir=tmp_path, **quiet).fit(
        resumed, data, ckpt_path=tmp_path / "c.ckpt", weights_only=True
    )
    assert resumed.alarms.rounds == {"saturated": 3, "flat": 9}
