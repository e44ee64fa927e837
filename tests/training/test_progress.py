"""Progress bars and lines."""

from __future__ import annotations

import json
import re
import sys

import pytest
from suites import arguments

from lit_imitation.cli import main

pytestmark = pytest.mark.integration


@pytest.mark.slow
def test_rounds_show_return_and_rate_without_logging_rate(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    more = ["--trainer.max_epochs=1", "--data.steps_per_round=64"]
    main(arguments("ppo-discrete", tmp_path, *more))
    bar = capsys.readouterr().out
    shown = re.findall(r" 3/3 \[.*train_return=([\d.]+), steps/s=([\d,]+)", bar)
    assert shown, bar
    header, *rows = [line.split(",") for line in (tmp_path / "metrics.csv").read_text().splitlines()]
    assert not any("steps/s" in name or "rate" in name for name in header)
    returns = [row[header.index("train/return_mean")] for row in rows]
    assert float(shown[-1][0]) == round(float([value for value in returns if value][-1]), 1)


@pytest.mark.slow
def test_output_to_a_file_has_lines_instead_of_bars(tmp_path, capsys):
    main(arguments("bc-discrete", tmp_path / ("long" * 30)))
    said = capsys.readouterr().out
    assert "\r" not in said
    assert "\x1b" not in said
    assert re.search(r"^epoch 5/5: val_loss [\d.]+, return [\d.]+$", said, re.MULTILINE), said
    assert str(tmp_path / ("long" * 30)) in said  # the table is not truncated to 80 columns
    assert "…" not in said


@pytest.mark.slow
def test_adversarial_progress_shows_no_held_out_loss(tmp_path, capsys):
    main(arguments("gail-discrete", tmp_path, "--trainer.max_epochs=1", "--data.expert_trajectories=10"))
    (line,) = re.findall(r"^epoch 1/1: .*$", capsys.readouterr().out, re.MULTILINE)
    assert "return " in line
    assert "train_return " in line or "steps/s " in line
    assert "loss" not in line
    header = (tmp_path / "metrics.csv").read_text().splitlines()[0]
    assert "val/loss" in header  # the log has it


def test_compiled_gradients_are_announced(tmp_path, caplog, monkeypatch):
    from lit_imitation.rl import PPO

    monkeypatch.setattr(PPO, "compile_gradient", property(lambda self: True, lambda self, value: None))
    monkeypatch.setattr("torch.compile", lambda function, **options: function)
    main(arguments("ppo-discrete", tmp_path, "--trainer.max_epochs=1", "--data.rounds_per_epoch=1"))
    assert "20 to 60 seconds" in caplog.text


@pytest.mark.slow
def test_own_progress_bar_replaces_default(tmp_path, capsys):
    own = "--trainer.callbacks+=lightning.pytorch.callbacks.RichProgressBar"
    main(arguments("bc-discrete", tmp_path, "--trainer.max_epochs=1", own))
    assert not re.search("^epoch 1/1", capsys.readouterr().out, re.MULTILINE)
    assert json.loads((tmp_path / "summary.json").read_text())["episodes"] == 5
