"""Behavioral cloning from a file alone: held-out loss and error, and a policy without an environment."""

from __future__ import annotations

import contextlib
import io
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from short_runs import column
from suites import RECORDED, STORED, arguments

from lit_imitation import DemonstrationDataModule, load_policy, read_demonstrations, write_demonstrations
from lit_imitation.cli import main
from lit_imitation.data.demonstrations import Demonstrations
from lit_imitation.envs import make
from lit_imitation.policies.checkpoints import read_checkpoint
from lit_imitation.rollout import collect

pytestmark = pytest.mark.integration

METHOD = "bc-from-file"
QUICK = ["--trainer.max_epochs=1", "--trainer.callbacks=null"]


def summary_of(directory: Path) -> dict:
    return json.loads((directory / "summary.json").read_text())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run and what it printed."""
    directory, text = tmp_path_factory.mktemp("run"), io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        main(arguments(METHOD, directory, "--trainer.max_epochs=3"))
    return directory, text.getvalue()


@pytest.fixture(scope="module")
def cartpole(tmp_path_factory) -> Path:
    """A file of random CartPole trajectories."""
    path = tmp_path_factory.mktemp("cartpole") / "mine.npz"
    envs = make("CartPole-v1", 2, seed=0)
    envs.action_space.seed(0)
    transitions = collect(envs, lambda observation: np.asarray(envs.action_space.sample()), 10, seed=0)
    envs.close()
    write_demonstrations(path, Demonstrations(transitions, transitions.episode_returns(), {"env_id": "CartPole-v1"}))
    return path


def fit(directory: Path, demonstrations: Path, *more: str) -> dict[str, torch.Tensor]:
    """Weights of a short run."""
    data = ["--data=lit_imitation.DemonstrationDataModule", f"--data.demonstrations={demonstrations}"]
    model = ["--model=lit_imitation.BC", "--trainer.accelerator=cpu", f"--trainer.default_root_dir={directory}"]
    main(["fit", *data, *model, "--trainer.max_epochs=2", *more])
    state: dict[str, torch.Tensor] = read_checkpoint(directory / "checkpoints" / "last.ckpt")["state_dict"]
    return state


def test_summary_tells_what_was_measured(run):
    directory, text = run
    summary = summary_of(directory)
    assert (summary["method"], summary["env_id"], summary["episodes"]) == ("bc", "", 0)
    assert summary["evaluated_on"] == "held-out test trajectories"
    names = (
        "return_mean",
        "return_std",
        "return_iqm",
        "normalized_score",
        "expert_return",
        "random_return",
        "accuracy",
    )
    assert [summary[name] for name in names] == [None] * len(names)
    assert "normalized" not in text
    assert "return" not in text
    assert "observations are 4 numbers, actions 2 numbers from" in text
    assert "bc from a file, without an environment" in text
    for value in (f"{summary['loss']:.3f}", f"{summary['action_error']:.3f}", "held-out test trajectories"):
        assert value in text
    for name in ("val/loss", "val/action_error", "test/loss", "test/action_error"):
        assert column(directory, name), name
    assert column(directory, "test/loss") == pytest.approx([summary["loss"]])


def test_loss_and_error_are_those_of_a_plain_loop(run):
    """−log N(a; μ, σ²) and |a − μ|, summed by hand over the test trajectories."""
    directory, _ = run
    data = DemonstrationDataModule(demonstrations=RECORDED, num_trajectories=7, test_fraction=0.2, seed=0)
    data.setup("test")
    policy, summary = load_policy(directory), summary_of(directory)
    log_std = policy.free_log_std().detach().double().numpy()
    scale = policy.scale.double().numpy()
    losses, errors = [], []
    for observation, action in zip(data.tested.observation.numpy(), data.tested.action.numpy(), strict=True):
        difference = action - policy(observation)
        std = np.exp(log_std) * scale
        losses.append(sum(0.5 * (difference / std) ** 2 + np.log(std) + 0.5 * math.log(2 * math.pi)))
        errors.append(np.abs(difference))
    assert summary["loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert summary["action_errors"] == pytest.approx(np.mean(errors, 0), rel=1e-4)
    assert summary["action_error"] == pytest.approx(np.mean(errors), rel=1e-4)


def test_policy_needs_no_file(run, monkeypatch):
    directory, _ = run
    monkeypatch.setattr("lit_imitation.data.array_files.read_file", lambda path: pytest.fail("read the file"))
    policy = load_policy(directory)
    assert policy(np.zeros(4)).shape == (2,)
    assert policy(np.zeros((3, 4))).shape == (3, 2)


def test_runs_folder_is_named_after_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main([one for one in arguments(METHOD, tmp_path, *QUICK) if "default_root_dir" not in one])
    (own,) = (tmp_path / "runs" / "bc" / "recorded").iterdir()
    assert (own / "summary.json").is_file()


@pytest.mark.parametrize("command", ["test", "validate"])
def test_checkpoint_is_measured_again(run, tmp_path, command):
    directory, _ = run
    main([command, f"--ckpt_path={directory}", f"--trainer.default_root_dir={tmp_path}"])
    summary = summary_of(tmp_path)
    if command == "test":
        assert summary["loss"] == summary_of(directory)["loss"]
    else:
        assert summary["evaluated_on"] == "held-out validation trajectories"
        best = torch.load(directory / "checkpoints" / "best.ckpt", weights_only=True)
        assert summary["loss"] == pytest.approx(best["evaluation"]["loss"])


def test_predict_writes_actions_at_recorded_states(run, tmp_path):
    directory, _ = run
    main(["predict", f"--ckpt_path={directory}", f"--trainer.default_root_dir={tmp_path}"])
    policy, recorded = load_policy(directory), np.load(RECORDED)
    spaces = policy.observation_space, policy.action_space
    written = read_demonstrations(tmp_path / "trajectories.npz", *spaces)
    np.testing.assert_array_equal(written.transitions.observation, recorded["observations"])
    np.testing.assert_array_equal(written.transitions.truncated, recorded["timeouts"])
    np.testing.assert_allclose(written.transitions.action, policy(recorded["observations"]), rtol=1e-5, atol=1e-6)
    assert "env_id" not in written.metadata


def test_streamed_run_tests_and_predicts(tmp_path):
    """Figures and file equal those of data in memory, for the same policy."""
    streamed = [f"--data.demonstrations={STORED}", "--data.memory=stream"]
    main(arguments(METHOD, tmp_path / "run", *streamed, *QUICK))
    found = {}
    for memory in ("stream", "resident"):
        for command in ("test", "predict"):
            directory = tmp_path / f"{command} {memory}"
            place = [f"--trainer.default_root_dir={directory}", f"--data.memory={memory}"]
            main([command, f"--ckpt_path={tmp_path / 'run'}", *place])
        found[memory] = (
            summary_of(tmp_path / f"test {memory}"),
            np.load(tmp_path / f"predict {memory}/trajectories.npz"),
        )
    (figures, written), (wanted, file) = found["stream"], found["resident"]
    assert figures["loss"] == pytest.approx(wanted["loss"], rel=1e-6)
    np.testing.assert_array_equal(written["observations"], np.load(RECORDED)["observations"])
    for key in file.files:
        if key != "metadata":
            np.testing.assert_allclose(written[key], file[key], rtol=1e-6)


def test_weights_equal_those_of_a_run_with_environment(cartpole, tmp_path):
    alone = fit(tmp_path / "alone", cartpole)
    beside = fit(tmp_path / "beside", cartpole, "--data.env_id=CartPole-v1", "--data.test_episodes=2")
    assert alone.keys() == beside.keys()
    for name, value in alone.items():
        if name.startswith("policy."):
            assert torch.equal(value, beside[name]), name


@pytest.mark.slow
def test_weights_equal_those_of_a_run_with_the_given_action_space(tmp_path):
    path = tmp_path / "pendulum.npz"
    envs = make("Pendulum-v1", 2, seed=0)
    envs.action_space.seed(0)
    transitions = collect(envs, lambda observation: np.asarray(envs.action_space.sample()), 4, seed=0)
    envs.close()
    write_demonstrations(path, Demonstrations(transitions, transitions.episode_returns(), {}))
    alone = fit(tmp_path / "alone", path, "--data.action_space={type: Box, low: -2, high: 2, shape: [1]}")
    beside = fit(tmp_path / "beside", path, "--data.env_id=Pendulum-v1", "--data.test_episodes=2")
    for name, value in alone.items():
        if name.startswith("policy."):
            assert torch.equal(value, beside[name]), name


def test_cloned_file_is_tested_elsewhere(cartpole, tmp_path):
    """On all of a file that lacks the last choice, and in an environment."""
    fit(tmp_path / "run", cartpole)
    held = dict(np.load(cartpole))
    held["actions"] = np.zeros_like(held["actions"])
    del held["metadata"]
    np.savez(tmp_path / "zeros.npz", **held)
    other = [f"--data.demonstrations={tmp_path / 'zeros.npz'}", "--data.val_fraction=0", "--data.test_fraction=1"]
    main(["test", f"--ckpt_path={tmp_path / 'run'}", f"--trainer.default_root_dir={tmp_path / 'zeros'}", *other])
    share = (load_policy(tmp_path / "run")(held["observations"]) == 0).mean()
    assert summary_of(tmp_path / "zeros")["accuracy"] == pytest.approx(share)
    played = ["--data.env_id=CartPole-v1", "--data.test_episodes=3"]
    main(["test", f"--ckpt_path={tmp_path / 'run'}", f"--trainer.default_root_dir={tmp_path / 'played'}", *played])
    summary = summary_of(tmp_path / "played")
    assert (summary["env_id"], summary["episodes"], summary["evaluated_on"]) == ("CartPole-v1", 3, "episodes")


REFUSED = {
    "DAgger": (["--trainer.callbacks+=lit_imitation.DAggerCallback"], "DAggerCallback lets the learner act"),
    "videos": (["--trainer.callbacks+=lit_imitation.training.video.VideoLogger"], "VideoLogger records episodes"),
    "GAIL": (["--model=lit_imitation.GAIL"], "GAIL learns from demonstrations and rollouts"),
    "MaxEntIRL": (["--model=lit_imitation.MaxEntIRL"], "MaxEntIRL needs known transitions"),
    "return": (
        ["--trainer.callbacks+=lightning.pytorch.callbacks.EarlyStopping",
         "--trainer.callbacks.monitor=val/return_mean", "--trainer.callbacks.mode=max"],
        "EarlyStopping watches val/return_mean, but without data.env_id no episodes are played",
    ),
    "one trajectory": (["--data.num_trajectories=1"], "ModelCheckpoint watches val/loss, .* out of 1 .*: record more"),
    "no validation": (["--data.val_fraction=0"], "ModelCheckpoint watches val/loss, .* out of 8 .*: hold out some"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_needs_an_environment_is_refused(name, tmp_path, capsys):
    more, message = REFUSED[name]
    recipe = ["--config=bc/from_file", f"--data.demonstrations={RECORDED}"]
    with pytest.raises(SystemExit) as stop:
        main(["fit", *recipe, f"--trainer.default_root_dir={tmp_path}", *more])
    assert stop.value.code == 1
    assert re.search(message.replace("ModelCheckpoint", "(EarlyStopping|ModelCheckpoint)"), capsys.readouterr().err)
    assert not (tmp_path / "checkpoints").exists()


def test_single_trajectory_trains_without_callbacks(tmp_path, capsys):
    main(arguments(METHOD, tmp_path, *QUICK, "--data.num_trajectories=1"))
    assert "no trajectory is held out of 1" in capsys.readouterr().err
    summary = summary_of(tmp_path)
    assert (summary["evaluated_on"], summary["loss"]) == (None, None)
    assert load_policy(tmp_path)(np.zeros(4)).shape == (2,)


def test_environment_with_other_spaces_is_refused(run, capsys, tmp_path):
    directory, _ = run
    played = ["--data.env_id=Pendulum-v1", "--data.test_fraction=0", f"--trainer.default_root_dir={tmp_path}"]
    with pytest.raises(SystemExit):
        main(["test", f"--ckpt_path={directory}", *played])
    error = capsys.readouterr().err
    assert (
        "is of BC with GaussianPolicy without an environment; this run is BC with GaussianPolicy on Pendulum" in error
    )
    assert "It was trained for Box(-inf, inf, (4,), float32), and the environment has Box(" in error
