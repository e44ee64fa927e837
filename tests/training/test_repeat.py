import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from lit_imitation.errors import ConfigError, TrainingError
from lit_imitation.training import repeat as module
from lit_imitation.training.repeat import add_repeat_arguments, aggregate, repeat, run_repeat, table

pytestmark = pytest.mark.integration

# Replaces a fit: records its call, behaves as its case says, and writes a summary.
CHILD = """
import json, os, pathlib, signal, sys, time
seed, folder, resume, case = int(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3] == "True", sys.argv[4]
with open(folder.parent / "calls.txt", "a") as calls:
    calls.write(f"{seed} {resume}\\n")
def wait_for(path):
    until = time.monotonic() + 30
    while not path.exists():
        if time.monotonic() > until:
            sys.exit("waited in vain for " + str(path))
        time.sleep(0.01)
print("begin", seed, os.environ["OMP_NUM_THREADS"])
begin = time.monotonic()
if case == "meet":
    (folder / "here").touch()
    wait_for(folder.parent / f"seed_{1 - seed}" / "here")
if case == "fail" and seed == 1:
    raise ArithmeticError("not finite")
if case == "crash" and seed == 1:
    os.kill(os.getpid(), signal.SIGKILL)
if case == "silent" and seed == 1:
    sys.exit(0)
if case in ("SIGTERM", "SIGINT"):
    def stop(number, frame):
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints" / "last.ckpt").touch()
        sys.exit(1)
    signal.signal(signal.SIGTERM, stop)
    (folder / "here").touch()
    if seed == 1:
        wait_for(folder.parent / "seed_0" / "here")
        os.kill(os.getppid(), getattr(signal, case))
    time.sleep(30)
if case == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (folder / "here").touch()
    os.kill(os.getppid(), signal.SIGTERM)
    time.sleep(30)
if case == "pause":
    time.sleep(0.2)
summary = dict(method="BC", env_id="Known-v0", seed=seed, return_mean=10.0 * seed, return_std=1.0,
               return_iqm=10.0 * seed + 1, return_ci95=[0, 1], normalized_score=seed / 2, normalized_score_ci95=[0, 1],
               expert_return=20.0, random_return=0.0, env_steps=100, gradient_steps=50 + seed, wall_seconds=1.5,
               episodes=5, checkpoint="c.ckpt", versions={"torch": "2"}, begin=begin, end=time.monotonic())
(folder / "summary.json").write_text(json.dumps(summary))
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "bc" / "known.yaml"
    path.parent.mkdir()
    path.write_text("# Takes a minute.\nmodel:\n  lr: 0.1\n")
    return str(path)


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """Make `repeat` run the child program in the given case."""
    script = tmp_path / "child.py"
    script.write_text(CHILD)

    def use(case="finish"):
        def command(config, seed, directory, overrides, resume):
            return [sys.executable, "-S", str(script), str(seed), str(directory), str(resume), case]

        monkeypatch.setattr(module, "_command", command)

    return use


def calls(out):
    return sorted((out / "calls.txt").read_text().splitlines())


def summary(seed, method="BC", env_id="A-v0", score=0.5, **fields):
    return {
        "method": method,
        "env_id": env_id,
        "seed": seed,
        "return_mean": 10.0 * seed,
        "return_iqm": 10.0 * seed,
        "normalized_score": score,
        "expert_return": 100.0,
        "random_return": 0.0,
        "env_steps": 1000,
        "gradient_steps": 10,
        "wall_seconds": 1.0 + seed,
        "versions": {"torch": "2.13.0"},
        **fields,
    }


def test_every_seed_runs_and_is_aggregated(recipe, fake, tmp_path):
    fake()
    out = tmp_path / "out"
    result = repeat([recipe], 3, 2, out, ["--x", "1"], first_seed=4)
    assert json.loads((out / "aggregate.json").read_text()) == result
    assert result["config"] == [recipe]
    assert result["overrides"] == ["--x", "1"]
    (task,) = result["tasks"]
    assert task["seeds"] == [4, 5, 6]
    assert task["return_mean"]["values"] == [40.0, 50.0, 60.0]
    assert task["gradient_steps"] == 55
    assert (out / "seed_5" / "log.txt").read_text().startswith("begin 5")


def test_jobs_run_at_the_same_time(recipe, fake, tmp_path):
    fake("meet")
    assert repeat([recipe], 2, 2, tmp_path / "out", [])["tasks"][0]["seeds"] == [0, 1]


def test_no_more_than_jobs_run_at_the_same_time(recipe, fake, tmp_path):
    fake("pause")
    out = tmp_path / "out"
    repeat([recipe], 3, 1, out, [])
    runs = [json.loads((out / f"seed_{seed}" / "summary.json").read_text()) for seed in range(3)]
    assert all(before["end"] <= after["begin"] for before, after in itertools.pairwise(runs))


@pytest.mark.parametrize(("preset", "expected"), [(None, "3"), ("7", "7")], ids=["shared", "preset"])
def test_cores_are_divided_unless_threads_are_set(recipe, fake, tmp_path, monkeypatch, preset, expected):
    fake()
    monkeypatch.setattr(module, "_cores", lambda: 7)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if preset:
        monkeypatch.setenv("OMP_NUM_THREADS", preset)
    repeat([recipe], 1, 2, tmp_path / "out", [])
    assert (tmp_path / "out" / "seed_0" / "log.txt").read_text() == f"begin 0 {expected}\n"


def test_second_call_continues_unfinished_seeds(recipe, fake, tmp_path):
    fake()
    out = tmp_path / "out"
    repeat([recipe], 1, 1, out, [])
    (out / "calls.txt").unlink()
    with_checkpoint, half_summary, bare = (out / f"seed_{seed}" for seed in (1, 2, 3))
    (with_checkpoint / "checkpoints").mkdir(parents=True)
    (with_checkpoint / "checkpoints" / "last.ckpt").touch()
    (with_checkpoint / "log.txt").write_text("earlier\n")
    half_summary.mkdir()
    (half_summary / "summary.json").write_text('{"method": "B')
    (bare / "version_0").mkdir(parents=True)
    (bare / "metrics.csv").touch()
    (bare / "log.txt").write_text("earlier\n")
    result = repeat([recipe], 5, 2, out, [])
    assert result["tasks"][0]["seeds"] == [0, 1, 2, 3, 4]
    assert calls(out) == ["1 True", "2 False", "3 False", "4 False"]
    assert (with_checkpoint / "log.txt").read_text().startswith("earlier\nbegin 1")
    assert sorted(os.listdir(bare)) == ["log.txt", "summary.json"]
    assert (bare / "log.txt").read_text().startswith("begin 3")


@pytest.mark.parametrize(
    "fields",
    [
        {"seed": 9},
        {"return_mean": float("nan")},
        {"return_iqm": None},
        {"method": None},
        {"normalized_score": "1"},
        {"loss": "low"},
        {"env_id": None},
        {"env_id": "", "return_mean": "high"},
    ],
    ids=lambda fields: next(reversed(fields)),
)
def test_summary_of_another_run_is_ignored(recipe, fake, tmp_path, fields):
    fake()
    out = tmp_path / "out"
    repeat([recipe], 1, 1, out, [])
    path = out / "seed_0" / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    repeat([recipe], 1, 1, out, [])
    assert calls(out) == ["0 False", "0 False"]


def test_moved_or_commented_recipe_is_the_same_request(recipe, fake, tmp_path):
    fake()
    out = tmp_path / "out"
    repeat([recipe], 1, 1, out, [])
    moved = tmp_path / "moved.yaml"
    moved.write_text("model: {lr: 0.1}  # reaches 0.9\n")
    repeat([str(moved)], 1, 1, out, [])
    assert calls(out) == ["0 False"]


@pytest.mark.parametrize(
    ("text", "overrides", "difference"),
    [
        ("model: {lr: 0.2}", [], r"config\[0\]\.model\.lr: was 0\.1, is now 0\.2"),
        ("model: {lr: 0.1, l2: 0}", [], r"config\[0\]\.model\.l2: was absent, is now 0"),
        ("model: {lr: 0.1}", ["--y=2"], r'overrides: was \[\], is now \["--y=2"\]'),
    ],
    ids=["value", "key", "override"],
)
def test_another_request_in_same_folder_is_refused(recipe, fake, tmp_path, text, overrides, difference):
    fake()
    out = tmp_path / "out"
    repeat([recipe], 1, 1, out, [])
    Path(recipe).write_text(text)
    with pytest.raises(ConfigError, match=rf"choose another --out[^\n]*\n  {difference}$"):
        repeat([recipe], 2, 1, out, overrides)
    assert calls(out) == ["0 False"]


def test_folder_without_request_is_left_alone(recipe, fake, tmp_path):
    fake()
    precious = tmp_path / "out" / "seed_0" / "precious"
    precious.mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"no repeat\.json"):
        repeat([recipe], 1, 1, tmp_path / "out", [])
    assert precious.exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"seeds": 0}, "--seeds 0"),
        ({"jobs": 0}, "--jobs 0"),
        ({"first_seed": -1}, "--first_seed -1"),
        ({"config": ["absent.yaml"]}, "absent.yaml"),
        ({"overrides": ["--seed_everything", "3"]}, "--seed_everything"),
        ({"overrides": ["--trainer.default_root_dir=x"]}, "--trainer.default_root_dir=x"),
    ],
    ids=["seeds", "jobs", "first", "recipe", "seed", "folder"],
)
def test_invalid_request_is_refused_before_writing(recipe, tmp_path, arguments, text):
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match=text):
        repeat(**{"config": [recipe], "seeds": 1, "jobs": 1, "out": out, "overrides": []} | arguments)
    assert not out.exists()


def test_recipe_that_is_not_yaml_is_refused(recipe, tmp_path):
    Path(recipe).write_text("model: [")
    with pytest.raises(ConfigError, match=r"known\.yaml: cannot be read"):
        repeat([recipe], 1, 1, tmp_path / "out", [])


@pytest.mark.parametrize(
    ("case", "text"),
    [
        (
            "fail",
            r"seed 1 failed with exit code 1\. The end of .*log\.txt:\n  begin 1 (.*\n)+  ArithmeticError: not finite$",
        ),
        ("crash", r"seed 1 was killed by SIGKILL\. The end of .*log\.txt:\n  begin 1 "),
        ("silent", r"seed 1 ended with exit code 0, but .*summary\.json is missing"),
    ],
    ids=["exit-code", "signal", "no-summary"],
)
def test_failed_seed_does_not_stop_the_others(recipe, fake, tmp_path, monkeypatch, case, text):
    fake(case)
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    out = tmp_path / "out"
    with pytest.raises(TrainingError, match=text) as caught:
        repeat([recipe], 3, 1, out, [])
    assert str(caught.value).startswith("1 of 3 seeds failed; 2 have results.")
    assert not (out / "aggregate.json").exists()
    fake()
    assert repeat([recipe], 3, 1, out, [])["tasks"][0]["seeds"] == [0, 1, 2]
    assert calls(out) == ["0 False", "1 False", "1 False", "2 False"]


@pytest.mark.parametrize(
    ("case", "raised", "code"), [("SIGTERM", SystemExit, 143), ("SIGINT", KeyboardInterrupt, None)], ids=["term", "int"]
)
def test_signal_ends_runs_and_next_call_continues(recipe, fake, tmp_path, case, raised, code):
    fake(case)
    out = tmp_path / "out"
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(raised) as caught:
        repeat([recipe], 3, 2, out, [])
    assert getattr(caught.value, "code", None) == code
    assert handlers == (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))
    # Both had time to write their checkpoint; the third seed was never started.
    assert calls(out) == ["0 False", "1 False"]
    fake()
    repeat([recipe], 3, 2, out, [])
    assert calls(out) == ["0 False", "0 True", "1 False", "1 True", "2 False"]


def test_run_that_ignores_the_signal_is_killed(recipe, fake, tmp_path, monkeypatch):
    fake("stubborn")
    monkeypatch.setattr(module, "_GRACE_SECONDS", 0.1)
    begin = time.monotonic()
    with pytest.raises(SystemExit):
        repeat([recipe], 1, 1, tmp_path / "out", [])
    assert (tmp_path / "out" / "seed_0" / "here").exists()
    assert time.monotonic() - begin < 20


def test_live_run_of_an_earlier_call_is_left_alone(recipe, fake, tmp_path):
    fake()
    out = tmp_path / "out"
    repeat([recipe], 1, 1, out, [])
    (out / "seed_0" / "summary.json").unlink()
    hold = "import fcntl, sys; fcntl.flock(1, fcntl.LOCK_EX); print('held', file=sys.stderr, flush=True); input()"
    with (out / "seed_0" / "log.txt").open("ab") as log:
        survivor = subprocess.Popen(
            [sys.executable, "-S", "-E", "-c", hold], stdin=subprocess.PIPE, stdout=log, stderr=subprocess.PIPE
        )
    try:
        assert survivor.stderr.readline() == b"held\n"
        (out / "seed_0" / "metrics.csv").touch()
        with pytest.raises(TrainingError, match="seed 0: a process of an earlier call still runs"):
            repeat([recipe], 2, 1, out, [])
        assert (out / "seed_0" / "metrics.csv").exists()
        assert (out / "seed_1" / "summary.json").exists()
    finally:
        survivor.communicate(b"\n")
    assert repeat([recipe], 2, 1, out, [])["tasks"][0]["seeds"] == [0, 1]


def test_run_keeps_its_lock_until_it_ends(recipe, fake, tmp_path):
    fake("pause")
    (tmp_path / "out").mkdir()
    directory = tmp_path / "out" / "seed_0"
    process = module._start([recipe], 0, directory, [], 1)
    with pytest.raises(ConfigError, match="still runs"):
        module._start([recipe], 0, directory, [], 1)
    assert process.wait() == 0


def test_command_of_a_seed_has_recipe_and_directory():
    command = module._command(["a.yaml", "b.yaml"], 3, Path("out/seed_3"), ["--trainer.max_epochs", "2"], True)
    assert command == [
        sys.executable,
        *["-m", "lit_imitation", "fit", "--config", "a.yaml", "--config", "b.yaml", "--trainer.max_epochs", "2"],
        *["--seed_everything", "3", "--trainer.default_root_dir", "out/seed_3", "--ckpt_path", "last"],
    ]
    assert "--ckpt_path" not in module._command(["a.yaml"], 0, Path("out/seed_0"), [], False)


def test_aggregate_of_one_task_matches_numpy():
    scores = [0.0, 0.1, 0.5, 0.9, 5.0]
    result = aggregate([summary(seed, score=score) for seed, score in enumerate(scores)])
    (task,) = result["tasks"]
    assert task["return_mean"]["mean"] == 20.0
    assert task["normalized_score"]["mean"] == pytest.approx(1.3)
    assert task["normalized_score"]["iqm"] == pytest.approx(0.5)
    low, high = task["normalized_score"]["mean_ci95"]
    assert 0.0 < low < 1.3 < high < 5.0
    assert task["normalized_score"]["iqm_ci95"][0] < 0.5 < task["normalized_score"]["iqm_ci95"][1]
    assert task["wall_seconds"] == 3.0
    assert result["overall"] == {"BC": {"env_ids": ["A-v0"], "normalized_score": task["normalized_score"]}}


def test_aggregate_resamples_seeds_within_tasks():
    runs = [
        summary(seed, env_id=env_id, score=score) for env_id, score in (("A-v0", 0.0), ("B-v0", 1.0)) for seed in (0, 1)
    ]
    result = aggregate([*runs, summary(0, method="DAgger", score=0.7)])
    assert [(task["method"], task["env_id"]) for task in result["tasks"]] == [
        ("BC", "A-v0"),
        ("BC", "B-v0"),
        ("DAgger", "A-v0"),
    ]
    overall = result["overall"]["BC"]["normalized_score"]
    assert overall["values"] == [0.0, 0.0, 1.0, 1.0]
    # Seeds of a task are equal, so only pooling without strata would give an interval with a width.
    assert overall["mean_ci95"] == [0.5, 0.5]
    assert result["overall"]["DAgger"]["normalized_score"]["mean"] == 0.7


def test_aggregate_without_normalized_scores_has_null():
    alone = aggregate([summary(0, score=None, expert_return=None), summary(1, score=None)])
    assert alone["tasks"][0]["normalized_score"] is None
    assert alone["tasks"][0]["expert_return"] is None
    assert alone["overall"]["BC"]["normalized_score"] is None
    mixed = aggregate([summary(0, score=None), summary(1, score=0.25), summary(0, env_id="B-v0", score=None)])
    for score in (mixed["tasks"][0]["normalized_score"], mixed["overall"]["BC"]["normalized_score"]):
        assert score["values"][:2] == [None, 0.25]
        assert score["mean"] == score["iqm"] == 0.25
    assert mixed["tasks"][1]["normalized_score"] is None


def test_aggregate_joins_versions_that_differ():
    runs = [summary(0), summary(1), summary(2, versions={"torch": "2.14.0", "lightning": "2.6.6"})]
    assert aggregate(runs)["tasks"][0]["versions"] == {"torch": "2.13.0, 2.14.0", "lightning": "2.6.6"}


def test_aggregate_refuses_duplicate_seeds_and_no_runs():
    with pytest.raises(ConfigError, match=r"BC on A-v0.*\[0, 0\]"):
        aggregate([summary(0), summary(0)])
    with pytest.raises(ValueError, match="no summaries"):
        aggregate([])


def from_file(seed: int, loss: float) -> dict:
    """Summary of a run without an environment."""
    unknown = dict.fromkeys(("return_mean", "return_iqm", "normalized_score", "expert_return", "random_return"))
    return summary(seed, env_id="", loss=loss, action_error=loss / 2) | unknown


def test_held_out_figures_are_aggregated_without_returns(capsys, tmp_path):
    runs = [from_file(0, 0.5), from_file(1, 0.7)]
    result = aggregate(runs)
    (task,) = result["tasks"]
    assert task["return_mean"] is task["normalized_score"] is task["accuracy"] is None
    assert task["loss"]["values"] == [0.5, 0.7]
    assert task["action_error"]["mean"] == pytest.approx(0.3)
    Console(width=80).print(table(result))
    text = capsys.readouterr().out
    for word in ("held-out demonstrations", "loss", "0.6000 [", "action error", "0.3000 ["):
        assert word in text
    assert "return" not in text
    (tmp_path / "summary.json").write_text(json.dumps(runs[1]))
    read = module._read_summary(tmp_path, 1)
    assert module._describe(read) == "loss 0.7, action_error 0.35"


def test_table_shows_all_scores_in_80_columns(capsys):
    env_id = "LunarLanderContinuous-v3"
    runs = [summary(seed, env_id=env_id, score=seed / 10, return_mean=-1000.5 * seed) for seed in range(5)]
    Console(width=80).print(table(aggregate([*runs, summary(0, env_id="B-v0", score=None)])))
    text = capsys.readouterr().out
    mean = np.mean([-1000.5 * seed for seed in range(5)])
    assert f" {mean:.0f} [" in text
    assert " 0.200 [" in text
    assert " 20.0 [" in text
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    for word in (env_id, "BC, 5 seeds", "normalized score", "expert return", "all 2 tasks"):
        assert word in text


def test_command_line_prints_table_and_path(recipe, fake, tmp_path, monkeypatch, capsys):
    fake()
    monkeypatch.chdir(tmp_path)
    parser = argparse.ArgumentParser()
    add_repeat_arguments(parser)
    namespace, extra = parser.parse_known_args(["--config", recipe, "--seeds", "2", "--trainer.max_epochs", "3"])
    run_repeat(namespace, extra)
    out = tmp_path / "runs" / "repeat" / "bc-known"
    assert json.loads((out / "aggregate.json").read_text())["overrides"] == ["--trainer.max_epochs", "3"]
    text = capsys.readouterr().out
    assert "Known-v0" in text
    assert "2/2" in text
    assert "runs/repeat/bc-known/aggregate.json" in text


def test_interrupted_command_line_says_how_to_continue(recipe, fake, tmp_path, capsys):
    fake("SIGINT")
    namespace = argparse.Namespace(config=[recipe], seeds=2, jobs=2, out=tmp_path / "out", first_seed=0, trust="false")
    with pytest.raises(SystemExit) as caught:
        run_repeat(namespace, [])
    assert caught.value.code == 130
    assert "The same command continues" in capsys.readouterr().out


def test_import_loads_neither_torch_nor_lightning():
    heavy = "{'torch', 'lightning', 'wandb', 'matplotlib', 'scipy'} & set(sys.modules)"
    code = f"import sys, lit_imitation.training.repeat; print({heavy})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_interval_includes_errors_of_references():
    """With equal scores, the references' errors are the only ones. E ~ N(100, 5²), so 80 / E has sd 0.8 · 0.05."""
    runs = [summary(seed, score=0.8, expert_return_error=5.0, random_return_error=0.0) for seed in range(5)]
    result = aggregate(runs)
    assert result["tasks"][0]["expert_return_error"] == 5.0
    for score in (result["tasks"][0]["normalized_score"], result["overall"]["BC"]["normalized_score"]):
        assert score["mean"] == pytest.approx(0.8)
        for name in ("mean_ci95", "iqm_ci95"):
            low, high = score[name]
            assert (high - low) / 2 == pytest.approx(1.96 * 0.8 * 0.05, rel=0.1)
    low, high = aggregate([summary(seed, score=0.8) for seed in range(5)])["tasks"][0]["normalized_score"]["mean_ci95"]
    assert low == pytest.approx(high)
