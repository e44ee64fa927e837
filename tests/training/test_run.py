"""The directory of a run, and the progress that is displayed."""

from __future__ import annotations

import csv
import importlib.metadata
import json
import os
import platform
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from suites import arguments

from lit_imitation import read_demonstrations
from lit_imitation.cli import main
from lit_imitation.envs import make
from lit_imitation.policies.checkpoints import read_checkpoint
from lit_imitation.training.directories import new_directory
from lit_imitation.training.lightning_cli import CLI
from lit_imitation.utils.files import FileLock

pytestmark = pytest.mark.integration

FIELDS = {
    "method",
    "env_id",
    "seed",
    "env_steps",
    "gradient_steps",
    "wall_seconds",
    "return_mean",
    "return_std",
    "return_iqm",
    "return_ci95",
    "normalized_score",
    "normalized_score_ci95",
    "expert_return",
    "expert_return_error",
    "random_return",
    "random_return_error",
    "episodes",
    "checkpoint",
    "versions",
} | {"length_mean", "success_rate", "evaluated_on", "loss", "accuracy", "action_error", "action_errors"}

SHORT = ["--trainer.max_epochs=2", "--seed_everything=3", "--data.passes_per_epoch=4"]


def summary_of(directory: Path) -> dict:
    return json.loads((directory / "summary.json").read_text())


