"""The command line: commands, results, help and errors."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from suites import DATA, arguments

from lit_imitation.cli import main
from lit_imitation.data.demonstrations import read_demonstrations
from lit_imitation.envs import make
from lit_imitation.training.command import MORE_HELP, _while_restoring

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parent.parent
FIGURES = ("return_mean", "return_std", "return_iqm", "return_ci95", "normalized_score", "normalized_score_ci95")
FIGURES += ("expert_return", "random_return", "episodes", "method", "env_id", "seed", "env_steps", "gradient_steps")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    directory = tmp_path_factory.mktemp("trained")
    main(arguments("bc-discrete", directory))
    return directory


def summary(directory: Path) -> dict[str, object]:
    return json.loads((directory / "summary.json").read_text())


def fails(capsys, *command: str) -> str:
    """Run a command that fails with an error the user can fix; returns the message."""
    with pytest.raises(SystemExit) as stop:
        main(list(command))
    assert stop.value.code in (1, 2)
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error


def test_test_of_checkpoint_repeats_summary(trained, tmp_path):
    alone = tmp_path / "elsewhere.ckpt"
    alone.write_bytes((trained / "checkpoints" / "best.ckpt").read_bytes())
    main(["test", f"--ckpt_path={alone}", f"--trainer.default_root_dir={tmp_path / 'out'}"])
    expected, actual = summary(trained), summary(tmp_path / "out")
    assert {name: actual[name] for name in FIGURES} == {name: expected[name] for name in FIGURES}


def test_run_directory_is_accepted_as_checkpoint(trained, tmp_path):
    main(["test", "--ckpt_path", str(trained), f"--trainer.default_root_dir={tmp_path}"])
    assert summary(tmp_path)["return_mean"] == summary(trained)["return_mean"]


def test_validate_reports_loss_and_return(trained, tmp_path):
    main(["validate", f"--ckpt_path={trained}", f"--trainer.default_root_dir={tmp_path}"])
    assert summary(tmp_path)["episodes"] == 4
    assert "val/loss" in (tmp_path / "metrics.csv").read_text().splitlines()[0]


def test_predict_writes_demonstrations(trained, tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        main(["predict", f"--ckpt_path={trained}", f"--trainer.default_root_dir={tmp_path}"])
    said = [str(one.message) for one in caught]
    assert not [text for text in said if any(word in text for word in ("callbacks", "dirpath", "batch indices"))]
    envs = make("CartPole-v1", 1, seed=0)
    spaces = envs.single_observation_space, envs.single_action_space
    demonstrations = read_demonstrations(str(tmp_path / "trajectories.npz"), *spaces)
    assert len(demonstrations.episode_returns) == 5
    # CartPole's reward is 1 per step, so the file has exactly the transitions of the episodes.
    assert len(demonstrations.transitions) == demonstrations.episode_returns.sum()
    again = ["--data.expert=", f"--data.demonstrations={tmp_path / 'trajectories.npz'}"]
    main(arguments("bc-discrete", tmp_path / "again", *again))
    assert summary(tmp_path / "again")["expert_return"] == pytest.approx(float(demonstrations.episode_returns.mean()))


def test_test_and_predict_write_to_the_run(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = summary(trained)
    (trained / "summary.json").unlink()
    main(["test", f"--ckpt_path={trained}"])
    assert capsys.readouterr().out.count("┏") == 1  # one table
    assert {name: summary(trained)[name] for name in FIGURES} == {name: before[name] for name in FIGURES}
    main(["predict", f"--ckpt_path={trained}"])
    (trained / "trajectories.npz").unlink()
    assert list(tmp_path.iterdir()) == []


def test_test_with_other_settings_keeps_summary_of_run(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = (trained / "summary.json").read_text()
    main(["test", f"--ckpt_path={trained}", "--data.test_episodes=2"])
    main(["validate", f"--ckpt_path={trained}"])
    assert (trained / "summary.json").read_text() == before
    (other,) = trained.glob("test_*")
    assert summary(other)["episodes"] == 2
    assert len(list(trained.glob("validate_*"))) == 1
    assert list(tmp_path.iterdir()) == []


def test_run_shorter_than_logging_interval_is_logged(tmp_path):
    short = ["--trainer.log_every_n_steps=5000", "--trainer.max_epochs=2"]
    main(arguments("bc-discrete", tmp_path, *short))
    header, *rows = (tmp_path / "metrics.csv").read_text().splitlines()
    losses = [row.split(",")[header.split(",").index("train/loss")] for row in rows]
    assert any(losses)


@pytest.mark.parametrize("suffix", ["npz", "hdf5"])
def test_collect_writes_demonstrations(suffix, tmp_path, capsys):
    def collected(name: str, *more: str):
        out = tmp_path / f"{name}.{suffix}"
        main(["collect", "--env_id=CartPole-v1", "--expert=scripted", "--episodes=3", f"--out={out}", *more])
        return read_demonstrations(str(out), *spaces)

    envs = make("CartPole-v1", 1, seed=0)
    spaces = envs.single_observation_space, envs.single_action_space
    first, same, other = collected("a"), collected("b"), collected("c", "--seed=1")
    assert first.episode_returns.tolist() == [500.0] * 3
    assert (first.transitions.observation == same.transitions.observation).all()
    assert (first.transitions.observation != other.transitions.observation).any()
    thinned = collected("d", "--subsample=20")
    assert len(thinned.transitions) == 75
    assert thinned.episode_returns.tolist() == [500.0] * 3
    assert "3 trajectories, 75 transitions, return 500.00" in capsys.readouterr().out


def test_collect_passes_arguments_to_the_environment(tmp_path):
    out = tmp_path / "short.npz"
    options = ["--env_id=CartPole-v1", "--episodes=2", f"--out={out}", "--env_kwargs"]
    main(["collect", *options, "max_episode_steps=7", "render_mode=null"])
    held = np.load(out)
    assert len(held["actions"]) == 14
    assert held["timeouts"].sum() == 2


def test_own_demonstration_file_trains_a_policy(tmp_path):
    """The example of docs/data.md: NumPy arrays and one option."""
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(300, 4)).astype(np.float32)
    np.savez(
        tmp_path / "my.npz",
        observations=observations,
        actions=(observations[:, 2] > 0).astype(np.int64),
        rewards=np.ones(300, np.float32),
        terminals=np.zeros(300, bool),
        timeouts=np.arange(300) % 100 == 99,
    )
    more = ["--data.expert=", f"--data.demonstrations={tmp_path / 'my.npz'}", "--data.num_trajectories=null"]
    main(arguments("bc-discrete", tmp_path / "run", *more))
    assert summary(tmp_path / "run")["expert_return"] == 100.0


@pytest.mark.slow
def test_several_demonstration_files_are_concatenated(tmp_path):
    lengths = {"a.npz": 100, "b.npz": 50}  # equal to the returns, with a reward of 1 per step
    for name, length in lengths.items():
        observations = np.random.default_rng(length).normal(size=(2 * length, 4)).astype(np.float32)
        np.savez(
            tmp_path / name,
            observations=observations,
            actions=(observations[:, 2] > 0).astype(np.int64),
            rewards=np.ones(2 * length, np.float32),
            terminals=np.zeros(2 * length, bool),
            timeouts=np.arange(2 * length) % length == length - 1,
        )
    files = ",".join(str(tmp_path / name) for name in lengths)
    more = ["--data.expert=", f"--data.demonstrations=[{files}]", "--data.num_trajectories=null"]
    main(arguments("bc-discrete", tmp_path / "run", *more))
    assert summary(tmp_path / "run")["expert_return"] == 75.0
    main(["test", f"--ckpt_path={tmp_path / 'run'}", f"--trainer.default_root_dir={tmp_path / 'again'}"])
    assert summary(tmp_path / "again")["expert_return"] == 75.0


def test_expert_is_importable_from_working_directory(tmp_path, monkeypatch):
    (tmp_path / "my_expert.py").write_text("def act(observation):\n    return (observation[:, 2] > 0).astype(int)\n")
    monkeypatch.chdir(tmp_path)
    main(["collect", "--env_id=CartPole-v1", "--expert=my_expert:act", "--episodes=2", "--out=x.npz"])
    main(["collect", "--env_id=CartPole-v1", "--expert=my_expert:act", "--episodes=2", "--out=y.npz", "--seed=5"])


def test_checkpoint_serves_as_expert(trained, tmp_path):
    out = tmp_path / "x.npz"
    main(["collect", "--env_id=CartPole-v1", f"--expert=checkpoint:{trained}", "--episodes=2", f"--out={out}"])
    assert out.exists()


def test_last_resumes_newest_run_of_default_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = [argument for argument in arguments("bc-discrete", tmp_path) if "default_root_dir" not in argument]
    main(command)
    (run,) = (tmp_path / "runs" / "bc" / "CartPole-v1").iterdir()
    assert {"config.yaml", "checkpoints", "metrics.csv", "summary.json"} <= {path.name for path in run.iterdir()}
    steps = summary(run)["gradient_steps"]
    main([*command, "--ckpt_path=last", "--trainer.max_epochs=7"])
    assert [path.name for path in (tmp_path / "runs" / "bc" / "CartPole-v1").iterdir()] == [run.name]
    assert summary(run)["gradient_steps"] > steps
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["trainer"]["max_epochs"] == 7


def test_directory_with_a_run_is_not_overwritten(trained, capsys):
    before = (trained / "checkpoints" / "best.ckpt").read_bytes()
    assert "--ckpt_path last" in fails(capsys, *arguments("bc-discrete", trained))
    assert (trained / "checkpoints" / "best.ckpt").read_bytes() == before


@pytest.mark.slow
def test_repeat_runs_seeds_and_continues(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text((ROOT / "configs" / "bc" / "cartpole.yaml").read_text())
    command = ["repeat", f"--config={recipe}", "--seeds=2", "--jobs=2", f"--out={tmp_path / 'out'}"]
    small = ["--trainer.max_epochs=1", "--data.num_trajectories=2", "--data.test_episodes=3", "--data.eval_episodes=1"]
    main([*command, *small])
    result = json.loads((tmp_path / "out" / "aggregate.json").read_text())
    (task,) = result["tasks"]
    assert task["seeds"] == [0, 1]
    values = [summary(tmp_path / "out" / f"seed_{seed}")["return_mean"] for seed in (0, 1)]
    assert task["return_mean"]["values"] == values
    assert task["return_mean"]["mean"] == pytest.approx(np.mean(values))
    started = time.perf_counter()
    main([*command, *small])  # nothing left to run
    assert time.perf_counter() - started < 2


def test_fit_help_lists_working_commands_for_more_options(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    assert capsys.readouterr().out.endswith(MORE_HELP)
    commands = [line.split("  ")[1].split()[1:] for line in MORE_HELP.splitlines() if ".help" in line]
    options = ["--model.discriminator_learning_rate", "--learner.clip_range", "--discriminator.max_logit",
               "--policy.std", "--data.num_trajectories", "--trainer.callbacks.query_budget"]  # fmt: skip
    for command, option in zip(commands, options, strict=True):
        with pytest.raises(SystemExit) as stop:
            main(["fit", *command])
        assert stop.value.code == 0
        assert f"  {option} " in capsys.readouterr().out
    assert "--model.learner.help CLASS" in fails(capsys, "fit", "--model=GAIL", "--model.learner.help")


def test_help_and_print_config_exit_with_zero(capsys):
    main(["--help"])
    assert "collect" in capsys.readouterr().out
    for command in ("fit", "collect", "repeat"):
        with pytest.raises(SystemExit) as stop:
            main([command, "--help"])
        assert stop.value.code == 0
        assert "usage" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["fit", f"--config={ROOT}/configs/bc/cartpole.yaml", "--model.learning_rate=0.5", "--print_config"])
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["model"]["init_args"]["learning_rate"] == 0.5


ERRORS = {
    "unknown command": (["train"], "unknown command 'train'"),
    "unknown environment": (["fit", *DATA, "--data.env_id=Nope-v1", "--data.expert=scripted"], "Nope"),
    "no demonstrations": (["fit", *DATA, "--data.env_id=CartPole-v1"], "no demonstrations"),
    "missing file": (["fit", *DATA, "--data.env_id=CartPole-v1", "--data.demonstrations=no.npz"], "no.npz"),
    "unknown expert": (["fit", *DATA, "--data.env_id=CartPole-v1", "--data.expert=oracle"], "oracle"),
    "no checkpoint to test": (["test", *DATA, "--data.env_id=CartPole-v1", "--data.expert=oracle"], "--ckpt_path"),
    "missing checkpoint": (["test", "--ckpt_path=no.ckpt"], "no.ckpt does not exist"),
    "no run to resume": (["fit", "--model=lit_imitation.BC", *DATA, "--data.env_id=CartPole-v1",
                          "--data.expert=scripted", "--ckpt_path=last"], "no run to continue"),
    "wrong policy for the actions": (["fit", "--model=lit_imitation.BC", "--model.policy=lit_imitation.GaussianPolicy",
                                      *DATA, "--data.env_id=CartPole-v1", "--data.expert=scripted",
                                      "--data.num_trajectories=2"], "needs a Box action space"),
    "batch size of text": (["fit", *DATA, "--data.env_id=Acrobot-v1", "--data.batch_size=many"], "batch_size"),
    "subsample of zero": (["fit", *DATA, "--data.env_id=CartPole-v1", "--data.expert=scripted",
                           "--data.subsample=0"], "data.subsample is 0"),
    "nothing to fit": (["fit"], "fit needs a recipe: add --config NAME"),
    "nothing to predict with": (["predict"], "predict needs a trained policy: add --ckpt_path"),
    "missing recipe": (["fit", "--config=no.yaml"], "no.yaml"),
    "unknown option": (["fit", *DATA, "--model.learning_rat=1"], "BC has no such option"),
    "seed below 0": (["fit", *DATA, "--data.env_id=CartPole-v1", "--data.expert=scripted",
                      "--seed_everything=-5"], "seed_everything is -5"),
    "option that the Trainer refuses": (["fit", *DATA, "--data.env_id=CartPole-v1", "--data.expert=scripted",
                                         "--trainer.max_epochs=-2"], "Lightning's Trainer: `max_epochs`"),
    "collect into a folder that cannot be created": (["collect", "--env_id=CartPole-v1", "--out=/proc/none/x.npz"],
                                                      "No such file or directory: '/proc/none'"),
    "collect without a value": (["collect", "--env_id=CartPole-v1", "--out=x.npz", "--env_kwargs", "render"],
                                 "--env_kwargs render: write NAME=VALUE"),
    "collect with an argument that is not YAML": (
        ["collect", "--env_id=CartPole-v1", "--out=x.npz", "--env_kwargs", "a={"], "--env_kwargs a={: the value"),
    "collect with an unknown argument of the environment": (
        ["collect", "--env_id=CartPole-v1", "--out=x.npz", "--env_kwargs", "gravitation=3"], "gravitation"),
    "collect with an abbreviated option": (["collect", "--env_id=CartPole-v1", "--out=x.npz", "--epi=3"], "--epi=3"),
    "collect into a text file": (["collect", "--env_id=CartPole-v1", "--out=x.txt"], ".npz or .hdf5"),
}  # fmt: skip


@pytest.mark.grid(every=3)
@pytest.mark.parametrize("case", sorted(ERRORS))
def test_error_is_one_message(case, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command, expected = ERRORS[case]
    given = ("--model=", "--ckpt_path=no", "--config=")
    if command[0] in ("fit", "test") and len(command) > 1 and not any(a.startswith(given) for a in command):
        command = [command[0], "--model=lit_imitation.BC", *command[1:]]
    error = fails(capsys, *command)
    assert expected in error
    assert case == "unknown command" or len(error.splitlines()) < 20
    assert list(tmp_path.rglob("*.ckpt")) == []


def test_malicious_checkpoint_is_not_executed(capsys, tmp_path):
    import pickle

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    bomb = tmp_path / "bomb.ckpt"
    bomb.write_bytes(pickle.dumps(Bomb()))
    assert "cannot be read as a checkpoint" in fails(capsys, "test", f"--ckpt_path={bomb}")
    small = ["--model=lit_imitation.BC", *DATA, "--data.env_id=CartPole-v1", "--data.expert=scripted"]
    for command in ("test", "fit"):  # with --config, Lightning itself reads the checkpoint
        with pytest.raises((SystemExit, Exception)):
            main([command, *small, f"--ckpt_path={bomb}", f"--trainer.default_root_dir={tmp_path / command}"])
    assert not (tmp_path / "executed").exists()


@pytest.mark.slow
def test_help_takes_at_most_1_3_times_import_of_lightning():
    def seconds(*command: str) -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, *command], capture_output=True, check=True, cwd=ROOT)
        return time.perf_counter() - started

    for command in (["train.py", "--help"], ["train.py", "fit", "--help"]):
        ratios = [seconds(*command) / seconds("-c", "import lightning") for _ in range(5)]
        assert statistics.median(ratios) <= 1.3, (command, ratios)


@pytest.mark.parametrize("fault", ["state", "closure"])
def test_only_optimizer_errors_are_blamed_on_checkpoint(fault):
    weight = torch.nn.Parameter(torch.zeros(2))
    weight.grad = torch.ones(2)
    optimizer = torch.optim.Adam([weight])
    optimizer.step()

    def closure():
        raise RuntimeError("of the method's own code")

    if fault == "state":
        optimizer.state[weight]["exp_avg"] = "text"
    with pytest.raises((RuntimeError, TypeError, AttributeError)) as failure:
        optimizer.step(closure if fault == "closure" else None)
    assert _while_restoring(failure.value, True) == (fault == "state")
    assert not _while_restoring(failure.value, False)


def test_closed_pipe_ends_without_traceback():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "lit_imitation", "recipes"], stdout=writer, stderr=subprocess.PIPE, cwd=ROOT, text=True
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")