def weights(directory: Path) -> dict[str, bytes]:
    state = read_checkpoint(directory / "checkpoints" / "last.ckpt")["state_dict"]
    return {name: value.numpy().tobytes() for name, value in state.items()}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run and the text that it printed."""
    import contextlib
    import io

    directory, text = tmp_path_factory.mktemp("run"), io.StringIO()
    text.isatty = lambda: True  # bars need a terminal
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        main(arguments("bc-discrete", directory, *SHORT))
    return directory, text.getvalue()


# --- summary.json -----------------------------------------------------------------------------------------------------


def check(summary: dict, episodes: int) -> None:
    assert summary.keys() == FIELDS
    assert (summary["method"], summary["env_id"], summary["seed"]) == ("bc", "CartPole-v1", 3)
    assert summary["episodes"] == episodes
    assert summary["env_steps"] == 0
    assert summary["return_mean"] == summary["length_mean"]  # CartPole's reward is 1 per step
    assert summary["success_rate"] is None
    low, high = summary["return_ci95"]
    assert low <= summary["return_iqm"] <= high
    expert, random = summary["expert_return"], summary["random_return"]
    assert expert == 500.0
    assert 15 < random < 30
    assert summary["normalized_score"] == pytest.approx((summary["return_mean"] - random) / (expert - random))
    low, high = summary["normalized_score_ci95"]
    assert low <= summary["normalized_score"] <= high


def test_fit_writes_summary(run):
    directory, _ = run
    summary = summary_of(directory)
    check(summary, episodes=5)
    assert summary["checkpoint"] == "checkpoints/best.ckpt"
    best = read_checkpoint(directory / "checkpoints" / "best.ckpt")
    assert summary["gradient_steps"] == best["global_step"] > 0
    last = read_checkpoint(directory / "checkpoints" / "last.ckpt")
    # All of `fit`, although the test loaded the best checkpoint, which is from an earlier time.
    assert last["callbacks"]["RunDirectory"]["wall_seconds"] <= summary["wall_seconds"] < 100
    versions = summary["versions"]
    assert versions["python"] == platform.python_version()
    assert versions["lit_imitation"] == importlib.metadata.version("lit-imitation")
    for package in ("torch", "lightning", "gymnasium", "numpy"):
        assert versions[package] == importlib.metadata.version(package)
    assert versions["device"]


def test_fit_interrupted_before_test_has_summary(tmp_path, monkeypatch):
    monkeypatch.setattr(CLI, "after_fit", lambda self: None)
    main(arguments("bc-discrete", tmp_path, *SHORT))
    summary = summary_of(tmp_path)
    check(summary, episodes=4)  # episodes of the last validation
    with (tmp_path / "metrics.csv").open() as file:
        returns = [row["val/return_mean"] for row in csv.DictReader(file) if row["val/return_mean"]]
    assert summary["return_mean"] == pytest.approx(float(returns[-1]))


def test_unmeasured_values_are_null(tmp_path, monkeypatch):
    monkeypatch.setattr(CLI, "after_fit", lambda self: None)
    main(arguments("bc-discrete", tmp_path, *SHORT, "--data.eval_episodes=0"))
    summary = summary_of(tmp_path)
    assert summary.keys() == FIELDS
    names = ("return_mean", "return_std", "return_iqm", "return_ci95", "normalized_score", "normalized_score_ci95")
    assert [summary[name] for name in (*names, "random_return")] == [None] * 7
    assert summary["episodes"] == 0
    assert summary["gradient_steps"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(("command", "episodes"), [("test", 5), ("validate", 4)])
def test_test_of_checkpoint_alone_writes_summary(run, tmp_path, command, episodes):
    directory, _ = run
    main([command, f"--ckpt_path={directory}", f"--trainer.default_root_dir={tmp_path}", "--trainer.accelerator=cpu"])
    summary = summary_of(tmp_path)
    check(summary, episodes)
    best = directory / "checkpoints" / "best.ckpt"
    assert Path(summary["checkpoint"]) == best.resolve()
    fitted = summary_of(directory)
    assert summary["gradient_steps"] == fitted["gradient_steps"]
    assert summary["wall_seconds"] > 0  # seconds of the training
    assert not (tmp_path / "config.yaml").exists()
    if command == "test":
        different = {"checkpoint", "wall_seconds"}
        assert {k: v for k, v in summary.items() if k not in different} == {
            k: v for k, v in fitted.items() if k not in different
        }


@pytest.mark.slow
def test_test_in_run_directory_keeps_log_and_config(run, tmp_path):
    main(arguments("bc-discrete", tmp_path, *SHORT))
    before, config = (tmp_path / "metrics.csv").read_text(), (tmp_path / "config.yaml").read_text()
    main(["test", f"--ckpt_path={tmp_path}", f"--trainer.default_root_dir={tmp_path}", "--data.test_episodes=2"])
    assert (tmp_path / "metrics.csv").read_text().startswith(before)
    assert (tmp_path / "metrics.csv").read_text() != before
    assert (tmp_path / "config.yaml").read_text() == config
    summary = summary_of(tmp_path)
    assert (summary["checkpoint"], summary["episodes"]) == ("checkpoints/best.ckpt", 2)


def test_summary_is_printed_last(run):
    directory, text = run
    table = text[text.index("bc on CartPole-v1") :]
    summary = summary_of(directory)
    for name in ("seed", "gradient_steps", "return_mean", "return_iqm", "normalized_score", "checkpoint"):
        assert name in table
    for value in (summary["return_mean"], *summary["return_ci95"], summary["normalized_score"]):
        assert f"{value:.3f}" in table
    assert table.rstrip().splitlines()[-1].startswith("└")


# --- config.yaml ------------------------------------------------------------------------------------------------------


def test_saved_config_starts_an_identical_run(run, tmp_path, monkeypatch):
    directory, _ = run
    config = directory / "config.yaml"
    again = tmp_path / "again"
    main(["fit", f"--config={config}", f"--trainer.default_root_dir={again}"])
    assert weights(again) == weights(directory)
    assert (again / "config.yaml").read_text() == config.read_text()
    monkeypatch.chdir(tmp_path)
    main(["fit", f"--config={config}", "--trainer.max_epochs=1", "--trainer.callbacks=null"])
    (own,) = (tmp_path / "runs" / "bc" / "CartPole-v1").iterdir()  # it has its own directory
    assert {"config.yaml", "metrics.csv", "summary.json"} <= {path.name for path in own.iterdir()}


@pytest.mark.slow
def test_config_of_resumed_run_starts_from_scratch(tmp_path):
    line = arguments("bc-discrete", tmp_path / "run", *SHORT)
    main(line)
    main([*line, "--ckpt_path=last", "--trainer.max_epochs=4"])
    main(["fit", f"--config={tmp_path / 'run' / 'config.yaml'}", f"--trainer.default_root_dir={tmp_path / 'new'}"])
    written = yaml.safe_load((tmp_path / "new" / "config.yaml").read_text())
    assert written["trainer"]["max_epochs"] == 4
    assert weights(tmp_path / "new") == weights(tmp_path / "run")


def test_existing_run_is_not_overwritten(run, capsys):
    directory, _ = run
    before = (directory / "metrics.csv").read_text()
    with pytest.raises(SystemExit) as caught:
        main(arguments("bc-discrete", directory, *SHORT))
    assert caught.value.code == 1
    assert "already holds a run: continue it with --ckpt_path last" in capsys.readouterr().err
    assert (directory / "metrics.csv").read_text() == before


def losses(directory: Path) -> list[tuple[str, str]]:
    with (directory / "metrics.csv").open() as file:
        return [(row["step"], row["train/loss"]) for row in csv.DictReader(file)]


@pytest.mark.slow
def test_resumed_run_continues_clock_and_log(tmp_path):
    line = arguments("bc-discrete", tmp_path, *SHORT)
    main(line)
    checkpoint = read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    first, (rows,) = checkpoint["callbacks"]["RunDirectory"]["wall_seconds"], checkpoint["metrics_rows"]
    before = losses(tmp_path)[:rows]
    assert rows > 2
    main([*line, "--ckpt_path=last", "--trainer.max_epochs=3"])
    assert summary_of(tmp_path)["wall_seconds"] > first > 0
    assert losses(tmp_path)[:rows] == before
    assert len(losses(tmp_path)) > rows


def test_rows_before_first_checkpoint_of_killed_run_drop(run, tmp_path):
    directory, _ = run
    (tmp_path / "metrics.csv").write_text("step,train/loss,other\n4,1.0,2.0\n")
    main(arguments("bc-discrete", tmp_path, *SHORT, "--ckpt_path=last"))
    assert (tmp_path / "metrics.csv").read_text() == (directory / "metrics.csv").read_text()


# --- dry runs ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_fast_dev_run_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    wandb = Path(__file__).parents[2] / "configs" / "trainer" / "wandb.yaml"
    more = [f"--config={wandb}", "--trainer.callbacks.every_n_validations=1"]
    line = [a for a in arguments("bc-discrete", tmp_path / "run", *more) if "default_root_dir" not in a]
    main([*line, "--trainer.fast_dev_run=2"])
    main([*line, "--trainer.fast_dev_run=2", f"--trainer.default_root_dir={tmp_path / 'named'}"])
    assert list(tmp_path.iterdir()) == []


# --- progress ---------------------------------------------------------------------------------------------------------


def test_bars_show_return_and_steps_per_second(run):
    _, text = run
    lines = text.replace("\r", "\n").splitlines()
    training = [line for line in lines if line.startswith("Epoch 1") and "it/s" in line]
    assert any("return=" in line and "val_loss=" in line for line in training)
    for kind in ("Validation", "Testing"):
        assert any(line.lstrip().startswith(kind) and "return=" in line and "steps/s=" in line for line in lines), kind


@pytest.mark.slow
def test_bars_show_return_and_rate_of_experts_and_predict(run, tmp_path, capsys, monkeypatch):
    directory, _ = run
    monkeypatch.setenv("LIT_IMITATION_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "150")
    main(arguments("bc-discrete", tmp_path / "run", "--trainer.max_epochs=1"))
    assert_progress(capsys.readouterr().out, "scripted demonstrates CartPole-v1", "4/4", "return 500.0")
    main(["predict", f"--ckpt_path={directory}", f"--trainer.default_root_dir={tmp_path}", "--data.test_episodes=3"])
    envs = make("CartPole-v1", 1, 0)
    written = read_demonstrations(
        str(tmp_path / "trajectories.npz"), envs.single_observation_space, envs.single_action_space
    )
    assert len(written.episode_returns) == 3
    mean = f"return {float(written.episode_returns.mean()):.1f}"
    out = capsys.readouterr().out
    assert_progress(out, "policy on CartPole-v1", "3/3", mean)
    assert "Predicting" not in out  # a second bar on the same line
    policy = torch.load(directory / "checkpoints" / "best.ckpt", weights_only=True)["policy"]
    assert policy["class"].endswith("CategoricalPolicy")
    assert np.isin(written.transitions.action, [0, 1]).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("share", "done"), [("episodes_per_round=3", "3/3"), ("steps_per_round=600", "600/600")], ids=["episodes", "steps"]
)
def test_bars_show_return_and_rate_of_dagger(share, done, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    rounds = ["--trainer.callbacks.rounds=1", f"--trainer.callbacks.{share}"]
    main(arguments("dagger-discrete", tmp_path, *rounds, "--trainer.callbacks.beta=0"))
    lines = [line for line in capsys.readouterr().out.replace("\r", "\n").splitlines() if "Round 1" in line]
    assert any(done in line and "return=" in line and "steps/s=" in line for line in lines), lines


def assert_progress(text: str, title: str, *parts: str) -> None:
    assert any(
        title in line and "steps/s" in line and all(part in line for part in parts) for line in text.splitlines()
    )


def test_checkpoint_callback_without_monitor_keeps_last(tmp_path):
    more = ["--trainer.callbacks=lightning.pytorch.callbacks.ModelCheckpoint", "--trainer.max_epochs=2"]
    main(arguments("bc-discrete", tmp_path, *more))
    names = {file.name for file in (tmp_path / "checkpoints").iterdir()}
    assert "last.ckpt" in names
    assert len(names) == 2


@pytest.mark.slow
def test_averaged_weights_are_tested_and_saved(tmp_path):
    """The results of `fit` are those of the checkpoint, which has the averaged weights, not those of the last step."""
    main(arguments("bc-discrete", tmp_path / "run", "--model.optimization.ema_decay=0.99"))
    main(["test", f"--ckpt_path={tmp_path / 'run'}", f"--trainer.default_root_dir={tmp_path / 'test'}"])
    fitted, tested = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("run", "test"))
    assert tested["return_mean"] == fitted["return_mean"]
    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    weights = [checkpoint["state_dict"][name].flatten() for name in checkpoint["state_dict"] if "network" in name]
    last = checkpoint["optimizer_states"][0]["state"][0]["average"]  # while the averages take the weights' place
    assert not torch.equal(torch.cat(weights), last)


def test_directory_is_locked_by_its_run(tmp_path, capsys):
    """A new run, a resumed run and a test are refused with one line that names the other process."""
    hold = FileLock(tmp_path / ".lock", "", "")
    for more in ([], ["--ckpt_path=last"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments("bc-discrete", tmp_path, *SHORT, *more))
        assert caught.value.code == 1
        error = capsys.readouterr().err.splitlines()[-1]
        assert f"{tmp_path} is in use by process {os.getpid()} on" in error
    hold.release()
    assert not list(tmp_path.iterdir())


def test_runs_of_the_same_second_get_own_directories(tmp_path, monkeypatch):
    monkeypatch.setattr("time.strftime", lambda form, *when: "now")
    with ExitStack() as resources:
        made = [new_directory(tmp_path, True, resources).name for _ in range(3)]
    assert made == ["now", "now_2", "now_3"]


def test_url_as_run_directory_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(arguments("bc-discrete", "memory://run", *SHORT))
    assert caught.value.code == 1
    assert "memory://run: only local directories can be written" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
